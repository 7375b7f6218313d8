"""The leaderboard: order, groups, and how it is shown and written."""

import json
import math
import sys
from dataclasses import replace
from statistics import mean, stdev

import openpyxl
import pytest
from openpyxl.utils import get_column_letter
from rich.console import Console
from scipy.stats import t

from basekamp.errors import InputError
from basekamp.records.leaderboard import best_first, group_rows, select_rows
from basekamp.records.shelf import Row
from basekamp.report.leaderboard import (
    changing_params,
    groups_as_json,
    groups_as_sheet,
    groups_table,
    leaderboard,
    rows_as_json,
    rows_as_sheet,
    sheet_as_csv,
    sheet_as_markdown,
)
from basekamp.report.workbook import write_workbook
from tests.made_records import make_row


def row(attempt, **params):
    baseline = attempt == "baseline"
    return Row(
        name=f"{attempt}.pth",
        key=f"e/{attempt}/{attempt}.pth",
        experiment="e",
        role="baseline" if baseline else "attempt",
        attempt=attempt,
        id="r6fhkt8e4j78q",
        params={"model": "mlp", **params},
        metric="loss",
        metrics={"loss": 0.5},
        n=3,
        spread=0.01,
        difference=None if baseline else -0.1,
        interval=None if baseline else (-0.2, -0.01),
        verdict=None if baseline else "supported",
    )


ROWS = [row("baseline", lr=0.1, act="relu"), row("wider", lr=0.1, act="relu", width=64)]


def printed(rows, width, *, color=False):
    console = Console(width=width, record=True, force_terminal=color, color_system="truecolor" if color else None)
    with console.capture() as captured:
        console.print(leaderboard(rows, width=width))
    return captured.get()


def test_changing_params_are_those_that_differ():
    assert changing_params(ROWS) == ["width"]


def test_changing_params_take_no_cut_setting_for_a_difference():
    assert changing_params([ROWS[0], replace(row("cut", lr=0.1), cut=1)]) == []


def test_leaderboard_has_a_column_for_each_difference_where_there_is_room():
    heading, *lines = printed(ROWS, 200).splitlines()
    assert heading.split()[:2] == ["attempt", "width"]
    assert [line.split()[:2] for line in lines] == [["baseline", "–"], ["wider", "64"]]


def test_leaderboard_moves_settings_below_in_a_narrow_terminal():
    text = printed([ROWS[0], row("wider", lr=0.1, act="a_long_name_of_an_activation", width=64)], 78)
    assert "width=64" in text and all(len(line) <= 78 for line in text.splitlines())
    assert text.index("supported") < text.index("what differs")


def test_lower_loss_is_shown_as_better():
    green, red = "\x1b[32m", "\x1b[31m"
    assert f"{green} ▼ -0.1000" in printed(ROWS, 200, color=True)
    worse = replace(ROWS[1], difference=0.1, interval=(0.01, 0.2))
    assert f"{red} ▲ +0.1000" in printed([ROWS[0], worse], 200, color=True)


@pytest.mark.parametrize("champion", [True, False])
def test_champion_has_a_star(champion):
    assert ("★" in printed([replace(ROWS[0], champion=champion)], 100)) == champion


# -- groups, checked against all replicates as one sample


def test_group_has_mean_spread_and_interval_of_all_replicates_as_one_sample():
    samples = [[0.5, 0.7, 0.9], [0.6, 0.65], [0.9, 0.95, 1.0, 1.05]]
    rows = [
        replace(row(f"a{i}", act="relu"), n=len(s), metrics={"loss": mean(s)}, spread=stdev(s))
        for i, s in enumerate(samples)
    ]
    (group,) = group_rows(rows, ["act"])
    whole = [value for sample in samples for value in sample]
    half = t.ppf(0.975, len(whole) - 1) * stdev(whole) / len(whole) ** 0.5
    assert (group.n, group.rows, group.values) == (9, 3, {"act": "relu"})
    assert (group.mean, group.spread) == pytest.approx((mean(whole), stdev(whole)))
    assert group.interval == pytest.approx((mean(whole) - half, mean(whole) + half))


def test_groups_are_best_first_and_nan_last_and_a_single_replicate_has_no_interval():
    rows = [
        replace(row("a", width=1), metrics={"loss": math.nan}),
        replace(row("b", width=2), metrics={"loss": 0.9}, n=1, spread=math.nan),
        replace(row("c", width=3), metrics={"loss": 0.1}, spread=math.nan),
        replace(row("d", width=4), metrics={"loss": math.inf}),
    ]
    groups = group_rows(rows, ["width"])
    assert [group.values["width"] for group in groups] == [3, 2, 4, 1]
    assert all(math.isnan(group.spread) and math.isnan(group.interval[0]) for group in groups)
    assert "nan" not in sheet_as_csv(groups_as_sheet(groups)).lower()
    assert json.loads(json.dumps(groups_as_json(groups), allow_nan=False))[1]["interval"] == [None, None]


