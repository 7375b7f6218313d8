"""The rules: each looks at what is known of one result and names a condition, or nothing.

Every threshold stands beside its reason. benchmarks/bench_diagnosis.py injects faults into real trainings and counts
what is found, and what is found in healthy ones. A rule that lacks a fact is silent, and `unknown` tells which do.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from basekamp.diagnosis.data_health import DataHealth
from basekamp.diagnosis.network_health import NetworkHealth
from basekamp.naming import Value
from basekamp.records.record import Record

Severity = Literal["critical", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "note")

FEW_EPOCHS = 4
"""With fewer a curve has no shape."""
MOST_GRADIENT = 20.0
"""Root mean square over a layer of an untrained network; healthy ones stay below 1."""
SMALL_RATE = 1e-4
"""Below it a network that does not move is taken to be slow, not stuck."""


@dataclass(frozen=True)
class Finding:
    """One condition: what was seen, and the next idea as settings that differ from this result's, with its reason."""

    condition: str
    severity: Severity
    sentence: str
    evidence: dict[str, float]
    hypothesis: str
    settings: dict[str, Value] = field(default_factory=dict)
    rows: tuple[int, ...] = ()


@dataclass(frozen=True)
class Case:
    """What is known of one result; curves are means over the replicates."""

    record: Record

    @property
    def data(self) -> DataHealth | None:
        """Facts of the data set."""
        return self.record.ladder.health if self.record.ladder else None

    @property
    def network(self) -> NetworkHealth | None:
        """Facts of the networks."""
        return self.record.network

    def curve(self, name: str) -> list[float]:
        """The mean over the replicates, as far as all of them went."""
        curves = [getattr(one.curves, name) for one in self.record.training.replicates]
        return [sum(values) / len(values) for values in zip(*curves, strict=False)]

    @property
    def untrained_loss(self) -> float | None:
        """What the training loss begins with: the untrained network's, or the variance of a standardised target."""
        if self.record.data.task == "regression":
            return 1.0
        return next(iter(self.curve("validation_loss")), None)

    def setting(self, name: str, default: float) -> float:
        """A numeric setting of the result."""
        value = self.record.params.get(name, default)
        return float(value) if isinstance(value, int | float) else default

    @property
    def score_name(self) -> str:
        """The metric in which the rungs of the ladder are compared: accuracy or R²."""
        return "r2" if self.record.data.task == "regression" else "accuracy"

    @property
    def lag(self) -> float | None:
        """How far the result lies behind the best rung of its ladder; None without one."""
        ladder, name = self.record.ladder, self.score_name
        if ladder is None or name not in self.record.evaluation.metrics:
            return None
        best = max(rung.metrics[name] for rung in ladder.rungs if name in rung.metrics)
        return best - self.record.evaluation.metrics[name]


Rule = Callable[[Case], "Finding | None"]


def diagnose(case: Case) -> list[Finding]:
    """Every condition that a rule finds, the worst first."""
    found = [finding for rule in RULES.values() if (finding := rule(case)) is not None]
    named = {finding.condition for finding in found}
    found = [one for one in found if not SILENCED_BY.get(one.condition, set()) & named]
    return sorted(found, key=lambda one: SEVERITIES.index(one.severity))


def unknown(case: Case) -> list[str]:
    """The conditions that nobody can tell of this result, for a fact is missing."""
    return [name for name, needs in NEEDS.items() if not needs(case)]


def _divergence(case: Case) -> Finding | None:
    lost = sum(one.ended == "diverged" for one in case.record.training.replicates)
    if not lost:
        return None
    lr = case.setting("lr", 0.0)
    return Finding(
        "divergence",
        "critical",
        f"{lost} of {len(case.record.training.replicates)} seeds diverged: the loss was no finite number at lr {lr:g}.",
        {"diverged": lost, "lr": lr},
        "The steps are too large; a tenth of the rate and clipped gradients keep the loss finite.",
        {"lr": lr / 10, "clip_norm": 1.0} if lr else {},
    )


