"""From an experiment file to the values of one pipeline run."""

import json

from basekamp.errors import InputError
from basekamp.experiment import Experiment
from basekamp.hyperparameters import Hyperparameters
from basekamp.models.source import code_version
from basekamp.records.record import BASELINE
from basekamp.sweeps.settings import SWEEP
from basekamp.tracking.settings import Tracking, chosen_trackers

PLACEMENT: dict[str, object] = {
    "gpu_type": "nvidia.com/gpu",
    "evaluation_gpus": "0",
    "nodes": "1",
    "node_gpus": "0",
    "cpu": "1",
    "memory": "4Gi",
    "node_selector": {},
    "tolerations": [],
    "profile": False,
}
"""What a run asks of the cluster: no result depends on it but by rounding, so it is not in the experiment file."""

GPU_PACKS = 4
"""How many GPUs a sweep's trials take at once, unless `--set packs=` says otherwise."""


def pipeline_values(
    experiment: Experiment,
    attempt: str,
    *,
    store: str,
    data_fingerprint: str,
    gpus: str = "0",
    image: str = "",
    profile: bool = False,
) -> dict[str, object]:
    """Every parameter of train-and-compare for one attempt, or for "baseline", with nothing left to defaults."""
    asked = None if attempt == BASELINE else experiment.attempts[attempt]
    settings = experiment.hyperparameters(None if asked is None else attempt)
    return {
        "attempt": attempt,
        "hypothesis": asked.hypothesis if asked else "",
        "expect": asked.expect if asked else 0.0,
        **settings.model_dump(exclude={"options"}),
        "options": json.dumps(settings.options),
        **_common_values(experiment, settings, store=store, data_fingerprint=data_fingerprint, gpus=gpus, image=image),
        "profile": profile,
        "tracking": _tracking(experiment, attempt),
    }


def sweep_values(
    experiment: Experiment, *, store: str, data_fingerprint: str, gpus: str = "0", image: str = ""
) -> dict[str, object]:
    """Every parameter of the pipeline `sweep`, with nothing left to defaults; raises InputError without a sweep."""
    sweep = experiment.sweep
    if sweep is None:
        raise InputError(
            f"{experiment.experiment} has no sweep: add a block such as "
            "`sweep: {over: {lr: [1e-4, 3e-2, log]}, trials: 16, method: random}` to the file."
        )
    settings = experiment.sweep_start()
    return {
        "attempt": SWEEP,
        "hypothesis": sweep.told(),
        "expect": sweep.expect,
        "sweep": sweep.model_dump_json(),
        "settings": settings.model_dump_json(),
        "packs": 1 if gpus == "0" else GPU_PACKS,
        "tracking": _tracking(experiment, SWEEP),
        **_common_values(experiment, settings, store=store, data_fingerprint=data_fingerprint, gpus=gpus, image=image),
    }


def _tracking(experiment: Experiment, attempt: str) -> str:
    """Who is told of the run, and under which name."""
    return Tracking(chosen_trackers(experiment.tracking), experiment.experiment, attempt).text()


def _common_values(
    experiment: Experiment, settings: Hyperparameters, *, store: str, data_fingerprint: str, gpus: str, image: str
) -> dict[str, object]:
    """What both pipelines take: the question, the data and the place."""
    data = experiment.data
    return {
        "experiment": experiment.experiment,
        "store": store,
        "metric": experiment.metric.name,
        "seeds": experiment.seeds,
        "source": data.source,
        "target": data.target,
        "task": data.task,
        "drop": list(data.drop),
        "rare": data.rare,
        "validation": data.split.validation,
        "test": data.split.test,
        "group": data.split.group,
        "time": data.split.time,
        "data_version": data.version,
        "checks": data.checks,
        "reading": data.reading.model_dump(mode="json", exclude_defaults=True),
        "gpus": gpus,
        **PLACEMENT,
        "evaluation_gpus": "0" if gpus == "0" else "1",
        "image": image,
        "data_fingerprint": data_fingerprint,
        "code_version": code_version(settings.model),
    }
