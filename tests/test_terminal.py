from dataclasses import replace

import pytest
from rich.console import Console

from basekamp.records.shelf import Row
from basekamp.report.terminal import changing_params, leaderboard


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
