"""The metrics by name and whether more of one is better; no numpy is needed to read this."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

Goal = Literal["maximize", "minimize"]

CLASSIFICATION_METRICS: Mapping[str, Goal] = MappingProxyType(
    {
        "accuracy": "maximize",
        "balanced_accuracy": "maximize",
        "f1": "maximize",
        "auc": "maximize",
        "loss": "minimize",
    }
)
REGRESSION_METRICS: Mapping[str, Goal] = MappingProxyType(
    {"rmse": "minimize", "mae": "minimize", "r2": "maximize", "loss": "minimize"}
)
METRICS: Mapping[str, Goal] = MappingProxyType({**CLASSIFICATION_METRICS, **REGRESSION_METRICS})

RESULT_KEYS = ("n", "spread", "difference", "low", "high", "verdict")
"""What a record's name tells beside hyperparameters and metrics."""

TRIAL_KEYS = ("trial", "round", "epochs", "seconds", "ended")
"""What the name of a sweep's trial tells beside them."""