def _lr_too_high(case: Case) -> Finding | None:
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
        f"At lr {lr:g} the training loss rose in {rises:.0%} of the first epochs, and up to {blown:.1f} times the "
        "untrained network's.",
        {"rises": rises, "highest": blown, "lr": lr},
        "The steps jump over the valley; a tenth of the rate falls into it.",
        {"lr": lr / 10},
    )


def _lr_too_low(case: Case) -> Finding | None:
    losses, start, lr = case.curve("train_loss"), case.untrained_loss, case.setting("lr", 0.0)
    if len(losses) < FEW_EPOCHS or not start or not lr or _is_early(case):
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
        f"At lr {lr:g} the training loss had come to {left:.0%} of the untrained network's when the epochs ended, "
        "and was " + ("still falling steadily." if is_steady else "hardly moving."),
        {"left": left, "late_over_early": late / early if early else 0.0, "lr": lr},
        "The steps are too small for these epochs; ten times the rate gets there.",
        {"lr": min(10 * lr, 1.0)},
    )


def _plateau(case: Case) -> Finding | None:
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
        f"In the second half the training loss moved by {moved:.1%} only, though the network knows "
        f"{case.network.score:.0%} of what there is to know.",
        {"moved": moved, "score": case.network.score},
        "It sits where gradients are flat; one-cycle rates with warm-up leave such places.",
        {"schedule": "one_cycle", "warmup": 0.2},
    )


def _underfitting(case: Case) -> Finding | None:
    network, lag = case.network, case.lag
    if network is None or network.score is None or lag is None:
        return None
    gap = network.score - network.validation_score
    if lag < 0.03 or network.score > 0.9 or gap > 0.5 * (1 - network.score):
        return None
    return Finding(
        "underfitting",
        "warning",
        f"It is {lag:.3g} behind the best rung of the ladder and wrong on its own training rows too (score "
        f"{network.score:.2f}): it cannot express, or was not let to learn, what is there.",
        {"lag": lag, "train_score": network.score, "validation_score": network.validation_score},
        "A network with more room, less held back, learns what boosting found.",
        {"model": "mlp", "n_layers": 2, "width": 256, "weight_decay": 1e-5, "lr": 3e-3, "dropout": 0.0}
        if case.record.data.task
        else {},
    )


def _overfitting(case: Case) -> Finding | None:
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
        f"On training rows its score is {network.score:.2f}, on validation {network.validation_score:.2f}, and the "
        f"validation loss ended {rise:.2f} times its least.",
        {"gap": gap, "rise": rise},
        "It learns the rows by heart; dropout and more weight decay leave it only what rows share.",
        {"dropout": 0.3, "weight_decay": max(10 * decay, 1e-3)},
    )


def _dead(case: Case) -> Finding | None:
    if case.network is None or case.network.dead is None or case.network.dead < 0.5:
        return None  # a third of a layer is silent in healthy wide networks
    return Finding(
        "dead-units",
        "warning",
        f"{case.network.dead:.0%} of the units of a layer are 0 for every row: they learn no more.",
        {"dead": case.network.dead},
        "Units that leak never die.",
        {"act": "leaky_relu", "lr": case.setting("lr", 1e-3) / 3},
    )


def _saturated(case: Case) -> Finding | None:
    if case.network is None or case.network.saturated is None or case.network.saturated < 0.5:
        return None
    return Finding(
        "saturated-units",
        "warning",
        f"{case.network.saturated:.0%} of a layer's outputs lie at the ends of its activation, where gradients vanish.",
        {"saturated": case.network.saturated},
        "Smaller steps, and an activation without ends, keep units where they learn.",
        {"act": "gelu", "lr": case.setting("lr", 1e-3) / 10},
    )


def _gradient_span(case: Case) -> float | None:
    """Log10 of the first layer's gradient over the last one's, in the untrained network; None for fewer than 3."""
    layers = case.network.layers if case.network else []
    if len(layers) < 3 or not layers[-1].untrained_gradient:
        return None
    return math.log10(max(layers[0].untrained_gradient, 1e-300) / layers[-1].untrained_gradient)


