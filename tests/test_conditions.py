"""What a condition says of a row, and what is no condition."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basekamp.errors import InputError
from basekamp.records.columns import Column
from basekamp.records.conditions import parse_condition

ROW = {"n_layers": 3, "lr": 1e-3, "act": "gelu", "fast": True, "accuracy": math.nan, "note": "it's 10", "code": "10"}


def holds(text, row=ROW):
    return parse_condition(text)[0](lambda key: Column.of([row.get(key)])).item()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n_layers>=3 and act=gelu", True),
        ("n_layers>3 or act==gelu", True),
        ("n_layers > 3 or act == relu and lr=1e-3", False),
        ("(n_layers<=3 or act=relu) and lr=0.001", True),
        ("not n_layers=3", False),
        ("not (n_layers=3 and act=relu)", True),
        ("not not fast=TRUE", True),
        ("fast!=false", True),
        ("fast=1", False),
        ("n_layers=true", False),
        ("act in (relu, gelu)", True),
        ("n_layers in (1,2)", False),
        ("not n_layers in (1, 2)", True),
        ('note="it\'s 10"', True),
        ("code=10", True),
        ("code='10' and code!=\"\"", True),
        ("code>9", False),
        ("act>'fff' and act<'h'", True),
        ("n_layers='3'", False),
        ("act=gelu and dropout!=0.5", True),
        ("dropout<1", False),
        ("dropout=''", True),
        ("accuracy>0 or accuracy<=0 or accuracy=nan", False),
        ("accuracy!=nan", True),
        ("lr=-1", False),
        ("in=3", False),
    ],
)
def test_condition_holds_of_a_row(text, expected):
    assert holds(text) is expected


def test_keys_are_told_in_the_order_of_the_text():
    assert parse_condition("b>1 and (a=2 or not c in (x))")[1] == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at its end it needs a key"),
        ("lr", "at its end it needs =, !=, <"),
        ("lr=", "at its end it needs a value"),
        ("lr=1 act=gelu", "before 'act=gelu' it needs `and` or `or`"),
        ("lr=1 and", "at its end it needs a key"),
        ("(lr=1", r"at its end it needs \)"),
        ("lr=1)", r"before '\)' it needs `and` or `or`"),
        ("lr in 1", r"before '1' it needs \("),
        ("lr ! 1", "before '! 1' it needs a key, a value or an operator"),
        ('act="gelu', "it needs a key, a value or an operator"),
        ("'lr'=1", "before .* it needs a key"),
        ("not " * 60 + "lr=1", "it needs at most 50 brackets"),
    ],
)
def test_what_is_no_condition_is_refused_at_its_place(text, message):
    with pytest.raises(InputError, match=f"is no condition: .*{message}"):
        parse_condition(text)


values = st.one_of(st.integers(-3, 3), st.floats(-3, 3), st.sampled_from(["x", "y"]), st.booleans(), st.none())
signs = {"=": lambda a, b: a == b, "<": lambda a, b: a < b, ">=": lambda a, b: a >= b}


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(sorted(signs)), st.integers(-3, 3)), min_size=1),
    st.sampled_from(["and", "or"]),
    st.fixed_dictionaries({"a": values, "b": values}),
)
def test_numbers_compare_as_in_python(parts, word, row):
    def part(key, sign, wanted):
        value = row[key]
        return isinstance(value, int | float) and not isinstance(value, bool) and signs[sign](value, wanted)

    expected = (all if word == "and" else any)(part(*one) for one in parts)
    assert holds(f" {word} ".join(f"{key}{sign}{wanted}" for key, sign, wanted in parts), row) is expected
