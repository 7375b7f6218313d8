"""Remove what old attempts and killed trainings take up, and nothing that a result rests on.

Removed are models (.pth) and predictions (.npz) of attempts, and checkpoints. Never removed are baselines, whatever
was champion once (a fallback may go there), and any .json: records, openings, promotions, rebases, sweeps.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from basekamp.errors import InputError, StoreError
from basekamp.naming import id_time
from basekamp.records.leaderboard import best_first
from basekamp.records.shelf import MODEL, PREDICTIONS, Row, Shelf, id_in, read_shelf, read_shelves
from basekamp.storage import Entry, Store
from basekamp.work import work_directory

CHECKPOINTS = "checkpoints"
REMOVABLE = (MODEL, PREDICTIONS)
_AGE = re.compile(r"(\d{1,4})([hdw])")
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


class Waste(NamedTuple):
    """One file that can go. `place`: its key in the store, or its path on this machine. of: what it belongs to."""

    place: str | Path
    size_bytes: int
    of: str


@dataclass(frozen=True)
class Policy:
    """What stays: the `keep` best attempts of each experiment and lineage, and all that is younger than `age`."""

    keep: int
    age: timedelta
    now: datetime

    def is_old(self, when: datetime) -> bool:
        """Whether a time lies further back than the policy keeps things."""
        return self.now - when > self.age


def make_policy(keep: int, older_than: str, now: datetime | None = None) -> Policy:
    """Read the policy as a user writes it; raises InputError for an age such as "30" without its unit."""
    found = _AGE.fullmatch(older_than)
    if found is None:
        raise InputError(f"--older-than {older_than} is not allowed: use a number of h, d or w, such as 30d or 0d.")
    if keep < 0:
        raise InputError(f"--keep {keep} is not allowed: use 0 or more.")
    return Policy(keep, int(found[1]) * _UNITS[found[2]], now or datetime.now(UTC))


def find_waste(store: Store, policy: Policy, *, experiment: str | None = None) -> list[Waste]:
    """List what the policy lets go, of all experiments or one; checkpoints name no experiment and go with all."""
    shelves = [read_shelf(store, experiment)] if experiment else read_shelves(store)
    found = [waste for shelf in shelves for waste in _old_attempts(store, shelf, policy)]
    if experiment is None:
        found += [*_stored_checkpoints(store, policy), *_local_checkpoints(policy)]
    return found


def remove_waste(store: Store, waste: Iterable[Waste]) -> Iterator[Waste]:
    """Remove one file after the other, telling each that is gone. Stopped anywhere, it is finished by the next call.

    An attempt that became champion since it was listed stays.
    """
    for one in waste:
        if isinstance(one.place, Path):
            _remove_file(one.place)
        elif not _is_promoted(store, one.place):
            store.delete(one.place)
        else:
            continue
        yield one


def waste_as_json(waste: Iterable[Waste]) -> list[dict[str, Any]]:
    """What can go as plain values, for `--json`."""
    return [{"place": str(one.place), "size_bytes": one.size_bytes, "of": one.of} for one in waste]


def _old_attempts(store: Store, shelf: Shelf, policy: Policy) -> Iterator[Waste]:
    going = {row.id: row for row in _removable_rows(shelf, policy)}
    for entry in store.entries(f"{shelf.experiment}/attempts/"):
        row = going.get(id_in(entry.key) or "")
        if row and entry.key in [row.beside(extension) for extension in REMOVABLE]:
            yield Waste(entry.key, entry.size_bytes, row.attempt)


def _removable_rows(shelf: Shelf, policy: Policy) -> list[Row]:
    """The attempts that were never champion, are old, and are not among the best; NaN is never among these."""
    promoted = {promotion.of for promotion in shelf.promotions}
    lineages = dict.fromkeys(row.lineage for row in shelf.every)
    attempts = [best_first(row for row in shelf.at(i).rows if row.role == "attempt") for i in lineages]
    left = [row for rows in attempts for row in rows[policy.keep :]]
    return [row for row in left if row.id not in promoted and _is_old(row, policy)]


def _is_old(row: Row, policy: Policy) -> bool:
    try:
        return policy.is_old(id_time(row.id))
    except InputError:  # an id of other tools tells no time, so nobody knows
        return False


def _is_promoted(store: Store, key: str) -> bool:
    """Whether the record that a key belongs to was ever made champion, as the store tells now."""
    promotions = store.entries(f"{key.partition('/')[0]}/promotions/")
    return any(f".of-{id_in(key)}." in entry.key for entry in promotions)


def _stored_checkpoints(store: Store, policy: Policy) -> Iterator[Waste]:
    trainings: dict[PurePosixPath, list[Entry]] = {}
    for entry in store.entries(f".{CHECKPOINTS}/"):
        trainings.setdefault(PurePosixPath(entry.key).parent, []).append(entry)
    for entries in trainings.values():
        if policy.is_old(max(entry.modified for entry in entries)):
            yield from (Waste(entry.key, entry.size_bytes, "checkpoints in the store") for entry in entries)


def _local_checkpoints(policy: Policy) -> Iterator[Waste]:
    for folder in sorted((work_directory() / CHECKPOINTS).glob("*/")):
        files = {path: path.stat() for path in sorted(folder.iterdir()) if path.is_file()}
        newest = max((status.st_mtime for status in files.values()), default=0.0)
        if policy.is_old(datetime.fromtimestamp(newest, UTC)):
            yield from (Waste(path, status.st_size, "checkpoints on this machine") for path, status in files.items())


def _remove_file(path: Path) -> None:
    """Remove a file, and its folder with the last one."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be removed ({error.strerror}): check the rights of its folder, or go on with a FILE, which "
            "leaves checkpoints alone."
        ) from error
    with suppress(OSError):  # others are in it
        path.parent.rmdir()