def _vanishing(case: Case) -> Finding | None:
    span = _gradient_span(case)
    if span is None or span > -2.5:  # healthy ones, tables and images, lie between -1.5 and 1.5
        return None
    return Finding(
        "vanishing-gradients",
        "warning",
        f"Before training, the gradient of the first layer is 10^{span:.1f} of the last one's: the first layers hear "
        "nothing.",
        {"log10_first_over_last": span},
        "Fewer layers, of an activation whose slope is one, let the gradient through.",
        {"n_layers": 2, "act": "relu"},
    )


def _exploding(case: Case) -> Finding | None:
    span = _gradient_span(case)
    layers = case.network.layers if case.network else []
    largest = max((layer.untrained_gradient for layer in layers), default=0.0)
    if not layers or ((span is None or span < 2.5) and largest < MOST_GRADIENT):
        return None
    return Finding(
        "exploding-gradients",
        "warning",
        f"Before training, gradients grow up to {largest:.3g} on the way to the first layer.",
        {"largest": largest, "log10_first_over_last": span or 0.0},
        "Clipped gradients and fewer layers take steps of a sane length.",
        {"clip_norm": 1.0, "n_layers": 2},
    )


def _imbalance(case: Case) -> Finding | None:
    shares = case.data.class_shares if case.data else {}
    if len(shares) < 2:
        return None
    rarest = min(shares, key=lambda name: shares[name])
    fair = shares[rarest] * len(shares)
    if fair > 0.25:  # a class of a quarter of its fair share is what a mean over rows forgets
        return None
    return Finding(
        "class-imbalance",
        "warning",
        f"Class {rarest!r} is {shares[rarest]:.2%} of the training rows, {fair:.2f} of its fair share: accuracy hardly "
        "sees it.",
        {"share": shares[rarest], "of_fair_share": fair},
        "Judge by balanced_accuracy in an experiment of its own; label smoothing keeps the rare class in sight.",
        {"label_smoothing": 0.1},
    )


def _label_noise(case: Case) -> Finding | None:
    network = case.network
    if network is None or network.suspected_share is None:
        return None
    share = network.suspected_share
    error = 1.0 - case.record.evaluation.metrics.get("accuracy", 0.0)
    # In clean data few errors are confident ones; with noise most are.
    if share < 0.04 or share < 0.4 * error:
        return None
    return Finding(
        "label-noise",
        "warning",
        f"{share:.1%} of the validation labels are contradicted with confidence by all seeds together: look at these "
        "rows.",
        {"suspected_share": share, "error": error},
        "Labels are wrong now and then; smoothed ones are not believed too much.",
        {"label_smoothing": 0.1},
        tuple(network.suspects),
    )


def _shifted(case: Case) -> Finding | None:
    shift = case.data.shift if case.data else None
    if shift is None or shift.auc < max(0.6, 0.5 + 5 * shift.noise):
        return None
    return Finding(
        "train-validation-shift",
        "critical",
        f"A classifier tells training from validation rows (AUC {shift.auc:.2f}); {shift.column} differs most "
        f"(stability index {shift.stability_index:.2f}).",
        {"auc": shift.auc, "stability_index": shift.stability_index},
        f"Without {shift.column} the splits are alike (data: drop), or the split is to be drawn anew.",
    )


def _repeated(case: Case) -> Finding | None:
    if case.data is None:
        return None
    held = sum(count for name, count in case.record.data.rows.items() if name != "train")
    share = case.data.repeated / held if held else 0.0
    if share < 0.01:
        return None
    return Finding(
        "duplicates-across-splits",
        "critical" if share > 0.05 else "warning",
        f"{case.data.repeated} of {held} validation and test rows ({share:.1%}) are training rows as well: what is "
        "measured there was learned by heart.",
        {"repeated": case.data.repeated, "share": share},
        "Rows that belong together stay on one side with data: split: group.",
        rows=tuple(case.data.repeated_rows),
    )


def _leaking(case: Case) -> Finding | None:
    leak = case.data.leak if case.data else None
    if leak is None or leak.score < 0.95 or leak.score - leak.others < 0.15:
        return None
    return Finding(
        "leaking-feature",
        "critical",
        f"{leak.column} alone tells the target (score {leak.score:.3f}, the next column {leak.others:.3f}): will it be "
        "known when the model is used?",
        {"score": leak.score, "others": leak.others},
        f"Without {leak.column} (data: drop) the result is lower, and true.",
    )


