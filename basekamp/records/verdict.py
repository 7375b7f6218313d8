"""The hypothesis against the evidence: difference, interval and verdict.

Three things make a measured difference uncertain: the seeds of the attempt, those of the baseline, and the examples it
was measured on. Their variances are estimated apart. Seeds: the sample variance over replicates. Examples: the
delete-a-group jackknife over the examples that baseline and attempt share, so any metric will do, and what the two get
wrong alike cancels out; rows that belong together (`split.group`) are left out together. What seeds and examples do
together is in both, which errs on the wide side.

The half-width is the root of the sum of the squares of what each would have alone, each with its own t-quantile. At any
ratio of the three variances, known to nobody, such an interval holds at least as often as it says where means of seeds
are normal (Banerjee: the chance is a concave function of a weighted mean of the squared t-ratios). One variance for all
with degrees of freedom by Welch and Satterthwaite does not: a few seeds that come out alike by luck hide their noise
and borrow the many degrees of freedom of the examples. benchmarks/bench_verdict.py measures both.

Sources: Shao and Tu, The Jackknife and Bootstrap, 1995, section 2.3 (grouped jackknife); Banerjee, Sankhya 22, 1960
(intervals for linear functions of means of k populations with unequal variances).
"""

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from basekamp.errors import InputError
from basekamp.evaluation.evaluate import Predictions, mean_and_variance
from basekamp.evaluation.goals import METRICS
from basekamp.evaluation.metrics import metric_value

Verdict = Literal["supported", "refuted", "inconclusive"]
ALPHA = 0.05
GROUPS = 100
MOST_SEEDS = 1000
SMALLEST_SHARE = 0.5
_SUREST = 1 - 1e-9
_STEP = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no multiple below 2^64 meets another


class Difference(BaseModel):
    """Attempt minus baseline in the metric's own unit, with its two sources of variance.

    variance_examples has groups - 1 degrees of freedom. variance_seeds_*: of the mean over that side's replicates;
    0 for a single one, whose noise nobody knows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    value: float
    n_examples: int
    groups: int
    n_seeds: tuple[int, int]
    variance_examples: float
    variance_seeds_attempt: float
    variance_seeds_baseline: float

    @property
    def gain(self) -> float:
        """The difference, positive when the attempt is better."""
        return self.value if METRICS[self.metric] == "maximize" else -self.value

    def interval(self, level: float = 1 - ALPHA) -> tuple[float, float]:
        """The two-sided interval of the difference at a confidence level."""
        half = self.half_width(level)
        return self.value - half, self.value + half

    def half_width(self, level: float, *, seeds_attempt: int | None = None) -> float:
        """Half the interval's width, with other numbers of attempt seeds if asked."""
        return float(self.half_widths(level, np.array([seeds_attempt or self.n_seeds[0]]))[0])

    def probability_better(self) -> float:
        """How probable it is that the attempt is better: 0.975 where the interval at 95 % just leaves zero behind.

        It is half the confidence level at which the interval's end touches zero, and a half: the one-sided reading of
        the same intervals that verdicts rest on. NaN when nothing varies and nothing differs.
        """
        from scipy.optimize import brentq

        size = abs(self.gain)
        if self.half_width(_SUREST) <= size:
            level = _SUREST if size else math.nan
        else:
            level = float(brentq(lambda level: self.half_width(level) - size, 0.0, _SUREST))
        return 0.5 + math.copysign(level / 2, self.gain)

    def half_widths(self, level: float, seeds: NDArray[np.int64]) -> NDArray[np.float64]:
        """Half the interval's width for each of several numbers of attempt seeds."""
        of_attempt = self.variance_seeds_attempt * self.n_seeds[0] / seeds
        parts = (_reach(of_attempt, seeds - 1, level), self.reach_of_baseline(level), self.reach_of_examples(level))
        widths: NDArray[np.float64] = np.sqrt(sum(part**2 for part in parts))
        return widths

    def reach_of_baseline(self, level: float) -> float:
        """Half the width that the baseline's seeds alone would give."""
        return float(_reach(self.variance_seeds_baseline, self.n_seeds[1] - 1, level))

    def reach_of_examples(self, level: float) -> float:
        """Half the width that the examples alone would give."""
        return float(_reach(self.variance_examples, self.groups - 1, level))


class Comparison(BaseModel):
    """An attempt judged against the baseline. Differences and intervals are attempt minus baseline.

    interval: at 95 %. judged_interval: at `level`, which is stricter by the attempts judged before; it decides.
    seeds_needed: how many replicates of the attempt would decide an inconclusive verdict; None when it is
    decided, or when more seeds cannot decide it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    baseline: str
    baseline_mean: float
    attempt_mean: float
    difference: Difference
    interval: tuple[float, float]
    judged_before: int
    level: float
    judged_interval: tuple[float, float]
    expect: float
    verdict: Verdict
    seeds_needed: int | None
    sentence: str


def _reach(variance: Any, degrees: Any, level: float) -> Any:
    """Half the width of Student's interval, of one variance or of several."""
    from scipy.special import stdtrit

    return stdtrit(np.maximum(degrees, 1), 0.5 + level / 2) * np.sqrt(variance)


