"""Rows that are read when looked at, and the quick look at a name against the whole grammar."""

import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from basekamp.errors import InputError
from basekamp.naming import Name, format_name
from basekamp.records.leaderboard import best_first
from basekamp.records.row import Rows, _row, find_id
from basekamp.records.shelf import find_row, read_shelf, read_shelves
from basekamp.storage import open_store

KEYS = ["n", "loss", "accuracy", "spread", "difference", "low", "high", "verdict", "lr", "cut", "id"]
VALUES = ["3", "03", "0.5", "-1", "1e-05", "nan", "inf", "true", "1_0", "%31", "text", "", "2more", "a.b", "raaaaaaaa"]
HOSTILE = ["../../x", "\x00", "\r\n", "\u202egnp", "a/b", "nan", "1e5", "%2e%2e%2f", ".id-raaaaaaaa", "-", "x" * 10_000]
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=500)


def _name(number: int, accuracy: float = 0.5, act: str = "relu") -> str:
    fields = {"act": act, "n": 3, "loss": 0.25, "accuracy": accuracy, "spread": 0.01}
    return format_name(Name("mlp", fields, "json", f"r{number:012d}"), first=fields.keys() - {"act"})


def _store(folder: Path, keys: list[str]) -> str:
    for key in keys:
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return str(folder)


def _outcome(read):
    try:
        return read()
    except (InputError, KeyError, ValueError):
        return "stranger"


@unhurried
@given(
    st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES)), max_size=10),
    st.sampled_from(["mlp", "a.b", "", ".x", "é"]),
    st.booleans(),
)
def test_the_quick_look_agrees_with_the_whole_grammar(fields, model, ordered):
    results = [("n", "3"), ("loss", "0.5"), ("spread", "0.1")] if ordered else []
    name = ".".join([model, *(f"{key}-{value}" for key, value in [*fields, *results]), "id-r0w3k9xq7ab1c", "json"])
    assert _outcome(lambda: find_id(name)) == _outcome(lambda: _row(f"x/{name}", "a").id)


def test_rows_are_read_when_looked_at_and_are_a_sequence(tmp_path):
    keys = [f"digits/attempts/a{i % 7}/{_name(i)}" for i in range(2000)]
    rows = read_shelf(open_store(_store(tmp_path, keys)), "digits").rows
    assert isinstance(rows, Rows) and not any(rows._read)
    assert rows[1999] is rows[-1] and sum(map(bool, rows._read)) == 1
    assert [row.id for row in rows] == sorted(row.id for row in rows) and len(rows) == 2000
    assert rows[3] in rows and rows[3:5] == (rows[3], rows[4])


def test_finding_one_record_reads_no_other(tmp_path, monkeypatch):
    store = open_store(_store(tmp_path, [f"digits/attempts/a/{_name(i)}" for i in range(50)]))
    read = []
    monkeypatch.setattr("basekamp.records.row._row", lambda *told, **more: read.append(told) or _row(*told, **more))
    assert find_row(store, f"r{7:012d}").id == f"r{7:012d}"
    assert len(read) <= 1


@pytest.mark.parametrize("change", ["add", "remove", "replace"])
def test_a_listing_tells_what_lies_there_now(tmp_path, change):
    keys = [f"digits/attempts/a/{_name(i)}" for i in range(3)]
    store = open_store(_store(tmp_path, keys))
    assert len(read_shelf(store, "digits").rows) == 3
    if change != "add":
        (tmp_path / keys[0]).unlink()
    if change != "remove":
        _store(tmp_path, [f"digits/attempts/a/{_name(9)}"])
    expected = {"add": [0, 1, 2, 9], "remove": [1, 2], "replace": [1, 2, 9]}[change]
    assert [row.id for row in read_shelf(store, "digits").rows] == [f"r{i:012d}" for i in expected]


def test_nan_never_sorts_as_best(tmp_path):
    values = [math.nan, 0.1, math.nan, 0.9, -math.inf]
    keys = [f"digits/attempts/a/{_name(i, value)}" for i, value in enumerate(values)]
    rows = best_first(read_shelf(open_store(_store(tmp_path, keys)), "digits").rows)
    assert [row.value for row in rows[:2]] == [0.9, 0.1] and all(math.isnan(row.value) for row in rows[-2:])


def test_a_thousand_hostile_values_stay_below_their_prefix_and_come_back(tmp_path):
    told = {f"r{i:012d}": f"{HOSTILE[i % len(HOSTILE)]}{i}" for i in range(1000)}
    store = open_store(str(tmp_path))
    for i, text in enumerate(told.values()):
        store.put(f"digits/attempts/a/{_name(i, act=text)}", b"{}")
    (shelf,) = read_shelves(store)
    assert not shelf.strangers and [row.id for row in shelf.rows] == list(told)
    assert all(row.cut or row.params["act"] == told[row.id] for row in shelf.rows)
    assert sum(row.cut for row in shelf.rows) == sum(len(text) > 200 for text in told.values())


@pytest.mark.slow
def test_a_hundred_thousand_records_are_listed_with_none_lost(tmp_path):
    keys = [f"digits/attempts/a{i % 200}/{_name(i, act=f'{HOSTILE[i % 10]}{i}')}" for i in range(100_000)]
    shelf = read_shelf(open_store(_store(tmp_path, keys)), "digits")
    assert not shelf.strangers and len(shelf.rows) == 100_000
    assert all(row.params["act"] == f"{HOSTILE[i % 10]}{i}" for i, row in enumerate(shelf.rows))