def test_groups_keep_metrics_apart_and_rows_without_the_key_together():
    other = replace(row("x", width=1), metric="auc", metrics={"auc": 0.5})
    groups = group_rows([*ROWS, other], ["width"])
    assert {(group.metric, group.values["width"]) for group in groups} == {("auc", 1), ("loss", None), ("loss", 64)}
    with pytest.raises(InputError, match="depth is no column of these records"):
        group_rows(ROWS, ["depth"])


# -- order


@pytest.mark.parametrize("key", ["loss", "-loss", "width", "-width"])
def test_nan_and_missing_values_are_last_in_both_directions(key):
    rows = [
        replace(row("nan", width=2.0), metrics={"loss": math.nan}),
        replace(row("low", width=1.0), metrics={"loss": 0.1}),
        replace(row("high"), metrics={"loss": 0.9}),
    ]
    order = [one.attempt for one in select_rows(rows, [], key)]
    expected = {"loss": ["low", "high", "nan"], "-loss": ["high", "low", "nan"]}
    expected |= {"width": ["low", "nan", "high"], "-width": ["nan", "low", "high"]}
    assert order == expected[key]
    assert len(select_rows(rows, [], key, top=2)) == 2


# -- files


def test_sheet_of_what_changed_has_no_column_that_is_alike_in_all_rows():
    whole, changed = rows_as_sheet(ROWS), rows_as_sheet(ROWS, only_changed=True)
    assert {"experiment", "lr", "act", "n"} <= set(whole.heads) and "width" in changed.heads
    assert not {"experiment", "lr", "act", "n", "loss"} & set(changed.heads)
    assert dict(zip(changed.heads, changed.lines[1], strict=True))["width"] == 64
    assert rows_as_json(ROWS, only_changed=True)[1]["params"] == {"width": 64}


def test_markdown_is_one_table_whatever_a_text_holds():
    text = sheet_as_markdown(rows_as_sheet([row("a|b", act="<script>\n*x*")]))
    heading, rule, line = text.splitlines()
    assert heading.count(" | ") == rule.count(" | ") == line.replace("\\|", "").count(" | ")
    assert "a\\|b" in line and "&lt;script&gt; \\*x\\*" in line


HOSTILE = ["=1+1", "+A1", "-2", "@SUM(A1)", "\x01\ufffe", "x" * 40_000, "é ⭐", "123"]


def test_workbook_holds_every_record_in_its_type_and_no_formula(tmp_path):
    rows = [*ROWS, *(replace(row(f"h{i}", note=text), id=f"r{i:012}") for i, text in enumerate(HOSTILE))]
    write_workbook(rows, tmp_path / "runs.xlsx")
    (sheet,) = openpyxl.load_workbook(tmp_path / "runs.xlsx").worksheets
    heads, *lines = [[cell.value for cell in line] for line in sheet.iter_rows()]
    at = heads.index("note")
    assert [line[at] for line in lines[2:10]] == ["=1+1", "+A1", "-2", "@SUM(A1)", "��", "x" * 32_767, "é ⭐", "123"]
    assert {cell.data_type for cell in sheet[get_column_letter(at + 1)]} == {"s", "n"}  # n: the two empty ones
    assert all(cell.value is None for cell in sheet[get_column_letter(at + 1)] if cell.data_type == "n")
    assert lines[1][heads.index("width")] == 64 and lines[1][heads.index("lr")] == 0.1
    assert lines[1][heads.index("champion")] is False
    assert sheet.cell(2, heads.index("loss") + 1).number_format == "0.0000"
    assert (sheet.freeze_panes, sheet.title) == ("E2", "e")
    (chart,) = sheet._charts
    assert [one.tx.strRef.f for one in chart.series] == [f"'e'!{c}1" for c in chart_columns(sheet, "loss")]


def chart_columns(sheet, metric):
    """The columns of the chart's numbers: the deciding metric, then the baseline."""
    first = [cell.column for cell in sheet[1] if cell.value == metric][-1]
    return [get_column_letter(first), get_column_letter(first + 1)]


def test_workbook_has_a_sheet_for_each_experiment_under_a_title_that_excel_allows(tmp_path):
    names = ["a" * 40, "a" * 45, "B", "b", "x[1]/y"]
    rows = [replace(one, experiment=name) for one in ROWS for name in names]
    write_workbook(rows, tmp_path / "runs.xlsx")
    titles = openpyxl.load_workbook(tmp_path / "runs.xlsx").sheetnames
    assert titles == ["B", "a" * 31, "a" * 29 + " 2", "b 2", "x_1__y"]


