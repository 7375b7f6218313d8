"""How trained networks are: their units and gradients, layer by layer, on one bounded batch of training rows."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from basekamp.data.dataset import CountedIn, Dataset
from basekamp.data.leakage import score_of
from basekamp.document import load_document
from basekamp.evaluation.evaluate import Predictions
from basekamp.hyperparameters import Hyperparameters
from basekamp.training.results import Training

NETWORK_FILE = "network.json"
MOST_ROWS, MOST_SUSPECTS = 1024, 50
SATURATED = 0.98


class Layer(BaseModel):
    """One layer of weights, in the order of computation: the root mean square of its gradient."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    untrained_gradient: float
    gradient: float


class NetworkHealth(BaseModel):
    """Facts of one attempt's networks; of the first replicate where they are of one.

    score: on training rows, as in `score_of`; validation_score the same on validation. dead: the largest share of units
    of a layer that are 0 for every row; saturated: the largest share of a layer's outputs at the ends of a bounded
    activation. suspects: validation rows whose label all replicates together contradict with more confidence than they
    have in labels of that class, and their share of the split. None where it cannot be told.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    score: float | None
    validation_score: float
    layers: list[Layer]
    dead: float | None
    saturated: float | None
    suspects: list[int]
    counted_in: CountedIn = "validation"
    suspected_share: float | None


def examine_networks(data: Dataset, model: Path, predictions: Predictions) -> NetworkHealth:
    """Measure a model file and its predictions on validation. What a network of the user's own breaks is not told."""
    import torch

    from basekamp.evaluation.predict import predict
    from basekamp.models.build import build_model, fit_model
    from basekamp.training.model_file import load_models

    schema, task = data.schema, data.schema.task
    _, networks = load_models(model, torch.device("cpu"))
    settings = Hyperparameters.model_validate(Training.read(model.parent).hyperparameters)
    train = data.split("train")
    x, y = torch.tensor(np.asarray(train.x[:MOST_ROWS])), np.asarray(train.y[:MOST_ROWS])
    answers = predict(networks[0], x, schema)
    told = _layers(networks[0], lambda: build_model(settings, schema, fitted=fit_model(settings, data)), x, y, schema)
    suspects, share = _suspects(predictions) if task == "classification" else ([], None)
    return NetworkHealth(
        score=round(score_of(task, y, _decided(answers, task)), 6),
        validation_score=round(
            float(np.mean([score_of(task, predictions.targets, _decided(one, task)) for one in predictions.outputs])), 6
        ),
        suspects=data.split("validation").source_rows(suspects[:MOST_SUSPECTS]),
        counted_in=data.split("validation").counted_in,
        suspected_share=share,
        **told,
    )


def read_network_health(directory: Path) -> NetworkHealth | None:
    """Read what `evaluate_model` wrote beside the evaluation; None where it was not asked to."""
    path = directory / NETWORK_FILE
    return load_document(NetworkHealth, path) if path.is_file() else None


def _decided(outputs: Any, task: str) -> Any:
    return outputs.argmax(axis=-1) if task == "classification" else outputs


def _layers(network: Any, build_anew: Callable[[], Any], x: Any, y: Any, schema: Any) -> dict[str, Any]:
    """Units of the trained network, and gradients of it and of an untrained one."""
    import torch

    nothing: dict[str, Any] = {"layers": [], "dead": None, "saturated": None}
    weights = {name: weight for name, weight in network.named_parameters() if weight.dim() > 1}
    if not weights:
        return nothing
    try:
        units = _units(network, x)
        trained = _gradients(network, x, y, schema)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            untrained = _gradients(build_anew(), x, y, schema)
    except Exception:  # whatever a network of the user's own does here, its result stands
        return nothing
    layers = [Layer(name=name, untrained_gradient=untrained[name], gradient=trained[name]) for name in weights]
    return {"layers": layers, **units}


def _gradients(network: Any, x: Any, y: Any, schema: Any) -> dict[str, float]:
    import torch
    from torch.nn import functional

    weights = {name: weight for name, weight in network.named_parameters() if weight.dim() > 1}
    network.train()
    outputs = network(x).float()
    if schema.task == "classification":
        loss = functional.cross_entropy(outputs, torch.as_tensor(y))
    else:
        target = (torch.as_tensor(y) - schema.target_mean) / schema.target_std
        loss = functional.mse_loss(outputs[:, 0], target.float())
    gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    network.eval()
    return {
        name: 0.0 if one is None else _finite(float(one.double().pow(2).mean().sqrt()))
        for name, one in zip(weights, gradients, strict=True)
    }


def _units(network: Any, x: Any) -> dict[str, float | None]:
    """Shares over the activations of the network, each told from what it gives."""
    import torch
    from torch import nn

    dead: list[float] = []
    saturated: list[float] = []

    def look(module: nn.Module, _: Any, out: Any) -> None:
        values = out.detach().float()
        units = values.movedim(1, -1).reshape(-1, values.shape[1]) if values.dim() == 4 else values.flatten(1)
        if isinstance(module, nn.ReLU):
            dead.append(float((units == 0).all(dim=0).float().mean()))
        elif isinstance(module, nn.Tanh):
            saturated.append(float((units.abs() > SATURATED).float().mean()))
        elif isinstance(module, nn.Sigmoid):
            saturated.append(float(((2 * units - 1).abs() > SATURATED).float().mean()))

    handles = [module.register_forward_hook(look) for module in network.modules()]
    try:
        with torch.no_grad():
            network.eval()(x)
    finally:
        for handle in handles:
            handle.remove()
    return {
        "dead": round(max(dead), 6) if dead else None,
        "saturated": round(max(saturated), 6) if saturated else None,
    }


def _suspects(predictions: Predictions) -> tuple[list[int], float]:
    """Rows whose label is contradicted, the most confident first.

    Source: Northcutt, Jiang and Chuang, Confident Learning, 2021: a class is claimed where its probability is at least
    its mean over the rows that bear its label.
    """
    mean, y = predictions.outputs.mean(axis=0, dtype=np.float64), predictions.targets
    classes = np.unique(y)
    floors = np.full(mean.shape[1], np.inf)
    floors[classes] = [mean[y == one, one].mean() for one in classes]
    claimed = np.where(mean >= floors, mean, -1.0)
    claimed[np.arange(len(y)), y] = np.where(mean[np.arange(len(y)), y] >= floors[y], 2.0, -1.0)
    is_suspect = (claimed.max(axis=1) > 0) & (claimed.argmax(axis=1) != y)
    rows = np.flatnonzero(is_suspect)
    order = np.argsort(mean[rows, y[rows]], kind="stable")
    return rows[order].tolist(), round(float(is_suspect.mean()), 6)


def _finite(value: float) -> float:
    """Six digits; infinity as the largest number, for JSON has none."""
    return float(f"{value:.6g}") if math.isfinite(value) else 1e300
