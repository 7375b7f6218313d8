"""How often a verdict is wrong, and how often it finds what is there: simulated experiments with a known truth.

An experiment is one baseline and 20 attempts that share it, all of equal worth (or, for power, one attempt that is
better by a known gain), measured on the same examples with a few seeds each. Hard examples are hard for every recipe,
each recipe has its taste in examples, each seed its luck, and each training its own noise. An experiment is *wrong*
when any of its attempts reads `supported`, which at most 5 % of them may be. Beside our verdict stand what is commonly
done: Welch's t-test over the seeds (two-sided, p < 0.05, for each attempt anew) and "all k beat all k".

Every verdict is `judge`'s own. What it judges, `measure_difference`, is computed here for all seeds at once;
tests/test_bench_verdict.py compares the two number by number.

    python -m benchmarks.bench_verdict
"""

import argparse
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit
from scipy.stats import binomtest, ttest_ind

from basekamp.evaluation.evaluate import Predictions, mean_and_variance
from basekamp.records.verdict import ALPHA, GROUPS, Difference, judge, level_of_look, measure_difference, seeds_needed
from benchmarks.measure import RESULTS, machine, table, write

Array = NDArray[Any]
ATTEMPTS = 20
TINY = 1e-9
"""As `expect` it makes `supported` mean no more than that the interval excludes zero: the hardest case."""
WAYS = {
    "ours": "ours",
    "ours_expect": "ours, with expect",
    "in_one": "ours in 0.1",
    "t_test": "t-test of seeds",
    "all_beat_all": "all k beat all k",
}
COLORS = {"ours": "C0", "in_one": "C3", "t_test": "C1", "all_beat_all": "C2"}
SURELY_WITHIN = float(ndtri(1 - ALPHA / 4))
"""The normal quantile of the first look; those of later ones are larger."""
CHUNK = 4_000_000
"""How many numbers are drawn at a time."""


@dataclass(frozen=True)
class Regime:
    """One kind of experiment. The standard deviations are in units of the examples' difficulty.

    luck: of seeds, for the baseline and for the attempts. tail: degrees of freedom of the luck, 0 for a normal one.
    expect: the gain that a user would hope for.
    """

    n_examples: int
    seeds: int
    luck: tuple[float, float]
    metric: str = "accuracy"
    taste: float = 0.5
    noise: float = 0.3
    tail: int = 0
    worth: float = 0.85
    expect: float = 0.02

    @property
    def told(self) -> str:
        """In a few words."""
        tail = f", t{self.tail} tails" if self.tail else ""
        return (
            f"{self.metric}, {self.n_examples} examples, {self.seeds} seeds, luck {self.luck[0]:g}/{self.luck[1]:g}"
            + tail
        )


class Side(NamedTuple):
    """One recipe measured: the metric of each seed [k], and without each group of examples [k, groups]."""

    values: Array
    without: Array

    def first(self, seeds: int) -> "Side":
        """What it was with its first seeds alone."""
        return Side(self.values[:seeds], self.without[:seeds])


Experiment = list[Side]
"""The baseline, then the attempts."""


def draw(regime: Regime, rng: np.random.Generator, *, number: int, attempts: int, gain: float = 0.0) -> Array:
    """What every recipe does on every example [number, 1 + attempts, seeds, n]; the first recipe is the baseline.

    accuracy: right or not. rmse: the error. auc: the score; the second half of the examples is positive. `gain` is
    what the attempts' true metric is better by.
    """
    shape = (number, 1 + attempts, regime.seeds, regime.n_examples)
    recipes = np.arange(1 + attempts)
    luck = _luck(regime, rng, shape[:3]) * np.where(recipes == 0, *regime.luck)[None, :, None]
    spread = regime.noise * rng.standard_normal(shape, dtype=np.float32)
    spread += regime.taste * rng.standard_normal((*shape[:2], 1, shape[3]), dtype=np.float32)
    spread += rng.standard_normal((number, 1, 1, shape[3]), dtype=np.float32)
    gains = np.where(recipes == 0, 0.0, gain)
    if regime.metric == "accuracy":
        deviation = np.sqrt(1 + regime.taste**2 + regime.noise**2 + np.square(regime.luck))
        level = np.where(recipes == 0, *deviation) * ndtri(regime.worth + gains)
        return (spread > -(luck + level[None, :, None]).astype(np.float32)[..., None]).astype(np.float32)
    if regime.metric == "rmse":
        return (spread * np.exp(luck - gains[None, :, None]).astype(np.float32)[..., None]).astype(np.float32)
    is_positive = np.arange(shape[3]) >= shape[3] // 2
    return (spread + np.float32(1.5) * is_positive * (1 + luck + gains[None, :, None])[..., None]).astype(np.float32)