def level_of_look(judged_before: int) -> float:
    """The confidence level of a look at the evidence after others: errors of 0.05 / (j (j + 1)) add up to 0.05."""
    j = judged_before + 1
    return 1 - ALPHA / (j * (j + 1))


def judge(difference: Difference, *, expect: float, judged_before: int) -> tuple[Verdict, float]:
    """Give the verdict and the confidence level it was reached at.

    supported: the interval excludes zero and the gain is at least `expect`. refuted: the interval excludes a gain
    of `expect`. Else inconclusive. The j-th attempt of an experiment is judged at an error of
    0.05 / (j (j + 1)), which adds up to 0.05 however many follow.
    """
    level = level_of_look(judged_before)
    half = difference.half_width(level)
    if difference.gain - half > 0 and difference.gain >= expect:
        return "supported", level
    return ("refuted" if difference.gain + half < expect else "inconclusive"), level


def seeds_needed(difference: Difference, *, expect: float, level: float) -> int | None:
    """The fewest replicates of the attempt that would decide, were all estimates exact; None when none would."""
    margin = difference.gain if difference.gain >= expect else expect - difference.gain
    seeds = np.arange(difference.n_seeds[0] + 1, MOST_SEEDS + 1)
    enough = seeds[difference.half_widths(level, seeds) < margin]
    return int(enough[0]) if len(enough) else None


def measure_difference(metric: str, attempt: Predictions, baseline: Predictions) -> Difference:
    """Measure attempt minus baseline on the examples that both were evaluated on, in whatever order.

    Raises InputError when they share fewer than half of them, or fewer than two.
    """
    rows, of_attempt, of_baseline = np.intersect1d(
        _told_apart(attempt.rows), _told_apart(baseline.rows), assume_unique=True, return_indices=True
    )
    if len(rows) < max(2, SMALLEST_SHARE * max(len(attempt.rows), len(baseline.rows))):
        raise InputError(
            f"the baseline was measured on other examples ({len(rows)} of {len(attempt.rows)} are shared, at least "
            "half must be): give the changed data an experiment name of its own."
        )
    targets = attempt.targets[of_attempt]
    ours, theirs = attempt.outputs[:, of_attempt], baseline.outputs[:, of_baseline]
    groups = _groups(targets) if attempt.groups is None else _whole_groups(attempt.groups[of_attempt], targets)
    means, variances = zip(*(_over_seeds(metric, targets, outputs) for outputs in (ours, theirs)), strict=True)
    without = np.array(
        [
            _gap(metric, targets[groups != g], ours[:, groups != g], theirs[:, groups != g])
            for g in range(groups.max() + 1)
        ]
    )
    return Difference(
        metric=metric,
        value=means[0] - means[1],
        n_examples=len(rows),
        groups=len(without),
        n_seeds=(len(ours), len(theirs)),
        variance_examples=float((len(without) - 1) / len(without) * np.sum((without - without.mean()) ** 2)),
        variance_seeds_attempt=variances[0],
        variance_seeds_baseline=variances[1],
    )


def _told_apart(rows: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Make each hash [n] unique: examples that differ in dropped columns alone share one."""
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    nth = np.empty_like(rows)
    nth[order] = np.arange(len(rows)) - np.searchsorted(ordered, ordered)
    return rows + nth * _STEP


def _groups(targets: NDArray[Any]) -> NDArray[np.int64]:
    """Deal rows (already in the random order of their hashes) into up to 100 groups, each class evenly."""
    number = min(GROUPS, len(targets))
    groups = np.empty(len(targets), dtype=np.int64)
    groups[np.argsort(targets, kind="stable")] = np.arange(len(targets)) % number
    return groups


def _whole_groups(belongs: NDArray[np.uint64], targets: NDArray[Any]) -> NDArray[np.int64]:
    """Deal whole groups of rows, in the random order of their hashes; groups of one row each are dealt as rows are."""
    which = np.unique(belongs, return_inverse=True)[1]
    number = int(which.max()) + 1
    if number == len(targets):
        return _groups(targets)
    if number < 2:
        raise InputError(
            "all shared validation examples are of one group, at least 2 groups are needed to tell how much another "
            "would differ: give the changed data an experiment name of its own."
        )
    return which % min(GROUPS, number)


def _over_seeds(metric: str, targets: NDArray[Any], outputs: NDArray[np.float32]) -> tuple[float, float]:
    """Mean over replicates, and the variance of that mean."""
    mean, variance = mean_and_variance(np.array([metric_value(metric, targets, one) for one in outputs]))
    return float(mean), float(variance) / len(outputs)


def _gap(metric: str, targets: NDArray[Any], ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    return _over_seeds(metric, targets, ours)[0] - _over_seeds(metric, targets, theirs)[0]
