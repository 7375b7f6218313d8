"""The benchmark of verdicts simulates what the library measures."""

import numpy as np
import pytest

from basekamp.records.verdict import ALPHA
from benchmarks.bench_verdict import (
    Regime,
    Side,
    by_the_library,
    count_false,
    count_false_until_decided,
    difference,
    draw,
    measure,
    power,
)

REGIMES = [
    Regime(50, 3, (0.1, 0.1)),
    Regime(400, 2, (0.0, 0.3)),
    Regime(200, 3, (0.1, 0.1), metric="rmse"),
    Regime(100, 3, (0.1, 0.1), metric="auc"),
    Regime(200, 2, (0.1, 0.1), metric="auc"),
]


@pytest.mark.parametrize("regime", REGIMES, ids=lambda regime: regime.told)
def test_what_is_judged_is_what_the_library_measures(regime):
    drawn = draw(regime, np.random.default_rng(5), number=2, attempts=2)
    values, without = measure(regime, drawn)
    for experiment in range(2):
        sides = [Side(*side) for side in zip(values[experiment], without[experiment], strict=True)]
        for attempt in (1, 2):
            ours = difference(regime, sides[attempt], sides[0])
            theirs = by_the_library(regime, drawn[experiment, attempt], drawn[experiment, 0])
            for name, value in theirs:
                assert getattr(ours, name) == (pytest.approx(value, rel=1e-5) if isinstance(value, float) else value)


@pytest.mark.parametrize("metric", ["accuracy", "rmse", "auc"])
def test_recipes_of_equal_worth_are_equal_and_a_gain_is_the_gain(metric):
    regime = Regime(2000 if metric != "auc" else 200, 2, (0.1, 0.3) if metric == "accuracy" else (0.1, 0.1), metric)
    rng = np.random.default_rng(6)
    values = measure(regime, draw(regime, rng, number=150, attempts=1))[0].mean(axis=(0, 2))
    better = measure(regime, draw(regime, rng, number=150, attempts=1, gain=0.05))[0].mean(axis=(0, 2))
    assert values[1] - values[0] == pytest.approx(0.0, abs=0.01)
    if metric == "accuracy":
        assert better[1] - better[0] == pytest.approx(0.05, abs=0.01)
    else:
        assert (better[1] < better[0]) == (metric == "rmse")


def test_few_experiments_without_a_gain_claim_one_and_the_usual_ways_do_far_more_often():
    told = count_false(Regime(100, 3, (0.1, 0.1)), experiments=100, attempts=20, seed=1)
    assert told["wrong"]["ours"]["low"] <= ALPHA < told["wrong"]["t_test"]["low"]
    assert told["wrong"]["ours_expect"]["count"] <= told["wrong"]["ours"]["count"]
    assert told["coverage_95"] > 0.93


def test_a_quiet_baseline_and_two_noisy_seeds_claim_no_more_where_one_variance_for_all_did():
    wrong = count_false(Regime(400, 2, (0.02, 0.4)), experiments=100, attempts=20, seed=1)["wrong"]
    assert wrong["ours"]["low"] <= wrong["ours"]["rate"] <= ALPHA < wrong["in_one"]["low"]


def test_looking_again_until_it_is_decided_claims_no_more():
    told = count_false_until_decided(
        Regime(100, 8, (0.2, 0.2)), experiments=100, attempts=10, seed=1, most=8, first=3, expect=0.02
    )
    assert told["wrong"]["low"] <= ALPHA and 1 < told["looks_per_attempt"] < 6


def test_a_large_gain_is_found():
    assert power(Regime(400, 3, (0.02, 0.02)), 0.1, pairs=50, seed=1)["found"]["ours"]["rate"] > 0.9
