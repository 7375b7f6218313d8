import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from basekamp.data import json_lines
from basekamp.data.prepare import prepare_data
from basekamp.data.sources import read_local, read_source
from basekamp.errors import InputError
from basekamp.experiment import DataSettings, Reading
from tests.malformed_files import Broken
from tests.test_readers import write

WHOLE = st.integers(-(2**63), 2**63 - 1)
SMALL = st.integers(-(2**53), 2**53)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
KEYS = st.fixed_dictionaries(
    {},
    optional={
        "whole": st.none() | WHOLE,
        "number": st.none() | SMALL | st.floats(allow_nan=False, allow_infinity=False),
        "truth": st.none() | st.booleans(),
        "text": st.none() | TEXT,
        "rare": TEXT,
    },
)


def read(folder: Path, *contents: bytes) -> pl.DataFrame:
    for index, content in enumerate(contents):
        write(folder, Broken(f"{index}.jsonl", content, ""))
    found = read_source(str(folder))
    assert isinstance(found, pl.DataFrame)
    return found


def as_lines(rows: list[dict[str, Any]], *, is_ascii: bool = True) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=is_ascii) + "\n" for row in rows).encode()


@given(st.lists(KEYS, min_size=1), st.booleans(), st.integers(1, 200), st.integers(1, 20))
def test_what_is_written_is_what_is_read(
    rows: list[dict[str, Any]], is_ascii: bool, block_bytes: int, values_at_once: int
) -> None:
    keys = list(dict.fromkeys(key for row in rows for key in row))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "BLOCK_BYTES", block_bytes)
        patch.setattr(json_lines, "BATCH_VALUES", values_at_once)
        if not keys:
            with pytest.raises(InputError, match="holds empty objects only"):
                read(Path(folder), as_lines(rows))
            return
        found = read(Path(folder), as_lines(rows, is_ascii=is_ascii))
    assert found.columns == keys
    assert found.rows() == [tuple(row.get(key) for key in keys) for row in rows]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"a": 1}\n{"a": "x"}\n', "the key 'a' has a number in line 1 of 0.jsonl and text in line 2 of 0.jsonl"),
        (b'{"a": 0.5}\n\n{"a": true}\n', "a number in line 1 of 0.jsonl and true or false in line 3 of 0.jsonl"),
        (b'{"a": 1}\n{"a": 1, "a": 2}\n', "line 2 of 0.jsonl gives a key twice"),
        (b'{"a": NaN}\n', "line 1 of 0.jsonl has NaN, which is not JSON"),
        (b'{"a": 1e999}\n', "line 1 of 0.jsonl has 1e999, which is beyond"),
        (b'{"a": 1e-999}\n', "line 1 of 0.jsonl has 1e-999, which is nearer to zero"),
        (b'{"a": 99999999999999999999}\n', "whole number beyond 64 bits in 'a'"),
        (b'{"a": ' + 5000 * b"9" + b"}\n", "line 1 of 0.jsonl has a number of more digits"),
        (b'{"a": 9007199254740993}\n{"a": 0.5}\n', "9007199254740993 in line 1 .* as in line 2 of 0.jsonl: write"),
        (b'{"a": 0.5}\n{"a": -9007199254740993}\n', "-9007199254740993 in line 2 .* as in line 1 of 0.jsonl: write"),
        (b'{"a": "\\ud800"}\n', "line 1 of 0.jsonl has half of a character"),
        (b'{"\\udc00": 1}\n', "line 1 of 0.jsonl has half of a character"),
        (b'{"a": "\xff"}\n', "line 1 of 0.jsonl is not UTF-8"),
        (b'{"a": 1}\n{"a":\n', "line 2 of 0.jsonl is broken"),
        (b'{"a": 1}\n[1]\n', "line 2 of 0.jsonl is not an object"),
        (b'{"a": 1}{"a": 2}\n', "line 1 of 0.jsonl is broken"),
        (b'{"a": ' + 100_000 * b"[" + b"\n", "line 1 of 0.jsonl is nested too deeply"),
        (b'{"*": 1}\n', "column '\\*', which stands for several columns"),
        (b"{}\n{}\n", "0.jsonl holds empty objects only"),
        (b"\n\n", "0.jsonl holds no rows"),
        ('{"a": 1}'.encode("utf-16"), "line 1 of 0.jsonl is not UTF-8"),
    ],
)
def test_broken_json_lines_are_refused(tmp_path: Path, content: bytes, told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value)