def _luck(regime: Regime, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.standard_t(regime.tail, shape) if regime.tail else rng.standard_normal(shape)


def measure(regime: Regime, drawn: Array) -> tuple[Array, Array]:
    """The metric of every seed [..., k], and without each group [..., k, groups], of what `draw` gives [..., k, n]."""
    if regime.metric == "auc":
        return _areas(drawn)
    per_example = drawn**2 if regime.metric == "rmse" else drawn
    n, groups = drawn.shape[-1], min(GROUPS, drawn.shape[-1])
    sums = per_example.reshape(*drawn.shape[:-1], n // groups, groups).sum(axis=-2, dtype=np.float64)
    total = sums.sum(axis=-1)
    values, without = total / n, (total[..., None] - sums) / (n - n // groups)
    return (np.sqrt(values), np.sqrt(without)) if regime.metric == "rmse" else (values, without)


def _areas(scores: Array) -> tuple[Array, Array]:
    """Areas under the ROC curve. Leaving a group out takes away the pairs that have a row in it."""
    half, groups = scores.shape[-1] // 2, min(GROUPS, scores.shape[-1])
    wins = (scores[..., half:, None] > scores[..., None, :half]).astype(np.float32)  # [..., positive, negative]
    of_row = np.eye(groups, dtype=np.float32)[np.arange(2 * half) % groups]  # [row, group]
    negative, positive = of_row[:half], of_row[half:]
    by_positive, by_negative = wins.sum(axis=-1) @ positive, wins.sum(axis=-2) @ negative
    both = np.einsum("...pg,pg->...g", wins @ negative, positive)
    total = by_positive.sum(axis=-1, dtype=np.float64)
    left = (half - positive.sum(axis=0)) * (half - negative.sum(axis=0))
    return total / half**2, (total[..., None] - by_positive - by_negative + both) / left


def simulate(regime: Regime, *, experiments: int, attempts: int, seed: int, gain: float = 0.0) -> Iterator[Experiment]:
    """Draw and measure experiments, one after the other."""
    rng = np.random.default_rng([seed, *repr(regime).encode()])
    at_once = max(1, CHUNK // ((1 + attempts) * regime.seeds * regime.n_examples))
    if regime.metric == "auc":
        at_once = max(1, at_once // regime.n_examples)
    for start in range(0, experiments, at_once):
        drawn = draw(regime, rng, number=min(at_once, experiments - start), attempts=attempts, gain=gain)
        for values, without in zip(*measure(regime, drawn), strict=True):
            yield [Side(*side) for side in zip(values, without, strict=True)]


def difference(regime: Regime, attempt: Side, baseline: Side) -> Difference:
    """What `measure_difference` tells of two recipes."""
    sides = [mean_and_variance(side.values) for side in (attempt, baseline)]
    groups = attempt.without.shape[1]
    without = attempt.without.mean(axis=0) - baseline.without.mean(axis=0)
    return Difference.model_construct(
        metric=regime.metric,
        value=float(sides[0][0] - sides[1][0]),
        n_examples=regime.n_examples,
        groups=groups,
        n_seeds=(len(attempt.values), len(baseline.values)),
        variance_examples=float((groups - 1) * np.var(without)),
        variance_seeds_attempt=float(sides[0][1]) / len(attempt.values),
        variance_seeds_baseline=float(sides[1][1]) / len(baseline.values),
    )


def by_the_library(regime: Regime, attempt: Array, baseline: Array) -> Difference:
    """The same by `measure_difference` itself, from what `draw` gives of two recipes [k, n]."""
    return measure_difference(regime.metric, _predictions(regime, attempt), _predictions(regime, baseline))


def _predictions(regime: Regime, drawn: Array) -> Predictions:
    n = drawn.shape[-1]
    rows, targets = np.arange(n, dtype=np.uint64), np.zeros(n, dtype=np.int64)
    if regime.metric == "rmse":
        return Predictions(rows=rows, targets=targets.astype(np.float32), outputs=drawn)
    if regime.metric == "auc":
        targets[n // 2 :] = 1
    return Predictions(rows=rows, targets=targets, outputs=np.stack([drawn, 1 - drawn][:: _order(regime)], axis=-1))


def _order(regime: Regime) -> int:
    """The score is that of the second class, being right that of the first."""
    return -1 if regime.metric == "auc" else 1


def count_false(regime: Regime, *, experiments: int, attempts: int, seed: int) -> dict[str, Any]:
    """How many experiments without any true gain contain a false `supported`, by ours and by the usual ways."""
    wrong = dict.fromkeys(WAYS, 0)
    covered = 0
    for sides in simulate(regime, experiments=experiments, attempts=attempts, seed=seed):
        baseline, found = sides[0], set()
        for before, attempt in enumerate(sides[1:]):
            told = difference(regime, attempt, baseline)
            if not before:  # the intervals of one experiment share a baseline: one of each is enough
                covered += abs(told.value) <= told.half_width(1 - ALPHA)
            if told.gain <= SURELY_WITHIN * deviation(told):
                continue
            if told.gain > half_width_in_one(told, level_of_look(before)):
                found.add("in_one")
            for way, expect in (("ours", TINY), ("ours_expect", regime.expect)):
                if judge(told, expect=expect, judged_before=before)[0] == "supported":
                    found.add(way)
        found |= _usual_ways(regime, np.array([side.values for side in sides[1:]]), baseline.values)
        for way in found:
            wrong[way] += 1
    return {
        **asdict(regime),
        "experiments": experiments,
        "wrong": {way: share(count, experiments) for way, count in wrong.items()},
        "coverage_95": covered / experiments,
    }


def deviation(told: Difference) -> float:
    """The root of all variances: no t-interval reaches less far than a normal one of this deviation."""
    return (told.variance_examples + told.variance_seeds_attempt + told.variance_seeds_baseline) ** 0.5


def half_width_in_one(told: Difference, level: float) -> float:
    """Half the interval of release 0.1: seeds and examples as one variance, its degrees of freedom by Satterthwaite."""
    parts = [
        (told.variance_examples, told.groups - 1),
        (told.variance_seeds_attempt, told.n_seeds[0] - 1),
        (told.variance_seeds_baseline, told.n_seeds[1] - 1),
    ]
    variance = sum(part for part, _ in parts)
    if variance == 0.0:
        return 0.0
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    return float(stdtrit(freedom, 0.5 + level / 2)) * variance**0.5


def _usual_ways(regime: Regime, attempts: Array, baseline: Array) -> set[str]:
    """Which of the usual ways hold any attempt [attempts, k] for better than the baseline [k]."""
    sign = -1.0 if regime.metric == "rmse" else 1.0
    ours, theirs = sign * attempts, sign * baseline
    return {way for way, is_better in _usual(ours, theirs).items() if is_better.any()}


def _usual(ours: Array, theirs: Array) -> dict[str, Array]:
    """What Welch's t-test and "all k beat all k" say of seeds [..., k]; equal seeds on both sides prove nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        tested = ttest_ind(ours, theirs, axis=-1, equal_var=False)
    return {
        "t_test": (tested.pvalue < ALPHA) & (tested.statistic > 0),
        "all_beat_all": ours.min(axis=-1) > theirs.max(axis=-1),
    }


def count_false_until_decided(
    regime: Regime, *, experiments: int, attempts: int, seed: int, most: int, first: int, expect: float
) -> dict[str, Any]:
    """The same where each undecided attempt is looked at again with more seeds, as `--until-decided` does.

    The regime's seeds are the most that an attempt may have, `first` those of the baseline and of each first look.
    """
    wrong = looks = decided = 0
    whole = replace(regime, seeds=most)
    for sides in simulate(whole, experiments=experiments, attempts=attempts, seed=seed):
        baseline, before, is_wrong = sides[0].first(first), 0, False
        for attempt in sides[1:]:
            seeds = first
            while True:
                told = difference(whole, attempt.first(seeds), baseline)
                verdict, _ = judge(told, expect=expect, judged_before=before)
                before += 1
                is_wrong |= verdict == "supported"
                needed = seeds_needed(told, expect=expect, level=level_of_look(before))
                if verdict != "inconclusive" or needed is None or seeds == most:
                    break
                seeds = min(needed, most)
            decided += verdict != "inconclusive"
        wrong += is_wrong
        looks += before
    return {
        **asdict(replace(whole, seeds=first, expect=expect)),
        "most_seeds": most,
        "experiments": experiments,
        "wrong": share(wrong, experiments),
        "looks_per_attempt": looks / (experiments * attempts),
        "decided": decided / (experiments * attempts),
    }


def power(regime: Regime, gain: float, *, pairs: int, seed: int) -> dict[str, Any]:
    """How often a first attempt that is better by `gain` is found so, by each way."""
    ours, in_one, values = 0, 0, []
    for baseline, attempt in simulate(regime, experiments=pairs, attempts=1, seed=seed, gain=gain):
        told = difference(regime, attempt, baseline)
        ours += judge(told, expect=TINY, judged_before=0)[0] == "supported"
        in_one += told.gain > half_width_in_one(told, level_of_look(0))
        values.append((attempt.values, baseline.values))
    seeds = (np.array(side) for side in zip(*values, strict=True))
    counts = {"ours": ours, "in_one": in_one, **{way: int(found.sum()) for way, found in _usual(*seeds).items()}}
    return {**asdict(regime), "gain": gain, "found": {way: share(count, pairs) for way, count in counts.items()}}


def share(count: int, of: int) -> dict[str, float]:
    """A count with its rate and the exact 95 % interval of that (Clopper and Pearson)."""
    interval = binomtest(count, of).proportion_ci(0.95, "exact")
    return {
        "count": count,
        "rate": count / of,
        "low": round(float(interval.low), 5),
        "high": round(float(interval.high), 5),
    }


def regimes() -> list[Regime]:
    """Few and many examples, seeds that matter little or much, few and many of them; then the odd ones."""
    seeds = (2, 3, 5, 10)
    usual = [Regime(n, k, (luck, luck)) for n, luck, k in product((50, 400, 2000), (0.02, 0.1, 0.5), seeds)]
    uneven = [Regime(400, k, luck) for luck in ((0.0, 0.3), (0.3, 0.0), (0.3, 0.1)) for k in seeds]
    uneven += [Regime(2000, k, luck) for luck in ((0.0, 0.3), (0.02, 0.3)) for k in seeds]
    alike = [Regime(n, k, (0.1, 0.1), taste=0.05, noise=0.05) for n in (50, 400) for k in seeds]
    heavy = [Regime(400, k, (0.2, 0.2), tail=3) for k in seeds]
    errors = [
        Regime(n, k, (luck, luck), metric="rmse", expect=0.05) for n in (50, 400) for luck in (0.01, 0.1) for k in seeds
    ]
    areas = [Regime(100, k, (0.1, 0.1), metric="auc") for k in seeds]
    return [*usual, *uneven, *alike, *heavy, *errors, *areas]


SKEWED = [Regime(400, k, (0.0, 0.6)) for k in (2, 3, 5, 10)]
"""Beyond what any t-interval assumes: seeds spread over 11 points of accuracy, the bad ones farther than the good."""
SEQUENTIAL = [
    Regime(n, 10, luck, expect=expect)
    for n, luck in ((2000, (0.02, 0.2)), (2000, (0.02, 0.5)), (400, (0.1, 0.1)))
    for expect in (TINY, 0.02)
]
POWERED = [Regime(n, k, (luck, luck)) for n, luck in ((400, 0.1), (2000, 0.1), (2000, 0.3)) for k in (3, 5, 10)]
GAINS = (0.0, 0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08)


def main() -> None:
    """Simulate, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=2026)
    arguments = parser.parse_args()
    size = {"experiments": arguments.experiments, "seed": arguments.seed}
    begin = time.perf_counter()
    results: dict[str, Any] = {"machine": machine("numpy", "scipy"), "attempts": ATTEMPTS, **size}
    results["null"] = [_told(count_false(regime, attempts=ATTEMPTS, **size), regime) for regime in regimes()]
    results["skewed"] = [_told(count_false(regime, attempts=ATTEMPTS, **size), regime) for regime in SKEWED]
    results["until_decided"] = [
        _told(
            count_false_until_decided(regime, attempts=ATTEMPTS, most=10, first=3, expect=regime.expect, **size), regime
        )
        for regime in SEQUENTIAL
    ]
    results["power"] = [
        power(regime, gain, pairs=arguments.experiments, seed=arguments.seed) for regime in POWERED for gain in GAINS
    ]
    results["seconds"] = round(time.perf_counter() - begin, 1)
    print(_null_table(results["null"] + results["skewed"]))
    print(_power_table(results["power"]))
    write("bench_verdict", results)
    _draw_figure(results)


def _told(result: dict[str, Any], regime: Regime) -> dict[str, Any]:
    wrong = result["wrong"].get("ours", result["wrong"])
    print(f"  {regime.told}: {100 * wrong['rate']:.2f} % wrong", flush=True)
    return result


def _null_table(rows: list[dict[str, Any]]) -> str:
    lines = [["metric", "examples", "seeds", "luck", *WAYS.values(), "coverage"]]
    for row in rows:
        wrong = row["wrong"]
        rates = [f"{100 * wrong[way]['rate']:.1f} %" for way in WAYS]
        place = [row["metric"], str(row["n_examples"]), str(row["seeds"]), "/".join(f"{x:g}" for x in row["luck"])]
        lines.append([*place, *rates, f"{100 * row['coverage_95']:.1f} %"])
    return table(lines)


def _power_table(rows: list[dict[str, Any]]) -> str:
    lines = [["examples", "luck", "seeds", "gain", *(WAYS[way] for way in COLORS)]]
    for row in rows:
        rates = [f"{100 * row['found'][way]['rate']:.0f} %" for way in COLORS]
        lines.append([str(row["n_examples"]), f"{row['luck'][0]:g}", str(row["seeds"]), f"{row['gain']:g}", *rates])
    return table(lines)


def _draw_figure(results: dict[str, Any]) -> None:
    """Above the share of null experiments with a false `supported`, below the power curves."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "basekamp"
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=(11, 10), layout="constrained")
    grid = figure.add_gridspec(4, 3)
    _draw_null(figure.add_subplot(grid[0, :]), results["null"])
    for row, (n, luck) in enumerate(dict.fromkeys((regime.n_examples, regime.luck[0]) for regime in POWERED), 1):
        for column, seeds in enumerate((3, 5, 10)):
            axes = figure.add_subplot(grid[row, column])
            found = [one for one in results["power"] if (one["n_examples"], one["luck"][0]) == (n, luck)]
            _draw_power(axes, [one for one in found if one["seeds"] == seeds])
            axes.set_title(f"{n} examples, luck {luck:g}, {seeds} seeds", fontsize=9)
    figure.savefig(RESULTS / "bench_verdict.svg", metadata={"Date": None})
    print(f"written to {RESULTS / 'bench_verdict.svg'}")


def _draw_null(axes: Any, rows: list[dict[str, Any]]) -> None:
    for way, color in COLORS.items():
        told = [row["wrong"][way] for row in rows]
        rates = np.array([100 * one["rate"] for one in told])
        reach = np.array([[100 * (one["rate"] - one["low"]), 100 * (one["high"] - one["rate"])] for one in told]).T
        axes.errorbar(
            range(len(rows)), rates, yerr=reach.clip(0), fmt=".", color=color, label=WAYS[way], elinewidth=0.8
        )
    axes.axhline(100 * ALPHA, color="black", linewidth=0.8, linestyle="--")
    axes.set_yscale("symlog", linthresh=5)
    axes.set_yticks([0, 5, 10, 50, 100], ["0", "5", "10", "50", "100"])
    axes.set_xticks([])
    axes.set_xlabel(f"{len(rows)} kinds of experiments, in the order of bench_verdict.json", fontsize=9)
    axes.set_ylabel("% with a false “supported”")
    axes.set_title(f"{ATTEMPTS} attempts without any gain: experiments that claim one", fontsize=10)
    axes.legend(fontsize=8, ncols=3, loc="upper left")


def _draw_power(axes: Any, rows: list[dict[str, Any]]) -> None:
    for way, color in COLORS.items():
        axes.plot([row["gain"] for row in rows], [100 * row["found"][way]["rate"] for row in rows], ".-", color=color)
    axes.axhline(100 * ALPHA, color="black", linewidth=0.5, linestyle="--")
    axes.set_ylim(-2, 102)
    axes.set_xlabel("true gain of accuracy", fontsize=8)
    axes.set_ylabel("% found", fontsize=8)


if __name__ == "__main__":
    main()
