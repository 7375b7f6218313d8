"""The kept listing of a large folder: what is told from it is what a new listing tells, or it is not used."""

import json
import os
import time
from pathlib import Path

import pytest

from basekamp.records import listing
from basekamp.records.listing import read_listing, record_keys, sort_keys
from basekamp.records.shelf import read_shelves
from basekamp.storage import Store, open_store
from benchmarks.bench_leaderboard import made_key

NUMBER = 60


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where listings are kept; small ones too."""
    monkeypatch.setenv("BASEKAMP_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(listing, "FEWEST_KEPT", 10)
    return tmp_path / "home" / "listings"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two experiments, one with an opening and a stranger, whose folders have settled."""
    place = tmp_path / "store"
    keys = [made_key(number) for number in range(NUMBER)] + [f"other/{made_key(number)[6:]}" for number in range(20)]
    for key in [
        *keys,
        "bench/openings/opening.of-r1234567abcde.id-r1234567abcde.json",
        "bench/attempts/a/odd name.json",
    ]:
        (place / key).parent.mkdir(parents=True, exist_ok=True)
        (place / key).touch()
    settle(place)
    return place


def settle(place: Path) -> None:
    """Let every folder be a minute old."""
    for path in (place, *place.rglob("*")):
        if path.is_dir():
            os.utime(path, (time.time() - 60, time.time() - 60 - len(path.parts)))


def fresh(folder: Path) -> dict:
    return sort_keys(record_keys(open_store(str(folder))))


def as_lists(told: dict) -> dict:
    return {
        name: [list(found.ids), list(found.keys), list(found.attempts), others]
        for name, (found, others) in told.items()
    }


def of_store(folder: Path, monkeypatch: pytest.MonkeyPatch, *, is_read: bool) -> dict:
    """What the listing tells, and whether the names were read for it."""
    store, read = open_store(str(folder)), []
    names = type(store)._names
    monkeypatch.setattr(type(store), "_names", lambda self, *given: read.append(given) or names(self, *given))
    told = as_lists(read_listing(store))
    monkeypatch.setattr(type(store), "_names", names)
    assert bool(read) == is_read
    return told


def test_repeated_listing_reads_no_name_and_tells_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = of_store(folder, monkeypatch, is_read=True)
    assert of_store(folder, monkeypatch, is_read=False) == first == as_lists(fresh(folder))
    assert len(first["bench"][0]) == NUMBER and len(first["bench"][3]) == 2
    shelves = {shelf.experiment: shelf for shelf in read_shelves(open_store(str(folder)))}
    assert len(shelves["bench"].rows) == NUMBER and len(shelves["bench"].strangers) == 1
    assert len(shelves["bench"].openings) == 1 and shelves["other"].rows[3].params["n_layers"] >= 1


def added(folder: Path) -> None:
    (folder / made_key(207)).touch()


def removed(folder: Path) -> None:
    (folder / made_key(7)).unlink()


def renamed(folder: Path) -> None:
    (folder / made_key(7)).rename(folder / made_key(207))


def new_experiment(folder: Path) -> None:
    path = folder / made_key(3).replace("bench/", "third/")
    path.parent.mkdir(parents=True)
    path.touch()


def replaced(folder: Path) -> None:
    path = folder / made_key(7)
    state = path.parent.stat()
    path.parent.rename(folder / "aside")
    path.parent.mkdir()
    (folder / made_key(207)).touch()
    os.utime(path.parent, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.mark.parametrize("change", [added, removed, renamed, new_experiment, replaced])
def test_any_change_of_names_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch, change) -> None:
    before = of_store(folder, monkeypatch, is_read=True)
    change(folder)
    after = of_store(folder, monkeypatch, is_read=True)
    assert after == as_lists(fresh(folder)) != before


def test_folder_that_changed_a_moment_ago_is_not_kept(folder: Path, home: Path) -> None:
    added(folder)
    read_listing(open_store(str(folder)))
    assert not home.exists()
    settle(folder)
    read_listing(open_store(str(folder)))
    assert len(list(home.iterdir())) == 1


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def other_name(content: bytes) -> bytes:
    return content.replace(b"attempt-3", b"attempt-4")


def other_format(content: bytes) -> bytes:
    head, _, rest = content.partition(b"\n")
    return json.dumps({**json.loads(head), "format": 0}).encode() + b"\n" + rest


@pytest.mark.parametrize("harm", [half, other_name, other_format, lambda _: b"", lambda _: b"[]\n", lambda _: b"\xff{"])
def test_broken_or_foreign_copy_is_passed_over(folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch, harm) -> None:
    first = of_store(folder, monkeypatch, is_read=True)
    (path,) = home.iterdir()
    path.write_bytes(harm(path.read_bytes()))
    assert of_store(folder, monkeypatch, is_read=True) == first


def test_copy_that_cannot_be_written_is_done_without(folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.parent.write_text("a file is in the way")
    told = of_store(folder, monkeypatch, is_read=True)
    assert told == as_lists(fresh(folder))


def test_listing_of_one_experiment_is_kept_apart(folder: Path) -> None:
    for _ in range(2):
        store: Store = open_store(str(folder))
        assert list(read_listing(store, "other")) == ["other"]
        assert sorted(read_listing(store)) == ["bench", "other"]


def test_nothing_is_made_where_nothing_is_kept(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BASEKAMP_HOME")
    monkeypatch.setattr(listing, "FEWEST_KEPT", 10_000)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    read_listing(open_store(str(folder)))
    assert not list((tmp_path / "here").iterdir())
