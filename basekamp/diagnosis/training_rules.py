"""What the curves, the scores and the clock of a training tell."""

import math

from basekamp.diagnosis.finding import FEW_EPOCHS, Case, Finding
from basekamp.language import gettext

SMALL_RATE = 1e-4
"""Below it a network that does not move is taken to be slow, not stuck."""


def divergence(case: Case) -> Finding | None:
    """Seeds whose loss was no finite number."""
    lost = sum(one.ended == "diverged" for one in case.record.training.replicates)
    if not lost:
        return None
    lr = case.setting("lr", 0.0)
    return Finding(
        "divergence",
        "critical",
        gettext(
            "{lost} of {n} seeds diverged: the loss was no finite number at lr {lr}.",
            lost=lost,
            n=len(case.record.training.replicates),
            lr=f"{lr:g}",
        ),
        {"diverged": lost, "lr": lr},
        gettext("The steps are too large; a tenth of the rate and clipped gradients keep the loss finite."),
        {"lr": lr / 10, "clip_norm": 1.0} if lr else {},
    )


def learning_rate_too_high(case: Case) -> Finding | None:
    """A training loss that jumps, or climbs above the untrained network."""
    losses, untrained = case.curve("train_loss"), case.untrained_loss
    if len(losses) < FEW_EPOCHS or not untrained:
        return None
    first = losses[: max(FEW_EPOCHS, len(losses) // 2)]  # a schedule that falls hides it later
    rises = sum(b > 1.05 * a for a, b in zip(first, first[1:], strict=False)) / (len(first) - 1)
    blown = max(losses[1:]) / untrained
    if rises < 0.3 and blown < 1.5:  # a healthy loss rises in fewer epochs and never above the untrained network's
        return None
    lr = case.setting("lr", 0.0)
    return Finding(
        "learning-rate-too-high",
        "critical" if blown >= 1.5 else "warning",
        gettext(
            "At lr {lr} the training loss rose in {rises} of the first epochs, and up to {blown} times the untrained "
            "network's.",
            lr=f"{lr:g}",
            rises=f"{rises:.0%}",
            blown=f"{blown:.1f}",
        ),
        {"rises": rises, "highest": blown, "lr": lr},
        gettext("The steps jump over the valley; a tenth of the rate falls into it."),
        {"lr": lr / 10},
    )


def learning_rate_too_low(case: Case) -> Finding | None:
    """A training loss that was still on its way when the epochs ended."""
    losses, start, lr = case.curve("train_loss"), case.untrained_loss, case.setting("lr", 0.0)
    if len(losses) < FEW_EPOCHS or not start or not lr or case.ended_early:
        return None
    half = len(losses) // 2
    early, late, left = losses[0] - losses[half], losses[half] - losses[-1], losses[-1] / start
    # Steady: the second half, where the schedule has all but ended, still brought a fifth of what the first did.
    is_steady = late >= 0.2 * early and early + late > 0.01 * start
    is_still = abs(early + late) < 0.05 * start and lr < SMALL_RATE
    if left < 0.3 or not (is_steady or is_still):
        return None
    return Finding(
        "learning-rate-too-low",
        "warning",
        gettext(
            "At lr {lr} the training loss had come to {left} of the untrained network's when the epochs ended, and was "
            "still falling steadily."
            if is_steady
            else "At lr {lr} the training loss had come to {left} of the untrained network's when the epochs ended, "
            "and was hardly moving.",
            lr=f"{lr:g}",
            left=f"{left:.0%}",
        ),
        {"left": left, "late_over_early": late / early if early else 0.0, "lr": lr},
        gettext("The steps are too small for these epochs; ten times the rate gets there."),
        {"lr": min(10 * lr, 1.0)},
    )


def plateau(case: Case) -> Finding | None:
    """A network that learns nothing, though there is something to learn."""
    losses, start = case.curve("train_loss"), case.untrained_loss
    if len(losses) < FEW_EPOCHS or not start or case.network is None or case.network.score is None:
        return None
    half = losses[len(losses) // 2 :]
    moved = (max(half) - min(half)) / start
    if moved > 0.02 or case.network.score > 0.3 or (case.lag or 0.0) < 0.1:
        return None
    return Finding(
        "plateau",
        "warning",
        gettext(
            "In the second half the training loss moved by {moved} only, though the network knows {score} of what "
            "there is to know.",
            moved=f"{moved:.1%}",
            score=f"{case.network.score:.0%}",
        ),
        {"moved": moved, "score": case.network.score},
        gettext("It sits where gradients are flat; one-cycle rates with warm-up leave such places."),
        {"schedule": "one_cycle", "warmup": 0.2},
    )


def underfitting(case: Case) -> Finding | None:
    """Wrong on its own training rows, where another model is right."""
    network, lag = case.network, case.lag
    if network is None or network.score is None or lag is None:
        return None
    gap = network.score - network.validation_score
    if lag < 0.03 or network.score > 0.9 or gap > 0.5 * (1 - network.score):
        return None
    return Finding(
        "underfitting",
        "warning",
        gettext(
            "It is {lag} behind the best rung of the ladder and wrong on its own training rows too (score {score}): it "
            "cannot express, or was not let to learn, what is there.",
            lag=f"{lag:.3g}",
            score=f"{network.score:.2f}",
        ),
        {"lag": lag, "train_score": network.score, "validation_score": network.validation_score},
        gettext("A network with more room, less held back, learns what boosting found."),
        {"model": "mlp", "n_layers": 2, "width": 256, "weight_decay": 1e-5, "lr": 3e-3, "dropout": 0.0},
    )


def overfitting(case: Case) -> Finding | None:
    """Right on training rows, and on others not."""
    losses, network = case.curve("validation_loss")[1:], case.network
    if network is None or network.score is None or len(losses) < FEW_EPOCHS:
        return None
    gap = network.score - network.validation_score
    rise = losses[-1] / min(losses) if min(losses) > 0 else 1.0
    # Some gap is the price of learning anything: it counts where a third of what was learned does not hold.
    if gap < 0.12 or gap < 0.12 * network.score or (rise < 1.1 and gap < 0.3):
        return None
    decay = case.setting("weight_decay", 1e-4)
    return Finding(
        "overfitting",
        "warning",
        gettext(
            "On training rows its score is {score}, on validation {validation}, and the validation loss ended {rise} "
            "times its least.",
            score=f"{network.score:.2f}",
            validation=f"{network.validation_score:.2f}",
            rise=f"{rise:.2f}",
        ),
        {"gap": gap, "rise": rise},
        gettext("It learns the rows by heart; dropout and more weight decay leave it only what rows share."),
        {"dropout": 0.3, "weight_decay": max(10 * decay, 1e-3)},
    )


def starved_gpu(case: Case) -> Finding | None:
    """A card that waits."""
    ran = case.record.training.performance
    if ran is None or ran.device == "cpu" or ran.seconds.data is None or ran.seconds.compute is None:
        return None
    waiting = ran.seconds.data / (ran.seconds.data + ran.seconds.compute or 1.0)
    is_idle = ran.gpu_utilisation is not None and ran.gpu_utilisation < 40 and ran.seconds.compute > 5
    if waiting < 0.3 and not is_idle:
        return None
    used = ran.gpu_utilisation if ran.gpu_utilisation is not None else math.nan
    return Finding(
        "starved-gpu",
        "note",
        gettext(
            "The card waited for data {waiting} of the time and was busy {used} % of it."
            if is_idle
            else "The card waited for data {waiting} of the time.",
            waiting=f"{waiting:.0%}",
            used=f"{used:.0f}",
        ),
        {"waiting": waiting} | ({"utilisation": used} if is_idle else {}),
        gettext("Larger batches give the card enough to do; a learning rate that grows with them keeps the result."),
        {"batch_size": int(4 * case.setting("batch_size", 64)), "lr": 2 * case.setting("lr", 1e-3)},
    )