def _too_little_data(case: Case) -> Finding | None:
    data = case.data
    if data is None or data.half is None or data.whole is None:
        return None
    gain = data.whole - data.half
    if gain < 0.03 or data.whole > 0.97:
        return None
    return Finding(
        "too-little-data",
        "warning",
        f"A linear model that learned from half of the {data.n_rows:,} rows reaches {data.half:.3f}, from all "
        f"{data.whole:.3f}: as many rows again would bring about as much.",
        {"gain_of_doubling": gain, "rows": data.n_rows},
        "More rows help more than any setting; until then hold the model back.",
        {"weight_decay": max(10 * case.setting("weight_decay", 1e-4), 1e-3)},
    )


def _starved(case: Case) -> Finding | None:
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
        f"The card waited for data {waiting:.0%} of the time"
        + (f" and was busy {used:.0f} % of it." if is_idle else "."),
        {"waiting": waiting} | ({"utilisation": used} if is_idle else {}),
        "Larger batches give the card enough to do; a learning rate that grows with them keeps the result.",
        {"batch_size": int(4 * case.setting("batch_size", 64)), "lr": 2 * case.setting("lr", 1e-3)},
    )


def _is_early(case: Case) -> bool:
    return any(one.ended == "early" for one in case.record.training.replicates)


RULES: dict[str, Rule] = {
    "divergence": _divergence,
    "learning-rate-too-high": _lr_too_high,
    "learning-rate-too-low": _lr_too_low,
    "plateau": _plateau,
    "underfitting": _underfitting,
    "overfitting": _overfitting,
    "dead-units": _dead,
    "saturated-units": _saturated,
    "vanishing-gradients": _vanishing,
    "exploding-gradients": _exploding,
    "class-imbalance": _imbalance,
    "label-noise": _label_noise,
    "train-validation-shift": _shifted,
    "duplicates-across-splits": _repeated,
    "leaking-feature": _leaking,
    "too-little-data": _too_little_data,
    "starved-gpu": _starved,
}
SILENCED_BY = {
    "underfitting": {"learning-rate-too-low", "plateau", "learning-rate-too-high"},
    "plateau": {"learning-rate-too-high", "learning-rate-too-low"},
}
"""What another condition explains is no finding of its own."""

_HAS_CURVES: Callable[[Case], bool] = lambda case: len(case.curve("train_loss")) >= FEW_EPOCHS  # noqa: E731
NEEDS: dict[str, Callable[[Case], bool]] = {
    **dict.fromkeys(("learning-rate-too-high", "learning-rate-too-low"), _HAS_CURVES),
    **dict.fromkeys(("plateau", "overfitting"), lambda case: _HAS_CURVES(case) and case.network is not None),
    "underfitting": lambda case: case.network is not None and case.lag is not None,
    "dead-units": lambda case: case.network is not None and case.network.dead is not None,
    "saturated-units": lambda case: case.network is not None and case.network.saturated is not None,
    **dict.fromkeys(("vanishing-gradients", "exploding-gradients"), lambda case: _gradient_span(case) is not None),
    "label-noise": lambda case: case.network is not None and case.network.suspected_share is not None,
    **dict.fromkeys(("class-imbalance", "duplicates-across-splits"), lambda case: case.data is not None),
    "train-validation-shift": lambda case: case.data is not None and case.data.shift is not None,
    "leaking-feature": lambda case: case.data is not None and case.data.leak is not None,
    "too-little-data": lambda case: case.data is not None and case.data.half is not None,
    "starved-gpu": lambda case: bool((ran := case.record.training.performance) and ran.device != "cpu"),
}


def as_attempt(finding: Finding) -> Iterator[str]:
    """The lines of an attempt to paste below `attempts:`; none where the next idea is no setting."""
    if finding.settings:
        yield f"  after-{finding.condition}:"
        yield f"    hypothesis: {finding.hypothesis}"
        yield "    expect: 0.01"
        yield from (f"    {key}: {_yaml(value)}" for key, value in finding.settings.items())


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:.6g}" if isinstance(value, float) else str(value)
