"""The verdict: known answers, its invariants, and how often the interval is right in simulated experiments."""

import math

import numpy as np
import pytest

from basekamp.errors import InputError
from basekamp.evaluation.evaluate import Predictions
from basekamp.records.verdict import ALPHA, Difference, judge, measure_difference, seeds_needed

WIDE = {"variance_examples": 4e-4, "variance_seeds_attempt": 1e-6, "variance_seeds_baseline": 1e-6}


def make_difference(
    value: float, *, metric: str = "accuracy", seeds=(3, 3), half: float = 0.0, **changes
) -> Difference:
    """A difference whose interval at 97.5 %, the level of the first attempt, reaches `half` to each side."""
    fields = {
        "metric": metric,
        "value": value,
        "n_examples": 400,
        "groups": 100,
        "n_seeds": seeds,
        "variance_examples": 1.0 if half else 0.0,
        "variance_seeds_attempt": 0.0,
        "variance_seeds_baseline": 0.0,
    }
    told = Difference(**fields | changes)
    if half:
        told = told.model_copy(update={"variance_examples": (half / told.half_width(0.975)) ** 2})
        assert told.half_width(0.975) == pytest.approx(half)
    return told


@pytest.mark.parametrize(
    ("gain", "half", "expect", "verdict"),
    [
        (0.03, 0.01, 0.02, "supported"),
        (0.02, 0.019, 0.02, "supported"),  # as large as hoped for, and zero is excluded
        (0.03, 0.031, 0.02, "inconclusive"),  # large enough, but zero is possible
        (0.03, 0.02, 0.04, "inconclusive"),  # better for sure, but perhaps not by enough
        (0.01, 0.005, 0.02, "refuted"),  # better for sure, and for sure not by enough
        (0.0, 0.01, 0.02, "refuted"),
        (0.0, 0.03, 0.02, "inconclusive"),
        (-0.05, 0.01, 0.02, "refuted"),
        (-0.05, 0.08, 0.02, "inconclusive"),
        (0.0, 0.0, 0.02, "refuted"),
        (0.02, 0.0, 0.02, "supported"),
        (0.0, 0.0, 0.0, "inconclusive"),  # nothing was hoped for and nothing came
        (1e-12, 0.0, 0.0, "supported"),
        (-1e-12, 0.0, 0.0, "refuted"),
    ],
)
@pytest.mark.parametrize(("metric", "sign"), [("accuracy", 1), ("r2", 1), ("loss", -1), ("rmse", -1)])
def test_judge_weighs_gain_interval_and_expectation(gain, half, expect, verdict, metric, sign):
    difference = make_difference(sign * gain, metric=metric, half=half)
    assert difference.gain == gain
    assert judge(difference, expect=expect, judged_before=0) == (verdict, 0.975)


def test_levels_spend_no_more_than_five_percent_however_many_attempts_follow():
    errors = [1 - judge(make_difference(0.0), expect=0.1, judged_before=before)[1] for before in range(2000)]
    assert errors[:3] == pytest.approx([ALPHA / 2, ALPHA / 6, ALPHA / 12])
    assert sum(errors) < ALPHA and all(one > other for one, other in zip(errors, errors[1:], strict=False))


def test_later_attempts_are_judged_more_strictly():
    difference = make_difference(0.03, half=0.029)
    verdicts = [judge(difference, expect=0.02, judged_before=before)[0] for before in range(5)]
    assert verdicts == ["supported", *["inconclusive"] * 4]


@pytest.mark.parametrize("level", [0.95, 0.975, 0.9999])
def test_half_width_shrinks_with_seeds_and_is_the_intervals(level):
    difference = make_difference(0.1, **WIDE | {"variance_seeds_attempt": 1e-3})
    widths = [difference.half_width(level, seeds_attempt=seeds) for seeds in (3, 4, 6, 10, 30, 300)]
    assert widths == sorted(widths, reverse=True) and len(set(widths)) == len(widths)
    low, high = difference.interval(level)
    assert (low, high) == pytest.approx((0.1 - widths[0], 0.1 + widths[0]))


@pytest.mark.parametrize("side", ["attempt", "baseline"])
def test_half_width_is_students_where_one_side_alone_is_uncertain(side):
    from scipy.stats import ttest_1samp

    values = np.random.default_rng(0).normal(0.9, 0.02, 5)
    noise, seeds = {f"variance_seeds_{side}": values.var(ddof=1) / 5}, (5, 4) if side == "attempt" else (4, 5)
    difference = make_difference(values.mean(), seeds=seeds, **noise)
    expected = ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert difference.interval() == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("level", [0.95, 0.9999])
