import base64
import re
import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from jinja2 import UndefinedError

from basekamp.data.prepare import prepare_data
from basekamp.experiment import DataSettings
from basekamp.report.page import render


def profile_of(tmp_path: Path, frame: pl.DataFrame, target: str) -> str:
    frame.write_parquet(tmp_path / "t.parquet")
    dataset = prepare_data(DataSettings(source=str(tmp_path / "t.parquet"), target=target), tmp_path / "data")
    return (dataset.directory / "profile.html").read_text()


def frame() -> pl.DataFrame:
    rows = range(300)
    return pl.DataFrame(
        {
            "<b>bold</b>": [float(i) for i in rows],
            "text": [["<script>alert(1)</script>", "plain", None][i % 3] for i in rows],
            "same": [1] * 300,
            "label": [["a & b", "c"][i % 2] for i in rows],
            "amount": [i**2 / 7 for i in rows],
        }
    )


def test_profile_shows_columns_splits_and_cleaning(tmp_path: Path) -> None:
    page = profile_of(tmp_path, frame(), "label")
    for expected in ("Data profile", "of 300 read", "a &amp; b", "one value, left out", "validation", "amount"):
        assert expected in page
    assert page.count("<svg") == 2


def test_profile_escapes_what_the_data_says(tmp_path: Path) -> None:
    page = profile_of(tmp_path, frame(), "label")
    assert "<script" not in page
    assert "<b>bold" not in page
    assert "&lt;b&gt;bold" in page


def test_profile_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    page = profile_of(tmp_path, frame(), "label")
    assert not re.findall(r"(?:src|href)\s*=\s*[\"'](?!data:)|@import|url\(", page)
    assert "prefers-color-scheme: dark" in page


def test_profile_of_a_regression_shows_the_target_of_each_split(tmp_path: Path) -> None:
    page = profile_of(tmp_path, frame(), "amount")
    assert page.count("<figure>") == 3
    assert "Error to beat" in page


def test_profile_of_wild_columns_is_written(tmp_path: Path) -> None:
    wild = frame().with_columns(
        infinite=pl.Series([float("inf")] * 150 + [float("-inf")] * 150),
        huge=pl.Series([1e308, -1e308] * 150),
        span=pl.Series(range(300)).cast(pl.Duration("us")),
        clock=pl.Series([i * 10**9 for i in range(300)]).cast(pl.Time),
        day=pl.Series(range(300)).cast(pl.Date),
        nothing=pl.Series([None] * 300),
        kind=pl.Series(["a", "b"] * 150, dtype=pl.Categorical),
        exact=pl.Series([f"{i}.5" for i in range(300)]).cast(pl.Decimal(10, 2)),
    )
    page = profile_of(tmp_path, wild, "label")
    assert "-inf" in page
    assert "1970-10-27" in page


def test_profile_of_images_holds_a_picture_of_them(tmp_path: Path) -> None:
    dataset = prepare_data(DataSettings(source="sklearn:digits", target="digit"), tmp_path / "digits")
    page = (dataset.directory / "profile.html").read_text()
    found = re.search(r"data:image/png;base64,([^\"]+)", page)
    assert found
    png = base64.b64decode(found.group(1))
    width, height = np.frombuffer(png[16:24], ">u4")
    assert (width, height) == (16 * 9, 10 * 9)
    start = png.index(b"IDAT") + 4
    assert len(zlib.decompress(png[start : png.index(b"IEND") - 8])) == height * (1 + 3 * width)


def test_page_refuses_a_name_it_was_not_given() -> None:
    with pytest.raises(UndefinedError, match="schema"):
        render("profile.html")
