"""Whether two samples are of one distribution: all columns together, and each alone.

n rows, d columns.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_ROWS = 2000
FEWEST_ROWS = 20
LARGE_INDEX = 0.25
CLEAR_AUC, DEVIATIONS = 0.6, 5


def separability(one: NDArray[Any], other: NDArray[Any]) -> tuple[float, float] | None:
    """How well a classifier tells their rows [n, d] apart: AUC on rows it did not see, and its deviation by chance.

    Two-fold: each half is judged by the classifier that learned from the other. The first 2,000 rows of each count; the
    rows of each are in random order. None for too few rows.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score

    size = min(len(one), len(other), MOST_ROWS)
    if size < FEWEST_ROWS:
        return None
    x = np.concatenate([one[:size], other[:size]])
    side = np.repeat([0, 1], size)
    fold = np.arange(2 * size) % 2
    told = np.empty(2 * size)
    for held in (0, 1):
        model = HistGradientBoostingClassifier(max_iter=30, max_depth=3, early_stopping=False, random_state=0)
        told[fold == held] = model.fit(x[fold != held], side[fold != held]).predict_proba(x[fold == held])[:, 1]
    noise = math.sqrt((2 * size + 1) / (12 * size * size))  # of an AUC without any shift: Mann and Whitney, 1947
    return round(float(roc_auc_score(side, told)), 6), round(noise, 6)


def is_apart(auc: float, noise: float) -> bool:
    """Whether rows that are told apart so well are of two distributions: beyond chance, and far enough to matter."""
    return auc >= max(CLEAR_AUC, 0.5 + DEVIATIONS * noise)


def stability_index(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The population stability index of two rows of counts: sum of (p - q) ln(p / q); half a row is added to each."""
    shares = [(counts + 0.5) / (counts.sum() + 0.5 * len(counts)) for counts in (one, other)]
    return float(np.sum((shares[0] - shares[1]) * np.log(shares[0] / shares[1])))


def chance_index(n_bins: int, n_one: int, n_other: int, *, probability: float) -> float:
    """What the index of two samples of one distribution exceeds with that probability; it is about chi-square."""
    from scipy.stats import chi2

    return float(chi2.isf(probability, n_bins - 1) * (1 / n_one + 1 / n_other))