def test_each_source_of_noise_reaches_as_far_as_alone_and_borrows_no_freedom(level):
    noise = {"variance_examples": 3e-4, "variance_seeds_attempt": 2e-4, "variance_seeds_baseline": 1e-4}
    alone = [make_difference(0.1, seeds=(2, 3), **{name: part}).half_width(level) for name, part in noise.items()]
    assert make_difference(0.1, seeds=(2, 3), **noise).half_width(level) == pytest.approx(math.hypot(*alone))


@pytest.mark.parametrize("ratio", [0.03, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_late_looks_at_few_seeds_are_no_more_often_wrong_than_they_say(seeds, ratio):
    rng, true = np.random.default_rng(7), np.array([ratio, 1.0, 0.05])  # examples, attempt's seeds, baseline's
    freedom = np.array([99, seeds - 1, seeds - 1])
    wrong = 0
    for _ in range(3000):
        names = ("variance_examples", "variance_seeds_attempt", "variance_seeds_baseline")
        estimates = dict(zip(names, true * rng.chisquare(freedom) / freedom, strict=True))
        difference = make_difference(rng.normal(scale=true.sum() ** 0.5), seeds=(seeds, seeds), **estimates)
        wrong += judge(difference, expect=1e-9, judged_before=3)[0] == "supported"
    assert wrong / 3000 < (ALPHA / 20) * 2  # one side of it, and the noise of this test


@pytest.mark.parametrize("scale", [1e-70, 1.0, 1e70])
def test_interval_grows_with_the_unit_of_the_metric(scale):
    parts = {name: value * scale**2 for name, value in WIDE.items()}
    difference = make_difference(0.0, metric="rmse", **parts)
    assert difference.half_width(0.95) == pytest.approx(make_difference(0.0, **WIDE).half_width(0.95) * scale)


@pytest.mark.parametrize(
    ("value", "expect", "judged_before"), [(0.05, 0.02, 0), (0.0, 0.05, 0), (-0.02, 0.03, 2), (0.05, 0.02, 7)]
)
def test_with_the_seeds_needed_it_decides_and_with_one_fewer_it_does_not(value, expect, judged_before):
    noise = {"variance_examples": 2e-5, "variance_seeds_attempt": 4e-3, "variance_seeds_baseline": 2e-5}
    difference = make_difference(value, seeds=(3, 20), **noise)
    verdict, level = judge(difference, expect=expect, judged_before=judged_before)
    assert verdict == "inconclusive"
    needed = seeds_needed(difference, expect=expect, level=level)

    def verdict_with(seeds: int) -> str:
        changed = {"n_seeds": (seeds, 20), "variance_seeds_attempt": 4e-3 * 3 / seeds}
        return judge(difference.model_copy(update=changed), expect=expect, judged_before=judged_before)[0]

    assert needed > 3
    assert verdict_with(needed) == ("supported" if value >= expect else "refuted")
    assert verdict_with(needed - 1) == "inconclusive"


@pytest.mark.parametrize("dominant", ["variance_examples", "variance_seeds_baseline"])
def test_no_number_of_seeds_decides_what_lies_elsewhere(dominant):
    noise = {"variance_examples": 1e-9, "variance_seeds_attempt": 1e-5, "variance_seeds_baseline": 1e-9}
    difference = make_difference(0.01, **noise | {dominant: 1e-2})
    verdict, level = judge(difference, expect=0.05, judged_before=0)
    assert verdict == "inconclusive" and seeds_needed(difference, expect=0.05, level=level) is None


def random_predictions(seed: int, *, n: int = 400, n_classes: int = 3, replicates: int = 3) -> Predictions:
    """Predictions of the same n examples for every seed."""
    rows = np.random.default_rng(99).permutation(n).astype(np.uint64)
    targets = np.random.default_rng(98).integers(0, n_classes, n)
    outputs = np.random.default_rng(seed).dirichlet(np.ones(n_classes), (replicates, n)).astype(np.float32)
    return Predictions(rows=rows, targets=targets, outputs=outputs)


def reordered(predictions: Predictions, order: np.ndarray) -> Predictions:
    """The same predictions in another order, or some of them."""
    rows, targets, outputs = predictions.rows[order], predictions.targets[order], predictions.outputs[:, order]
    return Predictions(rows=rows, targets=targets, outputs=outputs)


def test_identical_predictions_have_no_difference_and_refute_any_hope():
    predictions = random_predictions(1, replicates=2)
    same = Predictions(
        rows=predictions.rows, targets=predictions.targets, outputs=np.repeat(predictions.outputs[:1], 3, axis=0)
    )
    difference = measure_difference("accuracy", same, same)
    assert (difference.value, difference.half_width(0.999)) == (0.0, 0.0)
    assert judge(difference, expect=0.001, judged_before=0)[0] == "refuted"


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "f1", "auc", "loss"])
def test_difference_is_that_of_the_means_and_pairs_rows_in_any_order(metric):
    attempt, baseline = random_predictions(1), random_predictions(2)
    plain = measure_difference(metric, attempt, baseline)
    shuffled = reordered(baseline, np.random.default_rng(0).permutation(400))
    assert measure_difference(metric, attempt, shuffled) == plain
    assert measure_difference(metric, baseline, attempt).value == pytest.approx(-plain.value)
    assert (plain.n_examples, plain.groups, plain.n_seeds) == (400, 100, (3, 3))


