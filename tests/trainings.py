"""What tests of training share: a training, what it leaves, and a model of a user's own."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from basekamp.data.dataset import Dataset
from basekamp.evaluation.goals import METRICS
from basekamp.evaluation.predict import predict
from basekamp.hyperparameters import Hyperparameters
from basekamp.training.model_file import load_models
from basekamp.training.results import Replicate, Training
from basekamp.training.train import train_model

CPU = torch.device("cpu")
HOW = ("processes", "store", "checkpoint_seconds", "gpus", "first_seed", "profile", "tracking")


def train(dataset: Path, directory: Path, *, metric: str = "accuracy", seeds: int = 1, **settings: object) -> Training:
    """Train three epochs, unless the settings say otherwise; how it is run may stand among them."""
    how = {key: settings.pop(key) for key in HOW if key in settings}
    values = Hyperparameters.from_mapping({"n_epochs": 3, "lr": 0.01, **settings})
    return train_model(dataset, directory, values, metric=metric, seeds=seeds, **how)


def results(directory: Path) -> tuple[bytes, bytes]:
    """The model's bytes and the training's, without what no two runs share: times and the performance."""
    told = json.loads((directory / "training.json").read_bytes())
    del told["performance"]
    for replicate in told["replicates"]:
        del replicate["seconds"]
    return (directory / "model.pth").read_bytes(), json.dumps(told).encode()


def predictions(data: Dataset, directory: Path, split: str = "validation") -> list[np.ndarray]:
    schema, models = load_models(directory / "model.pth", CPU)
    return [predict(model, torch.tensor(data.split(split).x), schema) for model in models]


def ranks(replicate: Replicate, metric: str) -> list[tuple[float, float]]:
    """The higher, the better: metric first, then loss."""
    sign = 1 if METRICS[metric] == "maximize" else -1
    curves = replicate.curves
    return [(sign * value, -loss) for value, loss in zip(curves.validation_metric, curves.validation_loss, strict=True)]


def write_own_model(monkeypatch: pytest.MonkeyPatch, folder: Path, module: str, network: str, before: str = "") -> None:
    """Write `module:build` into the folder, make that the current one, and forget an earlier import."""
    source = f"import torch\nfrom torch import nn\n{before}\ndef build(input_shape, n_outputs, **options):\n"
    (folder / f"{module}.py").write_text(f"{source}    return {network}\n")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, module, raising=False)
