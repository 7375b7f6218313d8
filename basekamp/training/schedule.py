"""The learning rate over a training, as a share of its highest value."""

import math

from basekamp.hyperparameters import Hyperparameters

ONE_CYCLE_RISE = 0.3


def learning_rate(hyperparameters: Hyperparameters, progress: float) -> float:
    """The learning rate after the share `progress` (0 to 1) of all steps.

    It rises in a straight line over the share `warmup`, 0.3 of a one_cycle that names none, then follows the schedule.

    Sources: Loshchilov and Hutter, SGDR, 2016, equation 5 without restarts (cosine); Smith and Topin,
    Super-Convergence, 2017 (one_cycle, here with a cosine fall to 0).
    """
    return hyperparameters.lr * rate_factor(hyperparameters, progress)


def rate_factor(hyperparameters: Hyperparameters, progress: float) -> float:
    """The learning rate as a share of `lr`."""
    rise = hyperparameters.warmup
    if hyperparameters.schedule == "one_cycle" and not rise:
        rise = ONE_CYCLE_RISE
    if progress < rise:
        return progress / rise
    if hyperparameters.schedule == "constant":
        return 1.0
    return 0.5 * (1.0 + math.cos(math.pi * (progress - rise) / (1.0 - rise)))
