"""The rules: each looks at what is known of one result and names a condition, or nothing.

Every threshold stands beside its reason, in the three modules of rules. benchmarks/bench_diagnosis.py injects faults
into real trainings and counts what is found, and what is found in healthy ones. A rule that lacks a fact is silent, and
`unknown` tells which do.
"""

from collections.abc import Callable

from basekamp.diagnosis import data_rules, network_rules, training_rules
from basekamp.diagnosis.finding import FEW_EPOCHS, SEVERITIES, Case, Finding

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


RULES: dict[str, Rule] = {
    "divergence": training_rules.divergence,
    "learning-rate-too-high": training_rules.learning_rate_too_high,
    "learning-rate-too-low": training_rules.learning_rate_too_low,
    "plateau": training_rules.plateau,
    "underfitting": training_rules.underfitting,
    "overfitting": training_rules.overfitting,
    "dead-units": network_rules.dead_units,
    "saturated-units": network_rules.saturated_units,
    "vanishing-gradients": network_rules.vanishing_gradients,
    "exploding-gradients": network_rules.exploding_gradients,
    "class-imbalance": data_rules.class_imbalance,
    "label-noise": network_rules.label_noise,
    "train-validation-shift": data_rules.shift,
    "duplicates-across-splits": data_rules.duplicates,
    "leaking-feature": data_rules.leak,
    "too-little-data": data_rules.too_little_data,
    "starved-gpu": training_rules.starved_gpu,
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
    **dict.fromkeys(("vanishing-gradients", "exploding-gradients"), lambda case: case.gradient_span is not None),
    "label-noise": lambda case: case.network is not None and case.network.suspected_share is not None,
    **dict.fromkeys(("class-imbalance", "duplicates-across-splits"), lambda case: case.data is not None),
    "train-validation-shift": lambda case: case.data is not None and case.data.shift is not None,
    "leaking-feature": lambda case: case.data is not None and case.data.leak is not None,
    "too-little-data": lambda case: case.data is not None and case.data.half is not None,
    "starved-gpu": lambda case: bool((ran := case.record.training.performance) and ran.device != "cpu"),
}
