"""From hyperparameters and a data set's schema to a network.

Shapes: n rows, d columns, c channels, h x w pixels, k outputs (classes, or 1 for regression).
Every network takes x as the data set holds it (uint8 [n, c, h, w] or float32 [n, d]) and gives
float [n, k]: logits, or the standardised target.
"""

import importlib
import inspect
import math
import os
import sys
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from basekamp.data.dataset import Dataset, Schema
from basekamp.errors import InputError
from basekamp.hyperparameters import CONSTANT_MODELS, Hyperparameters
from basekamp.models.inputs import FlatPixels, MixedColumns, NormalizedImage, OneHotColumns
from basekamp.models.layers import seed_dropouts
from basekamp.models.networks import Constant, ConvNet, Perceptron, ResNet
from basekamp.models.tabular import Tabular, bin_edges, no_edges
from basekamp.models.trees import TreeEnsemble


def n_outputs(schema: Schema) -> int:
    """Columns of a model's output: one per class, or 1 for regression."""
    return len(schema.classes) or 1


def fit_model(hyperparameters: Hyperparameters, data: Dataset) -> Tensor | None:
    """What a network is built with from the training split, before any training; None for most.

    A constant model's answer [k]: log class frequencies, or the standardised mean, 0. The borders of the bins of
    `tabular`, [numbers, bins - 1].
    """
    train, schema = data.split("train"), data.schema
    if hyperparameters.model == "tabular":
        return bin_edges(torch.from_numpy(train.x[:, : schema.n_numeric]))
    if hyperparameters.model not in CONSTANT_MODELS:
        return None
    if schema.task == "regression":
        return torch.zeros(1)
    counts = np.bincount(np.asarray(train.y), minlength=len(schema.classes))
    return torch.tensor(np.log(counts / counts.sum()), dtype=torch.float32)


def build_model(hyperparameters: Hyperparameters, schema: Schema, *, fitted: Tensor | None = None) -> nn.Module:
    """Build an untrained network; `fitted` is what `fit_model` gave (left out where weights are loaded anyway).

    Raises InputError for a model that this data cannot feed, or that cannot be imported.
    """
    name = hyperparameters.model
    if name in CONSTANT_MODELS:
        return _constant(name, schema, fitted)
    if name == "tabular":
        return _tabular(hyperparameters, schema, fitted)
    if name in ("linear", "mlp"):
        return _perceptron(hyperparameters, schema)
    if name == "boosting":
        return TreeEnsemble(n_outputs(schema))
    if name in ("cnn", "resnet"):
        return _image_network(hyperparameters, schema)
    return _own(hyperparameters, schema)


def count_parameters(model: nn.Module) -> int:
    """How many trainable numbers a network holds."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_multiplications(model: nn.Module, schema: Schema) -> int:
    """Roughly how many multiplications one row takes: a convolution uses its weights at every pixel, a table none."""
    pixels = math.prod(schema.input_shape[1:]) if schema.kind == "image" else 1
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag)}
    counted = [weights for weights in model.parameters() if id(weights) not in tables]
    return sum(weights.numel() * (pixels if weights.dim() == 4 else 1) for weights in counted)


def count_flops(model: nn.Module, x: Tensor) -> float | None:
    """How many floating-point operations a row takes in a step, forward and backward: measured on the rows x.

    Counted are matrix products and convolutions, a multiplication and an addition as two. None for a model that has no
    gradients, or that cannot be run on the CPU. The model is not to be used afterwards: its averages have changed.
    """
    from torch.utils.flop_counter import FlopCounterMode

    weights = [weight for weight in model.parameters() if weight.requires_grad]
    if not weights:
        return None
    try:
        with torch.random.fork_rng(devices=[]), FlopCounterMode(display=False) as counter:
            torch.autograd.grad(model.train()(x).sum(), weights, allow_unused=True)
    except Exception:  # whatever a network of the user's own does here, it trains without
        return None
    return float(counter.get_total_flops()) / len(x)


def one_line(error: Exception) -> str:
    """An error of the user's own code, short enough for a sentence."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def _constant(name: str, schema: Schema, answer: Tensor | None) -> nn.Module:
    fitting = "majority" if schema.task == "classification" else "mean"
    if name != fitting:
        raise InputError(f"model: {name} does not fit a {schema.task} target: use model: {fitting}.")
    return Constant(torch.zeros(n_outputs(schema)) if answer is None else answer)


