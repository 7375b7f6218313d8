"""What is cleaned up, and what never is, wherever it is stopped."""

import json
import math
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from basekamp.errors import InputError, StoreError
from basekamp.naming import Name, format_name, new_id
from basekamp.records.gate import fall_back
from basekamp.records.gc import find_waste, make_policy, remove_waste
from basekamp.records.rebase import rebase
from basekamp.records.shelf import read_shelf
from basekamp.storage import Store, open_store
from tests.failing_store import fail_at

BASEKAMP = Path(sys.executable).with_name("basekamp")
NOW = datetime.now(UTC).replace(microsecond=0)
EXTENSIONS = (".npz", ".pth", ".html", ".gz", ".json")


def put_record(store: Store, attempt: str, accuracy: float, *, days: float, experiment: str = "e") -> str:
    """The files of a record that is so many days old; gives its id."""
    record_id = new_id(NOW - timedelta(days=days), f"{experiment}/{attempt}/{accuracy}")
    results = {"n": 3, "loss": 0.5, "accuracy": accuracy, "spread": 0.01}
    if attempt != "baseline":
        results |= {"difference": 0.1, "low": 0.0, "high": 0.2, "verdict": "refuted"}
    name = format_name(Name("linear", {"lr": 0.1} | results, "pth", record_id)).removesuffix(".pth")
    folder = "baseline" if attempt == "baseline" else f"attempts/{attempt}"
    for extension in EXTENSIONS:
        store.put(f"{experiment}/{folder}/{name}{extension}", f"{attempt}{extension}".encode())
    return record_id


def waste_of(store: Store, *, keep: int = 1, older_than: str = "30d", experiment: str | None = None) -> list[str]:
    """What would go, as attempt and extension, in order."""
    found = find_waste(store, make_policy(keep, older_than, NOW), experiment=experiment)
    return [f"{one.of}{Path(one.place).suffix}" for one in found]


def collect(store: Store, *, keep: int = 1, older_than: str = "30d") -> None:
    list(remove_waste(store, find_waste(store, make_policy(keep, older_than, NOW))))


def keys(store: Store) -> set[str]:
    return {entry.key for entry in store.entries()}


@pytest.fixture
def store(tmp_path, home) -> Store:
    """A baseline and five attempts, the last one young; none was champion."""
    store = open_store(str(tmp_path / "store"))
    put_record(store, "baseline", 0.1, days=400)
    for attempt, accuracy, days in (("a", 0.5, 300), ("b", 0.9, 200), ("c", math.nan, 100), ("d", 0.7, 60)):
        put_record(store, attempt, accuracy, days=days)
    put_record(store, "young", 0.2, days=29)
    return store


@pytest.mark.parametrize(
    ("keep", "older_than", "gone"),
    [
        (0, "30d", "a b c d"),
        (1, "30d", "a c d"),  # b is the best
        (2, "30d", "a c"),
        (3, "30d", "c"),
        (4, "30d", "c"),  # the fourth is young: NaN is never among the best
        (5, "30d", ""),
        (1, "14w", "a c"),
        (0, "0d", "a b c d young"),
        (0, "696h", "a b c d"),
        (0, "695h", "a b c d young"),
    ],
)
def test_models_and_predictions_of_old_attempts_that_are_not_among_the_best_go(store, keep, older_than, gone):
    expected = [f"{attempt}{extension}" for attempt in gone.split() for extension in (".npz", ".pth")]
    assert waste_of(store, keep=keep, older_than=older_than) == expected


def test_removing_takes_these_files_and_leaves_every_other(store):
    before, shelf = keys(store), read_shelf(store, "e")
    collect(store, keep=0, older_than="0d")
    gone = before - keys(store)
    assert len(gone) == 10 and all("/attempts/" in key and key.endswith((".pth", ".npz")) for key in gone)
    assert read_shelf(store, "e") == shelf and waste_of(store, keep=0, older_than="0d") == []


def test_whatever_was_champion_once_stays(store):
    shelf = read_shelf(store, "e")
    for row in shelf.rows[1:4]:
        fall_back(store, read_shelf(store, "e"), row)
    fall_back(store, read_shelf(store, "e"), shelf.baseline)
    assert waste_of(store, keep=0, older_than="0d") == ["d.npz", "d.pth", "young.npz", "young.pth"]
    collect(store, keep=0, older_than="0d")
    assert [row.attempt for row in shelf.rows if {row.key, row.beside(".npz")} <= keys(store)] == [
        "baseline",
        *"abc",
    ]


def test_the_baselines_and_the_best_of_every_lineage_stay(store):
    put_record(store, "baseline", 0.3, days=20)
    shelf = read_shelf(store, "e")
    rebase(store, shelf, shelf.rows[-1])
    assert waste_of(store, keep=1, older_than="0d") == [
        f"{attempt}{extension}" for attempt in ("a", "c", "d", "young") for extension in (".npz", ".pth")
    ]
    collect(store, keep=0, older_than="0d")
    assert sum("/baseline/" in key for key in keys(store)) == 2 * len(EXTENSIONS)


