import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from basekamp.data.split import (
    assign_sides,
    check_sides,
    combine_columns,
    first_of_each,
    hash_column,
    hash_images,
    splitmix64,
)
from basekamp.errors import InputError

CELLS = st.tuples(
    st.one_of(st.none(), st.floats()),
    st.one_of(st.none(), st.text(max_size=5)),
    st.one_of(st.none(), st.booleans()),
)
GOLDEN_ROWS = [18010875270728100052, 18283831239536960791, 9633429106481141874]
GOLDEN_IMAGES = [9106288050674849522, 13760778298964664723]


def hashes_of(rows: list[tuple[object, ...]]) -> list[int]:
    dtypes = {"number": pl.Float64, "text": pl.String, "flag": pl.Boolean}
    frame = pl.DataFrame(rows, schema=dtypes, orient="row")
    return combine_columns({column.name: hash_column(column) for column in frame.iter_columns()}).tolist()


def test_splitmix64_gives_the_published_values() -> None:
    """The first three outputs for the seed 1234567 of the reference implementation."""
    step = 0x9E3779B97F4A7C15
    states = np.array([(1234567 + i * step) % 2**64 for i in range(3)], np.uint64)
    assert splitmix64(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_hashes_never_change() -> None:
    """A row's side is a promise across versions: these values may not be edited."""
    found = hashes_of([(1.5, "ä", True), (None, None, None), (-0.0, "", False)])
    assert found == GOLDEN_ROWS
    assert hash_images(np.arange(18, dtype=np.uint8).reshape(2, 1, 3, 3)).tolist() == GOLDEN_IMAGES


@given(st.lists(CELLS, min_size=1, max_size=20), st.randoms())
def test_hash_depends_on_the_row_alone(rows: list[tuple[object, ...]], random: object) -> None:
    by_row = dict(zip(map(repr, rows), hashes_of(rows), strict=True))
    shuffled = sorted(rows, key=lambda row: repr(row)[::-1]) + rows[:3]
    assert hashes_of(shuffled) == [by_row[repr(row)] for row in shuffled]


@given(st.text(max_size=4), st.text(max_size=4))
def test_hash_depends_on_which_column_holds_a_value(one: str, two: str) -> None:
    def hashed(a: str, b: str) -> int:
        return int(combine_columns({"a": hash_column(pl.Series("a", [a])), "b": hash_column(pl.Series("b", [b]))})[0])

    assert (hashed(one, two) == hashed(two, one)) == (one == two)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (pl.Series("a", [0.0]), pl.Series("a", [-0.0])),
        (pl.Series("a", [math.nan]), pl.Series("a", [None], dtype=pl.Float64)),
        (pl.Series("a", [None], dtype=pl.String), pl.Series("a", [None], dtype=pl.Int8)),
        (pl.Series("a", [3], dtype=pl.Int8), pl.Series("a", [3.0], dtype=pl.Float32)),
        (pl.Series("a", ["x"], dtype=pl.Categorical), pl.Series("a", ["x"])),
        (
            pl.Series("a", ["2020-01-01"]).str.to_date(),
            pl.Series("a", ["2020-01-01"]).str.to_datetime(time_unit="ms"),
        ),
    ],
)
def test_equal_values_hash_alike_whatever_their_type(one: pl.Series, two: pl.Series) -> None:
    assert hash_column(one).tolist() == hash_column(two).tolist()


def test_whole_numbers_beyond_float_precision_stay_apart() -> None:
    assert len(set(hash_column(pl.Series("a", [2**60, 2**60 + 1, 2**60 + 2])).tolist())) == 3


def test_lists_and_durations_are_hashed() -> None:
    column = pl.Series("a", [[1], [1, 2], None])
    assert len(set(hash_column(column).tolist())) == 3
    assert len(set(hash_column(pl.Series("a", [1, 2]).cast(pl.Duration("us"))).tolist())) == 2


@given(st.integers(0, 1000), st.floats(0.05, 0.4), st.floats(0.05, 0.4))
def test_sides_have_the_asked_shares(seed: int, validation: float, test: float) -> None:
    hashes = splitmix64(np.arange(20_000, dtype=np.uint64) + np.uint64(seed * 20_000))
    shares = np.bincount(assign_sides(hashes, validation=validation, test=test), minlength=3) / 20_000
    assert np.allclose(shares, [1 - validation - test, validation, test], atol=0.02)


def test_a_smaller_validation_split_leaves_the_test_rows_where_they_are() -> None:
    hashes = splitmix64(np.arange(1000, dtype=np.uint64))
    one, two = (assign_sides(hashes, validation=share, test=0.2) for share in (0.1, 0.3))
    assert ((one == 2) == (two == 2)).all()


def test_images_hash_by_content_and_shape() -> None:
    images = np.zeros((3, 1, 3, 5), np.uint8)
    images[1, 0, 2, 4] = 1
    hashes = hash_images(images)
    assert hashes[0] == hashes[2] != hashes[1]
    assert hash_images(images.reshape(3, 1, 5, 3))[0] != hashes[0]


def test_first_of_each_keeps_the_earliest() -> None:
    assert first_of_each(np.array([7, 5, 7, 5, 9], np.uint64)).tolist() == [True, True, False, False, True]


@pytest.mark.parametrize(
    ("sides", "labels", "message"),
    [
        ([0, 0, 0, 2, 2], [0, 1, 0, 1, 0], "the validation split gets 0 of 5 rows, at least 2"),
        ([0, 0, 1, 1, 2], [0, 1, 0, 1, 0], "the test split gets 1 of 5 rows"),
        ([0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 0, 1], "class 'no' is not in the training split .1 of 2"),
        ([0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 0, 1], "validation split holds a single class"),
    ],
)
def test_sides_that_cannot_be_judged_on_are_refused(sides: list[int], labels: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_sides(np.array(sides, np.int8), np.array(labels), ("yes", "no"))
