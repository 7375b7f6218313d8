"""A listing read as columns: against the grammar, name by name, and whatever its names hold."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from basekamp.errors import InputError
from basekamp.naming import Name, Value, format_name, parse_name
from basekamp.records.leaderboard import best_first, select_rows
from basekamp.records.row import Row
from basekamp.records.shelf import find_row, read_shelf, read_shelves
from basekamp.records.table import Rows, Table, split_keys
from basekamp.storage import open_store

KEYS = ["n", "loss", "accuracy", "spread", "difference", "low", "high", "verdict", "lr", "cut", "id"]
VALUES = ["3", "03", "0.5", "-1", "1e-05", "nan", "inf", "true", "1_0", "%31", "text", "", "2more", "a.b", "raaaaaaaa"]
HOSTILE = ["../../x", "\x00", "\r\n", "\u202egnp", "a/b", "nan", "1e5", "%2e%2e%2f", ".id-raaaaaaaa", "-", "x" * 10_000]
values = st.one_of(
    st.floats().map(repr),
    st.integers().map(str),
    st.from_regex(r"-?[0-9]{1,20}(\.[0-9]{1,20})?(e[+-]?[0-9]{1,3})?", fullmatch=True),
    st.text(st.characters(exclude_characters="/", exclude_categories=["Cs", "Cc"]), max_size=5),
)
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=100)


def _name(number: int, accuracy: float = 0.5, act: str = "relu") -> str:
    fields = {"act": act, "n": 3, "loss": 0.25, "accuracy": accuracy, "spread": 0.01}
    return format_name(Name("mlp", fields, "json", f"r{number:012d}"), first=fields.keys() - {"act"})


def _store(folder: Path, keys: list[str]) -> str:
    for key in keys:
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return str(folder)


def plain_row(key: str) -> Row | None:
    """One record read by the grammar alone; None for a name that is none."""
    folder, _, file_name = key.rpartition("/")
    try:
        name = parse_name(file_name)
    except InputError:
        return None
    keys = [*name.fields]
    if name.id is None or not {"n", "loss", "spread"} <= set(keys):
        return None
    at_n, at_loss, at_spread = (keys.index(one) for one in ("n", "loss", "spread"))
    told = {one: name.fields[one] for one in keys[at_spread + 1 :]}
    numbers = [name.fields[one] for one in keys[at_n : at_spread + 1]]
    numbers += [told[one] for one in ("difference", "low", "high") if one in told]
    if not at_n < at_loss < at_spread or ("low" in told) != ("high" in told) or type(numbers[0]) is not int:
        return None
    if any(isinstance(one, str | bool) for one in numbers) or not isinstance(told.get("verdict", ""), str):
        return None
    attempt = folder.rpartition("/")[2]
    return Row(
        name=f"{file_name.removesuffix('.json')}.pth",
        key=f"{key.removesuffix('.json')}.pth",
        experiment=key.partition("/")[0],
        role="baseline" if attempt == "baseline" else "attempt",
        attempt=attempt,
        id=name.id,
        params={"model": name.model, **{one: name.fields[one] for one in keys[:at_n]}},
        metric=keys[at_spread - 1],
        metrics={one: float(name.fields[one]) for one in keys[at_n + 1 : at_spread]},
        n=name.fields["n"],
        spread=float(name.fields["spread"]),
        difference=float(told["difference"]) if "difference" in told else None,
        interval=(float(told["low"]), float(told["high"])) if "low" in told else None,
        verdict=told.get("verdict"),
        cut=name.cut,
    )


def exact(value: Value | None) -> str:
    """A value with its type and every bit, NaN alike."""
    return f"{type(value).__name__} {value!r}"


def read(keys: list[str]) -> Rows:
    frame = split_keys(sorted(keys))
    return Rows(Table(frame), np.flatnonzero(frame["id"].is_not_null().to_numpy()))


fields = st.lists(st.tuples(st.sampled_from(KEYS), st.one_of(st.sampled_from(VALUES), values)), max_size=8)
results = st.sampled_from(
    [[], [("n", "3"), ("loss", "0.5"), ("spread", "0.1")], [("n", "1"), ("loss", "nan"), ("spread", "nan")]]
)
names = st.builds(
    lambda model, before, told, after, end: ".".join([model, *map("-".join, [*before, *told, *after]), end]),
    st.sampled_from(["mlp", "a.b", "", ".x", "é", "10", "%31"]),
    fields,
    results,
    fields,
    st.sampled_from(
        ["id-r0w3k9xq7ab1c.json", "json", "cut-2more.id-r0w3k9xq7ab1c.json", "cut-x.id-r0w3k9xq7ab1c.json", "id-R.json"]
    ),
)


@unhurried
@given(st.lists(names, max_size=6, unique=True))
def test_columns_give_the_rows_that_the_grammar_gives(names):
    keys = sorted(f"e/attempts/a/{name}" for name in names)
    expected = [row for row in map(plain_row, keys) if row]
    rows = read(keys)
    assert sorted(map(repr, rows)) == sorted(map(repr, expected))
    assert [repr(rows[i]) for i in range(len(rows))] == [repr(row) for row in rows]


@unhurried
@given(
    st.lists(names, min_size=1, max_size=6, unique=True),
    st.sampled_from(["lr", "-lr", "accuracy", "-loss", "difference", "verdict", "model", "cut", "id", "name"]),
    st.sampled_from(
        ["lr>0.5", "lr!=3", "lr=true", "model=10", "verdict=''", "not lr in (1, text)", "n=3 or loss<1", "lr>'a'"]
    ),
)
def test_columns_are_chosen_and_sorted_as_the_rows_are(names, key, condition):
    rows = read([f"e/attempts/a/{name}" for name in names])
    outcomes = [
        outcome(lambda rows=rows: [*map(repr, select_rows(best_first(rows), [condition], key))])
        for rows in (rows, [*rows])
    ]
    assert outcomes[0] == outcomes[1]


def outcome(act):
    try:
        return act()
    except InputError as error:
        return str(error)


def test_rows_are_read_when_looked_at_and_are_a_sequence(tmp_path):
    keys = [f"digits/attempts/a{i % 7}/{_name(i)}" for i in range(2000)]
    rows = read_shelf(open_store(_store(tmp_path, keys)), "digits").rows
    assert isinstance(rows, Rows) and rows[1999] == rows[-1]
    assert [row.id for row in rows] == sorted(row.id for row in rows) and len(rows) == 2000
    assert rows[3] in rows and rows[3:5] == [rows[3], rows[4]]


def test_finding_one_record_reads_no_other(tmp_path, monkeypatch):
    store = open_store(_store(tmp_path, [f"digits/attempts/a/{_name(i)}" for i in range(50)]))
    read = []
    whole = Table.read
    monkeypatch.setattr(Table, "read", lambda table, places: read.extend(places) or whole(table, places))
    assert find_row(store, f"r{7:012d}").id == f"r{7:012d}"
    assert len(set(read)) <= 1


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