def test_one_that_became_champion_since_it_was_listed_stays(store):
    found = find_waste(store, make_policy(0, "0d", NOW))
    row = read_shelf(store, "e").rows[2]
    fall_back(store, read_shelf(store, "e"), row)
    told = list(remove_waste(store, found))
    assert {row.key, row.beside(".npz")} <= keys(store) and len(told) == len(found) - 2


def test_one_experiment_alone_is_cleaned_when_it_is_named(store):
    put_record(store, "x", 0.5, days=100, experiment="other")
    assert waste_of(store, keep=0, experiment="other") == ["x.npz", "x.pth"]
    assert waste_of(store, keep=0, experiment="none") == []


def test_files_of_sweeps_openings_and_unfinished_runs_stay(store):
    for key in ("e/sweeps/s/trials/t.pth", "e/openings/o.pth", "e/attempts/z/linear.lr-1.id-r0000001.pth"):
        store.put(key, b"")
    before = waste_of(store, keep=0)
    assert "z.pth" not in before and not any(one.startswith(("s", "o")) for one in before)


def test_checkpoints_of_trainings_that_stand_still_go(store, home):
    for training, ages in (("old", (90, 60)), ("going-on", (90, 1))):
        (home / "checkpoints" / training).mkdir(parents=True)
        for i, days in enumerate(ages):
            path = home / "checkpoints" / training / f"{i}.pt"
            path.write_bytes(b"state")
            when = (NOW - timedelta(days=days)).timestamp()
            os.utime(path, (when, when))
    store.put(".checkpoints/k/1.pt", b"state")
    stored = Path(store.url) / ".checkpoints/k/1.pt"
    os.utime(stored, (0, 0))
    assert waste_of(store, keep=9) == ["checkpoints in the store.pt", *["checkpoints on this machine.pt"] * 2]
    assert waste_of(store, keep=9, experiment="e") == []
    collect(store, keep=9)
    assert not stored.exists() and [path.name for path in (home / "checkpoints").iterdir()] == ["going-on"]


@pytest.mark.parametrize(("keep", "older_than"), [(1, "30"), (1, "d"), (1, "-3d"), (1, "30y"), (-1, "30d")])
def test_a_policy_that_cannot_be_read_is_refused(keep, older_than):
    with pytest.raises(InputError, match="is not allowed: use "):
        make_policy(keep, older_than)


@pytest.mark.parametrize("call", range(1, 9))
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_store_that_fails_at_any_removal_keeps_all_that_matters_and_the_next_call_ends_it(
    store, monkeypatch, call, when
):
    before, shelf = keys(store), read_shelf(store, "e")
    with monkeypatch.context() as patch:
        fail_at(patch, "delete", call=call, when=when)
        if call < 7:
            with pytest.raises(StoreError):
                collect(store)
    assert_cleaned_in_part(store, before, shelf)


KILLED = """
import os, signal, sys
from basekamp.storage.folder import FolderStore
act, call, when = sys.argv[1], int(sys.argv[2]), sys.argv[3]
original, calls = getattr(FolderStore, act), []
def killed(self, *arguments):
    calls.append(arguments)
    if len(calls) == call and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    original(self, *arguments)
    if len(calls) == call and when == "after":
        os.kill(os.getpid(), signal.SIGKILL)
setattr(FolderStore, act, killed)
from basekamp.cli import main
main(sys.argv[4:])
"""


@pytest.mark.parametrize(("call", "when"), [(1, "before"), (1, "after"), (4, "before"), (6, "after")])
def test_a_kill_leaves_all_that_matters_and_the_next_call_ends_it(store, call, when):
    before, shelf = keys(store), read_shelf(store, "e")
    command = ["gc", store.url, "--keep", "1", "--older-than", "30d", "--yes"]
    done = subprocess.run([sys.executable, "-c", KILLED, "delete", str(call), when, *command], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert_cleaned_in_part(store, before, shelf)


def assert_cleaned_in_part(store: Store, before: set[str], shelf) -> None:
    """Whatever is left is whole, the listing is as it was, and cleaning up again ends where it would have ended."""
    left = keys(store)
    gone = {row.beside(extension) for row in shelf.rows if row.attempt in "acd" for extension in (".pth", ".npz")}
    assert before - gone <= left <= before
    assert all(store.get(key) for key in left) and read_shelf(store, "e") == shelf
    collect(store)
    assert keys(store) == before - gone


def test_the_command_tells_first_and_removes_when_told_to(store):
    def run(*more: str) -> str:
        command = [BASEKAMP, "gc", store.url, "--keep", "0", "--older-than", "1d", *more]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    before = keys(store)
    assert "10 files, 58 bytes would be removed. Next: the same with --yes" in run() and keys(store) == before
    told = json.loads(run("--yes", "--json"))
    assert told["removed"] and {one["place"] for one in told["files"]} == before - keys(store)
    assert run("--yes").startswith("Nothing to remove")
