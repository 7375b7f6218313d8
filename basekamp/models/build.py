"""From hyperparameters and a data set's schema to a network.

Shapes: n rows, d columns, c channels, h x w pixels, k outputs (classes, or 1 for regression).
Every network takes x as the data set holds it (uint8 [n, c, h, w] or float32 [n, d]) and gives
float [n, k]: logits, or the standardised target.
"""

import importlib
import math
import os
import sys
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from basekamp.data.dataset import Schema
from basekamp.errors import InputError
from basekamp.hyperparameters import Hyperparameters
from basekamp.models.inputs import FlatPixels, MixedColumns, NormalizedImage, OneHotColumns
from basekamp.models.layers import seed_dropouts
from basekamp.models.networks import Constant, ConvNet, Perceptron, ResNet


def n_outputs(schema: Schema) -> int:
    """Columns of a model's output: one per class, or 1 for regression."""
    return len(schema.classes) or 1


def build_model(hyperparameters: Hyperparameters, schema: Schema, *, prior: Tensor | None = None) -> nn.Module:
    """Build an untrained network; `prior` [k] is what a constant model answers (zeros when left out).

    Raises InputError for a model that this data cannot feed, or that cannot be imported.
    """
    name = hyperparameters.model
    if name in ("majority", "mean"):
        return _constant(name, schema, prior)
    if name in ("linear", "mlp"):
        return _perceptron(hyperparameters, schema)
    if name in ("cnn", "resnet"):
        return _image_network(hyperparameters, schema)
    return _own(hyperparameters, schema)


def count_parameters(model: nn.Module) -> int:
    """How many trainable numbers a network holds."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_multiplications(model: nn.Module, schema: Schema) -> int:
    """Roughly how many multiplications one row takes: a convolution uses its weights at every pixel."""
    pixels = math.prod(schema.input_shape[1:]) if schema.kind == "image" else 1
    return sum(weights.numel() * (pixels if weights.dim() > 2 else 1) for weights in model.parameters())


def one_line(error: Exception) -> str:
    """An error of the user's own code, short enough for a sentence."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def _constant(name: str, schema: Schema, prior: Tensor | None) -> nn.Module:
    fitting = "majority" if schema.task == "classification" else "mean"
    if name != fitting:
        raise InputError(f"model: {name} does not fit a {schema.task} target: use model: {fitting}.")
    return Constant(torch.zeros(n_outputs(schema)) if prior is None else prior)


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


def _imported(reference: str) -> Any:
    """Import `package.module:callable`, the current directory included, as `python -m` would."""
    module_name, _, attribute = reference.partition(":")
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
