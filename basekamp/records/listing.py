"""What a listing of a store holds: each experiment's records and other keys; that of a large folder is kept.

Kept below `BASEKAMP_HOME`, as lines of text, and used as long as no folder of the store had a name come or go. It is
never more than a copy: what is broken, foreign or cannot be written is passed over.
"""

import json
import time
import zlib
from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256
from operator import itemgetter
from pathlib import Path

from basekamp.errors import BasekampError, InputError
from basekamp.records.record import BASELINE
from basekamp.records.row import RECORD, Found, find_id
from basekamp.storage import Store
from basekamp.storage.folder import Folders, FolderStore
from basekamp.storage.protocol import whole_file
from basekamp.work import work_directory

FORMAT = 1
FEWEST_KEPT = 2000
"""Fewer keys are listed as quickly as they are read."""

SETTLED_NS = 5_000_000_000
"""A folder changed more recently may change again within one tick of its clock, which nobody would see."""

Listing = dict[str, tuple[Found, list[str]]]
"""Of each experiment the records, in the order of their ids, and all other keys."""


def read_listing(store: Store, experiment: str | None = None) -> Listing:
    """List the store, or one experiment of it."""
    if not isinstance(store, FolderStore):
        return sort_keys(record_keys(store, experiment))
    place = sha256(f"{store.url}\n{experiment or ''}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
    kept = _recall(work_directory(make=False) / "listings" / place, store)
    if kept is not None:
        return kept
    begin = time.time_ns()
    keys, folders = store.keys_and_folders(*_wanted(experiment))
    listing = sort_keys(filter(_is_record, keys))
    if len(keys) >= FEWEST_KEPT and all(changed < begin - SETTLED_NS for changed, _ in folders.values()):
        _keep(work_directory() / "listings" / place, listing, folders)
    return listing


def record_keys(store: Store, experiment: str | None = None) -> list[str]:
    """The keys of JSON documents in experiments."""
    return list(filter(_is_record, store.keys(*_wanted(experiment))))


def sort_keys(keys: Iterable[str]) -> Listing:
    """Part keys by experiment, and records from the others; a record whose name is none of ours is among the others."""
    records: dict[str, list[tuple[str, str, str]]] = {}
    others: dict[str, list[str]] = {}
    for key in keys:
        experiment, *folders, name = key.split("/")
        found, rest = records.setdefault(experiment, []), others.setdefault(experiment, [])
        attempt = BASELINE if folders == ["baseline"] else folders[1] if _is_attempt(folders) else None
        try:
            if attempt is None:
                rest.append(key)
            else:
                found.append((find_id(name), key, attempt))
        except (InputError, KeyError, ValueError):
            rest.append(key)
    for found in records.values():
        found.sort(key=itemgetter(0))
    return {name: (_columns(found), others[name]) for name, found in records.items()}


def _is_attempt(folders: list[str]) -> bool:
    return len(folders) == 2 and folders[0] == "attempts"


def _columns(found: list[tuple[str, str, str]]) -> Found:
    ids, keys, attempts = zip(*found, strict=True) if found else ((), (), ())
    return Found(ids, keys, attempts)


def _wanted(experiment: str | None) -> tuple[str, str]:
    return f"{experiment}/" if experiment else "", RECORD


def _is_record(key: str) -> bool:
    return key[0] != "." and key.count("/") > 1


def _keep(path: Path, listing: Listing, folders: Folders) -> None:
    """A line of JSON, then each experiment's ids, keys, attempts and other keys, a line each."""
    lines = [line for found, others in listing.values() for part in _parts(found, others) for line in part]
    sizes = {name: [len(found.ids), len(others)] for name, (found, others) in listing.items()}
    body = "\n".join(lines)
    if body.count("\n") != len(lines) - 1:  # a key may hold the end of a line
        return
    with suppress(BasekampError, OSError, UnicodeEncodeError), whole_file(path, durable=False) as file:
        content = body.encode()
        head = {"format": FORMAT, "sizes": sizes, "folders": folders, "crc32": zlib.crc32(content)}
        file.write(json.dumps(head).encode() + b"\n" + content)


def _parts(found: Found, others: list[str]) -> tuple[Iterable[str], ...]:
    return found.ids, found.keys, found.attempts, others


def _recall(path: Path, store: FolderStore) -> Listing | None:
    """What was kept, where it still holds."""
    try:
        first, _, content = path.read_bytes().partition(b"\n")
        head = json.loads(first)
        if head["format"] != FORMAT or not store.is_unchanged(head["folders"]) or zlib.crc32(content) != head["crc32"]:
            return None
        lines, listing, begin = content.decode().split("\n"), {}, 0
        for name, (number, others) in head["sizes"].items():
            ends = [begin + number, begin + 2 * number, begin + 3 * number, begin + 3 * number + others]
            ids, keys, attempts, rest = (lines[start:end] for start, end in zip([begin, *ends[:-1]], ends, strict=True))
            listing[name], begin = (Found(ids, keys, attempts), rest), ends[-1]
        return listing
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