def test_variance_over_examples_of_accuracy_is_the_textbooks():
    attempt, baseline = random_predictions(1), random_predictions(2)
    means = [(p.outputs.argmax(axis=2) == p.targets).mean(axis=0) for p in (attempt, baseline)]
    expected = np.var(means[0] - means[1], ddof=1) / 400
    difference = measure_difference("accuracy", attempt, baseline)
    assert difference.value == pytest.approx(np.mean(means[0] - means[1]))
    assert difference.variance_examples == pytest.approx(expected, rel=0.3)


@pytest.mark.parametrize("n", [2, 7, 100])
def test_variance_over_few_examples_is_exactly_the_textbooks(n):
    sides = [random_predictions(seed, n=n) for seed in (1, 2)]
    right = [(side.outputs.argmax(axis=2) == side.targets).mean(axis=0) for side in sides]
    expected = np.var(right[0] - right[1], ddof=1) / n
    assert measure_difference("accuracy", *sides).variance_examples == pytest.approx(expected)


def test_what_both_get_wrong_alike_cancels_out():
    baseline = random_predictions(2)
    outputs = baseline.outputs.copy()
    outputs[:, :8] = np.eye(3, dtype=np.float32)[baseline.targets[:8]]
    near = Predictions(rows=baseline.rows, targets=baseline.targets, outputs=outputs)
    related = measure_difference("accuracy", near, baseline)
    assert 0 < related.value <= 8 / 400
    assert (
        related.variance_examples
        < measure_difference("accuracy", random_predictions(3), baseline).variance_examples / 10
    )


def grouped_sides(chance: np.random.Generator, *, groups: int, size: int) -> list[Predictions]:
    """Two models of equal true accuracy; which of the two is right depends on the group alone."""
    n = groups * size
    rows, belongs = chance.integers(0, 2**63, n, dtype=np.uint64), np.repeat(chance.integers(0, 2**63, groups), size)
    targets = chance.integers(0, 2, n)
    first_is_right = np.repeat(chance.random(groups) < 0.5, size)
    sides = []
    for is_right in (first_is_right, ~first_is_right):
        answers = np.where(is_right, targets, 1 - targets)
        outputs = np.eye(2, dtype=np.float32)[answers][None]
        sides.append(Predictions(rows=rows, targets=targets, outputs=outputs, groups=belongs.astype(np.uint64)))
    return sides


def test_interval_over_groups_holds_where_one_over_rows_does_not():
    chance = np.random.default_rng(0)
    held = np.zeros(2)
    for _ in range(200):
        attempt, baseline = grouped_sides(chance, groups=40, size=10)
        for i, side in enumerate((attempt, attempt.model_copy(update={"groups": None}))):
            found = measure_difference("accuracy", side, baseline)
            held[i] += abs(found.value) <= found.half_width(0.95)
    assert held[0] >= 0.9 * 200 and held[1] < 0.6 * 200


def test_groups_of_one_row_each_change_nothing():
    attempt, baseline = random_predictions(1), random_predictions(2)
    grouped = attempt.model_copy(update={"groups": np.arange(400, dtype=np.uint64)})
    assert measure_difference("auc", grouped, baseline) == measure_difference("auc", attempt, baseline)


