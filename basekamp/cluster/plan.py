"""From an experiment file to the values of one pipeline run."""

import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from basekamp import __version__
from basekamp.experiment import Experiment
from basekamp.hyperparameters import is_own_model
from basekamp.records.record import BASELINE


def pipeline_values(
    experiment: Experiment, attempt: str, *, store: str, data_fingerprint: str, gpus: str = "0"
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
        "data_fingerprint": data_fingerprint,
        "code_version": code_version(settings.model),
    }


def code_version(model: str) -> str:
    """The release and a digest of the code that runs: this package, and the module of a model of the user's own."""
    files = sorted(Path(__file__).parent.parent.rglob("*.py"))
    if is_own_model(model):
        files += _module_files(model.partition(":")[0])
    return f"{__version__}+{_digest(files)}"


def _module_files(module: str) -> list[Path]:
    """The Python files of a module's top-level package; the current directory counts as on the path."""
    top = module.partition(".")[0]
    sys.path.insert(0, str(Path.cwd()))
    try:
        spec = importlib.util.find_spec(top)
    finally:
        sys.path.pop(0)
    if spec is None:
        return []
    folders = [Path(folder) for folder in spec.submodule_search_locations or []]
    alone = [Path(spec.origin)] if spec.origin and not folders else []
    return alone + sorted(path for folder in folders for path in folder.rglob("*.py"))


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
