"""Listings kept from the last time: used while the store is the same, and never trusted when damaged."""

import os
import time
from pathlib import Path

import pytest

from basekamp.naming import Name, format_name
from basekamp.records import listing
from basekamp.records.shelf import read_shelf, read_shelves
from basekamp.storage import open_store
from basekamp.work import work_directory

SIZE = 30


def key(number: int) -> str:
    fields = {"n": 3, "loss": 0.25, "accuracy": number / 100, "spread": 0.01}
    return f"digits/attempts/a{number % 3}/{format_name(Name('mlp', fields, 'json', f'r{number:012d}'))}"


@pytest.fixture
def store(tmp_path, home, monkeypatch):
    """A store whose folders were last changed a minute ago, as far as its listing can tell."""
    for number in range(SIZE):
        (tmp_path / "store" / key(number)).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "store" / key(number)).touch()
    monkeypatch.setattr(listing, "FEWEST_KEPT", SIZE)
    age(monkeypatch)
    return open_store(str(tmp_path / "store"))


def age(monkeypatch) -> None:
    now = time.time_ns
    monkeypatch.setattr("basekamp.records.listing.time.time_ns", lambda: now() + 60_000_000_000)


@pytest.fixture
def splits(monkeypatch):
    """How many keys each listing had to split."""
    counted: list[int] = []
    split = listing.split_keys
    monkeypatch.setattr(listing, "split_keys", lambda keys: counted.append(len(keys)) or split(keys))
    return counted


def files() -> list[Path]:
    folder = work_directory() / "listings"
    return sorted(folder.iterdir()) if folder.is_dir() else []


def test_a_repeat_gives_the_same_rows_and_splits_no_name(store, splits):
    first, again = (read_shelf(store, "digits").rows for _ in range(2))
    assert [*map(repr, again)] == [*map(repr, first)] and len(again) == SIZE
    assert splits == [SIZE] and len(files()) == 1


@pytest.mark.parametrize("change", ["add", "remove", "rename", "folder"])
def test_every_change_of_names_is_seen(store, splits, change):
    root = Path(store.url)
    read_shelf(store, "digits")
    if change == "add":
        (root / key(SIZE)).touch()
    elif change == "remove":
        (root / key(3)).unlink()
    elif change == "rename":
        (root / key(3)).rename(root / key(3 + 3 * SIZE))
    else:
        (root / "digits/attempts/a0").rename(root / "digits/attempts/b")
    rows = read_shelf(store, "digits").rows
    assert len(splits) == 2 and len(rows) == SIZE + {"add": 1, "remove": -1}.get(change, 0)
    assert {row.key.removesuffix(".pth") for row in rows} == {
        path.relative_to(root).as_posix().removesuffix(".json") for path in root.rglob("*.json")
    }


def test_a_folder_that_has_just_changed_is_not_trusted(store, splits, monkeypatch):
    monkeypatch.setattr(listing, "SETTLED_NS", 120_000_000_000)
    read_shelf(store, "digits")
    assert files() == []


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "foreign", "folder"])
def test_a_damaged_file_is_passed_over_and_replaced(store, splits, damage):
    read_shelf(store, "digits")
    (path,) = files()
    content = path.read_bytes()
    damaged = {"cut": content[:-9], "empty": b"", "foreign": b"PK" * 99, "flipped": content[:-50] + b"\xff" * 50}
    path.unlink()
    path.mkdir() if damage == "folder" else path.write_bytes(damaged[damage])
    assert len(read_shelf(store, "digits").rows) == SIZE and splits == [SIZE, SIZE]
    assert damage == "folder" or path.read_bytes() == content


def test_a_work_directory_that_cannot_be_written_changes_nothing(store, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("BASEKAMP_HOME", str(tmp_path / "file" / "home"))
    assert len(read_shelf(store, "digits").rows) == SIZE


def test_small_stores_leave_nothing_behind(store, monkeypatch):
    monkeypatch.setattr(listing, "FEWEST_KEPT", SIZE + 1)
    read_shelf(store, "digits")
    assert files() == []


def test_the_listing_of_one_experiment_is_kept_apart(store):
    assert len(read_shelf(store, "digits").rows) == SIZE and len(read_shelves(store)) == 1
    assert [len(one.rows) for one in read_shelves(store)] == [SIZE] and len(files()) == 2


def test_a_folder_whose_times_were_set_back_is_listed_again(store, splits):
    folder = Path(store.url) / "digits/attempts/a0"
    times = folder.stat()
    read_shelf(store, "digits")
    (folder / Path(key(SIZE)).name).touch()
    os.utime(folder, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert len(read_shelf(store, "digits").rows) == SIZE + 1


def test_nothing_is_made_where_nothing_is_kept(store, tmp_path, monkeypatch):
    monkeypatch.delenv("BASEKAMP_HOME")
    monkeypatch.setattr(listing, "FEWEST_KEPT", SIZE + 1)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    read_shelf(store, "digits")
    assert not list((tmp_path / "here").iterdir())