def test_a_single_group_is_refused():
    attempt, baseline = grouped_sides(np.random.default_rng(0), groups=1, size=10)
    with pytest.raises(InputError, match="all shared validation examples are of one group"):
        measure_difference("accuracy", attempt, baseline)


def test_rows_of_equal_hash_are_all_compared():
    attempt, baseline = random_predictions(1), random_predictions(2)
    few = np.arange(400, dtype=np.uint64) % 7  # as when the column that told rows apart is dropped
    attempt, baseline = (p.model_copy(update={"rows": few}) for p in (attempt, baseline))
    assert measure_difference("accuracy", attempt, baseline).n_examples == 400


def test_examples_that_only_one_side_has_are_left_out():
    attempt, baseline = random_predictions(1), random_predictions(2)
    some = np.arange(250)
    expected = measure_difference("loss", reordered(attempt, some), reordered(baseline, some))
    assert measure_difference("loss", reordered(attempt, some), baseline) == expected
    assert expected.n_examples == 250


@pytest.mark.parametrize(("shared", "total"), [(0, 400), (199, 400), (1, 2)])
def test_a_baseline_of_other_examples_is_refused(shared, total):
    attempt = random_predictions(1, n=total)
    rows = attempt.rows.copy()
    rows[shared:] += np.uint64(1000)
    with pytest.raises(InputError, match=rf"other examples \({shared} of {total} are shared, at least half .* name of"):
        measure_difference("accuracy", attempt, attempt.model_copy(update={"rows": rows}))


@pytest.mark.parametrize("metric", ["accuracy", "f1", "auc", "loss"])
@pytest.mark.parametrize("n", [2, 3, 101])
def test_few_examples_and_rare_classes_give_a_finite_interval(metric, n):
    targets = np.zeros(n, dtype=np.int64)
    targets[0] = 2  # one jackknife group takes the class away
    sides = (random_predictions(seed, n=n).model_copy(update={"targets": targets}) for seed in (1, 2))
    difference = measure_difference(metric, *sides)
    assert all(math.isfinite(number) for number in (difference.value, *difference.interval()))


@pytest.mark.parametrize("metric", ["rmse", "mae", "r2", "loss"])
def test_regression_is_measured_alike_even_with_a_constant_target(metric):
    rng = np.random.default_rng(4)
    rows, outputs = np.arange(50, dtype=np.uint64), rng.normal(size=(2, 3, 50)).astype(np.float32)
    for targets in (rng.normal(size=50).astype(np.float32), np.full(50, 0.1, dtype=np.float32)):
        sides = [Predictions(rows=rows, targets=targets, outputs=each) for each in outputs]
        difference = measure_difference(metric, *sides)
        assert all(math.isfinite(number) for number in difference.interval())


def test_one_replicate_a_side_leaves_the_examples_noise_alone():
    difference = measure_difference(
        "accuracy", random_predictions(1, replicates=1), random_predictions(2, replicates=1)
    )
    assert difference.variance_seeds_attempt == difference.variance_seeds_baseline == 0.0
    assert difference.half_width(0.95) > 0


def simulate_null(rng: np.random.Generator) -> Difference:
    """Two recipes of equal worth: hard examples are hard for both, each has its taste, each seed its luck."""
    n = 400
    difficulty, rows = rng.normal(size=n), rng.integers(0, 2**63, n, dtype=np.uint64)
    targets = rng.integers(0, 2, n)
    sides = []
    for _ in range(2):
        taste, luck, noise = rng.normal(scale=0.5, size=n), rng.normal(scale=0.1, size=(3, 1)), rng.normal(size=(3, n))
        right = difficulty + taste + luck + 0.3 * noise > -1.5
        answers = np.where(right, targets, 1 - targets)
        sides.append(Predictions(rows=rows, targets=targets, outputs=np.eye(2, dtype=np.float32)[answers]))
    return measure_difference("accuracy", *sides)


def test_interval_covers_the_truth_as_often_as_it_says_and_few_nulls_are_supported():
    rng = np.random.default_rng(2024)
    differences = [simulate_null(rng) for _ in range(300)]
    covered = np.mean([low <= 0 <= high for low, high in (difference.interval() for difference in differences)])
    supported = [judge(difference, expect=0.001, judged_before=0)[0] == "supported" for difference in differences]
    assert 0.92 <= covered <= 0.995
    assert np.mean(supported) <= 0.05