def _perceptron(hyperparameters: Hyperparameters, schema: Schema) -> nn.Module:
    n_layers = 0 if hyperparameters.model == "linear" else hyperparameters.n_layers
    width = hyperparameters.width if n_layers else n_outputs(schema)
    first = (
        FlatPixels(schema, width)
        if schema.kind == "image"
        else MixedColumns(schema.n_numeric, schema.cardinalities, width)
    )
    return Perceptron(
        first,
        n_outputs(schema),
        n_layers=n_layers,
        width=width,
        act=hyperparameters.act,
        dropout=hyperparameters.dropout,
    )


def _tabular(hyperparameters: Hyperparameters, schema: Schema, edges: Tensor | None) -> nn.Module:
    if schema.kind != "tabular":
        raise InputError(f"model: tabular needs a table, and {schema.source} holds images: use model: cnn.")
    settings: dict[str, Any] = hyperparameters.model_dump(include={"n_layers", "width", "act", "dropout"})
    edges = no_edges(schema.n_numeric) if edges is None else edges
    return Tabular(edges, schema.cardinalities, n_outputs(schema), **settings)


def _image_network(hyperparameters: Hyperparameters, schema: Schema) -> nn.Module:
    name = hyperparameters.model
    if schema.kind != "image":
        raise InputError(f"model: {name} needs images, and {schema.source} holds a table: use model: mlp.")
    settings: dict[str, Any] = hyperparameters.model_dump(include={"n_layers", "width", "act", "dropout"})
    if name == "cnn":
        return nn.Sequential(NormalizedImage(schema), ConvNet(schema.input_shape, n_outputs(schema), **settings))
    return nn.Sequential(NormalizedImage(schema), ResNet(schema.input_shape[0], n_outputs(schema), **settings))


def _own(hyperparameters: Hyperparameters, schema: Schema) -> nn.Module:
    """Call the user's `package.module:callable` with input_shape, n_outputs and his options."""
    build = _imported(hyperparameters.model)
    _check_factory(build, hyperparameters.model)
    front: NormalizedImage | OneHotColumns = (
        NormalizedImage(schema) if schema.kind == "image" else OneHotColumns(schema.n_numeric, schema.cardinalities)
    )
    try:
        network = build(input_shape=front.output_shape, n_outputs=n_outputs(schema), **hyperparameters.options)
    except Exception as error:
        raise InputError(
            f"model: {hyperparameters.model} cannot be built ({one_line(error)}): "
            "let it take input_shape, n_outputs and the options, and return a torch.nn.Module."
        ) from error
    if not isinstance(network, nn.Module):
        raise InputError(f"model: {hyperparameters.model} returned {type(network).__name__}: return a torch.nn.Module.")
    seed_dropouts(network)
    return nn.Sequential(front, network)


def _check_factory(build: Any, reference: str) -> None:
    """Refuse what was not written to build networks: a model file names its callable, and may be a stranger's."""
    try:
        named = set(inspect.signature(build).parameters)
    except (TypeError, ValueError):
        named = set()
    if not named >= {"input_shape", "n_outputs"}:
        raise InputError(
            f"model: {reference} has no parameters input_shape and n_outputs, so it builds no network: name both."
        )


def _imported(reference: str) -> Any:
    """Import `package.module:callable`, the current directory included, as `python -m` would."""
    module_name, _, attribute = reference.partition(":")
    if module_name.partition(".")[0] in sys.stdlib_module_names:
        raise InputError(f"model: {reference} is of Python's own library: name a module of yours.")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    importlib.invalidate_caches()
    try:
        build = attrgetter(attribute)(importlib.import_module(module_name))
    except Exception as error:
        raise InputError(
            f"model: {reference} cannot be imported ({one_line(error)}): "
            "use package.module:callable and see that it is on the path."
        ) from error
    if not callable(build):
        raise InputError(f"model: {reference} is no callable: name a function that returns a torch.nn.Module.")
    return build
