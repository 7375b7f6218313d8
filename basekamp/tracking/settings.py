"""Which trackers a run is told to, and under which name: `tracking: mlflow` in the experiment file.

As a pipeline parameter it is a text, `mlflow,wandb:digits/wider`: trackers, experiment, attempt. It changes no result.
"""

import importlib.util
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from basekamp.attempt import is_name
from basekamp.errors import InputError
from basekamp.validation import did_you_mean, one_of, show

TRACKERS = {"mlflow": "mlflow", "wandb": "wandb"}
"""Each tracker and the package that reaches it; the extra of basekamp has the tracker's name."""

VARIABLE = "BASEKAMP_TRACKING"
NOBODY = "none"
PLACE_OF_NONE = ("basekamp", "run")
"""Experiment and run of a training that was not told its own."""


@dataclass(frozen=True)
class Tracking:
    """Trackers by name, none for no tracking, and what the run is called there."""

    trackers: tuple[str, ...] = ()
    experiment: str = PLACE_OF_NONE[0]
    attempt: str = PLACE_OF_NONE[1]

    def text(self) -> str:
        """The pipeline parameter that `read_tracking` reads; empty for no tracking."""
        return f"{','.join(self.trackers)}:{self.experiment}/{self.attempt}" if self.trackers else ""


def read_tracking(text: str) -> Tracking:
    """Read the pipeline parameter; `mlflow` alone is allowed as well.

    Raises InputError for a tracker that we do not know, or a name that is none.
    """
    names, _, place = text.partition(":")
    trackers = check_trackers(name.strip() for name in names.split(",") if name.strip())
    if not place:
        return Tracking(trackers)
    experiment, _, attempt = place.partition("/")
    if not (is_name(experiment) and is_name(attempt)):
        raise InputError(f"tracking={show(text)} is not allowed: use, say, mlflow or mlflow:digits/wider.")
    return Tracking(trackers, experiment, attempt)


def check_trackers(names: Iterable[str]) -> tuple[str, ...]:
    """Each tracker once, in order; raises InputError for one that we do not know."""
    found = tuple(dict.fromkeys(names))
    for name in found:
        if name not in TRACKERS:
            near = did_you_mean(name, TRACKERS)
            raise InputError(f"tracking={show(name)} is not allowed: {near}use {one_of(list(TRACKERS))}, or none.")
    return found


def chosen_trackers(of_file: Sequence[str]) -> tuple[str, ...]:
    """What the environment says in BASEKAMP_TRACKING (`none` for no tracker), else what the experiment file says."""
    said = os.environ.get(VARIABLE, "").strip()
    if not said:
        return check_trackers(of_file)
    return () if said == NOBODY else read_tracking(said.partition(":")[0]).trackers


def check_usable(trackers: Sequence[str]) -> None:
    """Raise InputError, before anything runs, where a package or the address of a tracker is missing here."""
    for name in trackers:
        if importlib.util.find_spec(TRACKERS[name]) is None:
            raise InputError(f"tracking: {name} needs a package that is not here: pip install 'basekamp[{name}]'.")
    if "mlflow" in trackers and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise InputError(
            "tracking: mlflow needs the address of its server: set MLFLOW_TRACKING_URI, such as http://localhost:5000."
        )


def is_wandb_offline() -> bool:
    """Whether W&B is to write to this disk alone."""
    return os.environ.get("WANDB_MODE", "").lower() in ("offline", "dryrun")