@pytest.mark.parametrize("place", ["act", "attempt"])
def test_no_text_of_a_name_commands_the_terminal(place):
    text = "b\u202ec\x1b[31m"
    hostile = row("a", act=text) if place == "act" else replace(row(text, act="x"), key="e/attempts/a/a.pth")
    shown = printed([ROWS[0], hostile], 200)
    assert "\x1b" not in shown and "\u202e" not in shown and r"b\u202ec\x1b[31m" in shown
    console = Console(width=200)
    with console.capture() as captured:
        console.print(groups_table(group_rows([hostile], [place])))
    assert "\x1b" not in captured.get() and "\u202e" not in captured.get()


def test_workbook_of_nothing_can_be_opened(tmp_path):
    write_workbook([], tmp_path / "runs.xlsx")
    assert openpyxl.load_workbook(tmp_path / "runs.xlsx").sheetnames == ["no record"]


@pytest.mark.parametrize("name", ["runs.csv", "folder.xlsx"])
def test_workbook_refuses_another_suffix_and_a_folder(tmp_path, name):
    (tmp_path / "folder.xlsx").mkdir()
    with pytest.raises(InputError, match=f"{name} is not allowed: give the path of a file that ends in .xlsx"):
        write_workbook(ROWS, tmp_path / name)


def test_workbook_without_its_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(InputError, match=r"pip install 'basekamp\[xlsx\]'"):
        write_workbook(ROWS, tmp_path / "runs.xlsx")


@pytest.mark.parametrize(
    ("metric", "values", "order"),
    [
        ("accuracy", [0.5, math.nan, 0.9, 0.1], [2, 0, 3, 1]),
        ("rmse", [0.5, math.nan, 0.9, 0.1], [3, 0, 2, 1]),
        ("rmse", [math.inf, math.nan, 1.0], [2, 0, 1]),
        ("r2", [-math.inf, math.nan, -4.0], [2, 0, 1]),
    ],
)
def test_best_first_puts_the_best_first_and_nan_last(metric, values, order):
    rows = [make_row(value, metric=metric, id=f"r{i:07}") for i, value in enumerate(values)]
    assert [rows.index(row) for row in best_first(rows)] == order


def test_best_first_groups_experiments_and_begins_each_with_its_baseline():
    rows = [
        make_row(0.9, experiment="b"),
        make_row(0.1, experiment="b", role="baseline"),
        make_row(0.5, experiment="a"),
    ]
    assert best_first(rows) == [rows[2], rows[1], rows[0]]


TABLE = [
    make_row(0.5, attempt="one", difference=None, role="baseline"),
    make_row(
        0.9, attempt="two", difference=0.4, verdict="supported", params={"model": "mlp", "lr": 0.01, "fast": True}
    ),
    make_row(0.7, attempt="three", difference=0.2, verdict="refuted", champion=True),
    make_row(math.nan, attempt="four", difference=math.nan, params={"model": "mlp", "lr": 1e-5, "fast": False}),
]


@pytest.mark.parametrize(
    ("conditions", "kept"),
    [
        ([], ["one", "two", "three", "four"]),
        (["model=mlp"], ["two", "four"]),
        (["model=mlp", "lr=1e-2"], ["two"]),
        (["lr=0.00001"], ["four"]),
        (["lr=fast"], []),
        (["fast=true"], ["two"]),
        (["fast=False"], ["four"]),
        (["verdict=refuted"], ["three"]),
        (["verdict=''"], ["one", "four"]),
        (["role=baseline"], ["one"]),
        (["champion=true"], ["three"]),
        (["accuracy=0.90"], ["two"]),
        (["n=3", "attempt=one"], ["one"]),
    ],
)
def test_select_rows_keeps_what_meets_every_condition(conditions, kept):
    assert [row.attempt for row in select_rows(TABLE, conditions, None)] == kept


@pytest.mark.parametrize(
    ("key", "order"),
    [
        ("accuracy", ["two", "three", "one", "four"]),
        ("difference", ["two", "three", "one", "four"]),
        ("lr", ["four", "one", "three", "two"]),
        ("attempt", ["four", "one", "three", "two"]),
        ("fast", ["four", "two", "one", "three"]),
    ],
)
def test_select_rows_sorts_best_first_and_missing_last(key, order):
    assert [row.attempt for row in select_rows(TABLE, [], key)] == order


@pytest.mark.parametrize(
    ("conditions", "key", "message"),
    [
        (
            ["model"],
            None,
            "'model' is no condition: at its end it needs =, !=, .* write, say, 'n_layers>=3 and act=gelu'",
        ),
        (["depth=3"], None, "depth is no column of these records: use one of name, experiment, .*lr.*accuracy"),
        ([], "depth", "depth is no column of these records"),
    ],
)
def test_select_rows_refuses_what_it_cannot_read(conditions, key, message):
    with pytest.raises(InputError, match=message):
        select_rows(TABLE, conditions, key)


def test_select_rows_of_nothing_is_nothing():
    assert select_rows([], ["depth=3"], "depth") == []
