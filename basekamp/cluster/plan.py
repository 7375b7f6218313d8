"""From an experiment file to the values of one pipeline run."""

import json

from basekamp.experiment import Experiment
from basekamp.models.source import code_version
from basekamp.records.record import BASELINE

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
    data = experiment.data
    return {
        "experiment": experiment.experiment,
        "attempt": attempt,
        "hypothesis": asked.hypothesis if asked else "",
        "expect": asked.expect if asked else 0.0,
        "store": store,
        "metric": experiment.metric.name,
        "seeds": experiment.seeds,
        **settings.model_dump(exclude={"options"}),
        "options": json.dumps(settings.options),
        "source": data.source,
        "target": data.target,
        "task": data.task,
        "drop": list(data.drop),
        "rare": data.rare,
        "validation": data.split.validation,
        "test": data.split.test,
        "group": data.split.group,
        "gpus": gpus,
        **PLACEMENT,
        "evaluation_gpus": "0" if gpus == "0" else "1",
        "profile": profile,
        "image": image,
        "data_fingerprint": data_fingerprint,
        "code_version": code_version(settings.model),
    }