def test_files_are_read_one_after_the_other(tmp_path: Path) -> None:
    found = read(tmp_path, b'\xef\xbb\xbf{"a": 1}\n', b'{"b": "x"}\n{}', b'{"a": 0.5, "b": null}')
    assert found.rows() == [(1.0, None), (None, "x"), (None, None), (0.5, None)]
    with pytest.raises(InputError, match=r"a number in line 1 of 0\.jsonl and text in line 1 of 3\.jsonl"):
        read(tmp_path, b'{"a": 1}', b"{}", b"{}", b'{"a": "x"}')


def test_dates_are_read_where_they_are_named(tmp_path: Path) -> None:
    source = write(
        tmp_path, Broken("t.jsonl", b'{"at": "2026-01-02"}\n{"at": null}\n{"at": "2026-01-02T03:04:05Z"}\n', "")
    )
    found = read_source(source, Reading(types={"at": "date"}))
    assert isinstance(found, pl.DataFrame)
    day = datetime(2026, 1, 2, tzinfo=UTC)
    assert found["at"].to_list() == [day, None, day.replace(hour=3, minute=4, second=5)]


@pytest.mark.parametrize(
    ("content", "types", "told"),
    [
        (
            b'{"at": "2026-01-02"}\n{"at": "soon"}\n',
            {"at": "date"},
            "line 2 of t.jsonl, key 'at': 'soon' is no ISO date",
        ),
        (b'{"at": 20260102}\n', {"at": "date"}, "'20260102' is no ISO date"),
        (b'{"a": 1}\n', {"at": "date"}, "names 'at', and t.jsonl has no such key"),
        (b'{"a": 1}\n', {"a": "text"}, "makes 'a' text, and JSON lines tell all types but dates"),
    ],
)
def test_types_that_do_not_fit_are_refused(tmp_path: Path, content: bytes, types: dict[str, str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_source(write(tmp_path, Broken("t.jsonl", content, "")), Reading(types=types))


@pytest.mark.parametrize(("name", "value"), [("types", {"a": "text"}), ("delimiter", ";")])
def test_settings_for_text_are_refused_for_other_files(tmp_path: Path, name: str, value: Any) -> None:
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(
        InputError, match=f"data.reading.{name} is about text, and .*t.parquet is .parquet: take it out"
    ):
        read_source(str(tmp_path / "t.parquet"), Reading(**{name: value}))


def test_a_line_without_end_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "MOST_ROW_BYTES", 1 << 20)
    with pytest.raises(InputError, match="line 2 of 0.jsonl is over 1 MiB: write one object a line"):
        read(tmp_path, b'{"a": 1}\n[' + (1 << 20) * b'{"a": 1},')


def test_broken_lines_are_put_aside_where_asked(tmp_path: Path) -> None:
    path = Path(write(tmp_path, Broken("t.jsonl", b'{"a": 1}\n{"a":\n{"a": 1e999}\n{"a": 2}\n', "")))
    aside = tmp_path / "quarantine.csv"
    table = read_local(str(path), [path], Reading(on_bad_row="quarantine"), tmp_path, aside)
    assert (table.collect()["a"].to_list(), table.quarantined) == ([1, 2], 2)
    assert pl.read_csv(aside).select("line", "row").rows() == [(2, '{"a":'), (3, '{"a": 1e999}')]


def test_lists_and_objects_tell_rows_apart_and_are_not_learned_from(tmp_path: Path) -> None:
    rows = [{"a": i, "tags": [i], "deep": {"b": i, "a": 1}, "y": i % 2} for i in range(200)]
    source = write(tmp_path, Broken("t.jsonl", as_lines([*rows, *rows[:10]]), ""))
    with pytest.raises(InputError, match="the column 'tags' holds lists, objects or bytes"):
        prepare_data(DataSettings(source=source, target="y"), tmp_path / "data")
    settings = DataSettings(source=source, target="y", drop=("tags", "deep"))
    assert prepare_data(settings, tmp_path / "data").schema.cleaning.duplicates_dropped == 10
