"""What units, gradients and confident answers of trained networks tell."""

from basekamp.diagnosis.finding import Case, Finding
from basekamp.language import gettext

MOST_GRADIENT = 20.0
"""Root mean square over a layer of an untrained network; healthy ones stay below 1."""


def dead_units(case: Case) -> Finding | None:
    """Units that are silent for every row."""
    if case.network is None or case.network.dead is None or case.network.dead < 0.5:
        return None  # a third of a layer is silent in healthy wide networks
    return Finding(
        "dead-units",
        "warning",
        gettext(
            "{share} of the units of a layer are 0 for every row: they learn no more.", share=f"{case.network.dead:.0%}"
        ),
        {"dead": case.network.dead},
        gettext("Units that leak never die."),
        {"act": "leaky_relu", "lr": case.setting("lr", 1e-3) / 3},
    )


def saturated_units(case: Case) -> Finding | None:
    """Outputs at the ends of a bounded activation."""
    if case.network is None or case.network.saturated is None or case.network.saturated < 0.5:
        return None
    return Finding(
        "saturated-units",
        "warning",
        gettext(
            "{share} of a layer's outputs lie at the ends of its activation, where gradients vanish.",
            share=f"{case.network.saturated:.0%}",
        ),
        {"saturated": case.network.saturated},
        gettext("Smaller steps, and an activation without ends, keep units where they learn."),
        {"act": "gelu", "lr": case.setting("lr", 1e-3) / 10},
    )


def vanishing_gradients(case: Case) -> Finding | None:
    """First layers that hear nothing."""
    span = case.gradient_span
    if span is None or span > -2.5:  # healthy ones, tables and images, lie between -1.5 and 1.5
        return None
    return Finding(
        "vanishing-gradients",
        "warning",
        gettext(
            "Before training, the gradient of the first layer is 10^{span} of the last one's: the first layers hear "
            "nothing.",
            span=f"{span:.1f}",
        ),
        {"log10_first_over_last": span},
        gettext("Fewer layers, of an activation whose slope is one, let the gradient through."),
        {"n_layers": 2, "act": "relu"},
    )


def exploding_gradients(case: Case) -> Finding | None:
    """Gradients that grow on the way to the first layer."""
    span = case.gradient_span
    layers = case.network.layers if case.network else []
    largest = max((layer.untrained_gradient for layer in layers), default=0.0)
    if not layers or ((span is None or span < 2.5) and largest < MOST_GRADIENT):
        return None
    return Finding(
        "exploding-gradients",
        "warning",
        gettext(
            "Before training, gradients grow up to {largest} on the way to the first layer.", largest=f"{largest:.3g}"
        ),
        {"largest": largest, "log10_first_over_last": span or 0.0},
        gettext("Clipped gradients and fewer layers take steps of a sane length."),
        {"clip_norm": 1.0, "n_layers": 2},
    )


def label_noise(case: Case) -> Finding | None:
    """Labels that all replicates contradict."""
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
        gettext(
            "{share} of the validation labels are contradicted with confidence by all seeds together: look at these "
            "rows.",
            share=f"{share:.1%}",
        ),
        {"suspected_share": share, "error": error},
        gettext("Labels are wrong now and then; smoothed ones are not believed too much."),
        {"label_smoothing": 0.1},
        tuple(network.suspects),
        network.counted_in,
    )
