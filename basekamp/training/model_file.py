"""The model file: every replicate's tensors, its settings and its schema; no code, and nothing that runs."""

import io
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from basekamp.data.dataset import Schema
from basekamp.errors import InputError
from basekamp.hyperparameters import Hyperparameters, is_own_model
from basekamp.models.build import build_model
from basekamp.training.archive import is_dense, load_archive

MODEL_FORMAT = 1
MOST_REPLICATES = 1000
MOST_VALUES = 1 << 20

State = dict[str, torch.Tensor]


def load_models(path: Path, device: torch.device) -> tuple[Schema, list[torch.nn.Module]]:
    """Rebuild every replicate of a model file, ready to predict. Reads tensors and plain values only.

    Raises InputError for a file that is no model file of ours, or whose weights do not fit its settings.
    """
    try:
        hyperparameters, schema, states = _read(path, device)
    except Exception as error:
        reason = str(error) if type(error) is ValueError else type(error).__name__
        raise InputError(f"{path} is no model file of basekamp ({reason}): train it again.") from error
    try:
        if not is_own_model(hyperparameters.model):
            _check_fit(hyperparameters, schema, states, path.stat().st_size)
        models = [build_model(hyperparameters, schema).to(device).eval() for _ in states]
        for model, state in zip(models, states, strict=True):
            model.load_state_dict(state)
    except InputError:
        raise
    except Exception as error:  # its schema may hold anything that has the right types
        name = hyperparameters.model
        raise InputError(f"{path} does not fit model: {name} as its code is now: train it again.") from error
    return schema, models


def _read(path: Path, device: torch.device) -> tuple[Hyperparameters, Schema, list[State]]:
    saved = load_archive(path, device)
    if saved["format"] != MODEL_FORMAT:
        raise ValueError(f"format {saved['format']}, this basekamp reads {MODEL_FORMAT}")
    _check_plain(saved["hyperparameters"], saved["schema"])
    hyperparameters = Hyperparameters.model_validate(saved["hyperparameters"])
    schema = Schema.model_validate(saved["schema"])
    states = list(saved["state_dicts"])
    if not 0 < len(states) <= MOST_REPLICATES:
        raise ValueError(f"{len(states)} replicates, 1 to {MOST_REPLICATES} are allowed")
    for state in states:
        if not all(isinstance(tensor, torch.Tensor) and is_dense(tensor) for tensor in state.values()):
            raise ValueError("a weight is no tensor whose numbers are all in the file")
    return hyperparameters, schema, states


def _check_plain(*values: Any) -> None:
    """Refuse values that grow when they are copied: a pickle can name one list a million times in two bytes each."""
    waiting, seen = list(values), 0
    while waiting:
        value = waiting.pop()
        inside = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        seen += 1
        if isinstance(inside, list | tuple | set):
            seen += len(inside)
            waiting += [each for each in inside if isinstance(each, dict | list | tuple | set)]
        if seen > MOST_VALUES:
            raise ValueError(f"settings and schema hold more than {MOST_VALUES:,} values")


def _check_fit(hyperparameters: Hyperparameters, schema: Schema, states: Sequence[State], size_bytes: int) -> None:
    """Compare with a network that takes no memory: settings of a few bytes can ask for one of any size."""
    if sum(tensor.nbytes for state in states for tensor in state.values()) > size_bytes:
        raise ValueError("the weights are more than the file holds")
    with torch.device("meta"):
        expected = build_model(hyperparameters, schema).state_dict()
    has_own_sizes = hyperparameters.model == "boosting"  # as many trees as were grown
    for state in states:
        found = {name: (tensor.dtype, has_own_sizes or tensor.shape) for name, tensor in state.items()}
        if found != {name: (tensor.dtype, has_own_sizes or tensor.shape) for name, tensor in expected.items()}:
            raise ValueError("the weights have other names, shapes or types")
        if has_own_sizes and (state["feature"] >= math.prod(schema.input_shape)).any():
            raise ValueError("a tree asks for a column that is not there")


def model_bytes(hyperparameters: Hyperparameters, schema: Schema, weights: Sequence[State]) -> bytes:
    """Serialise so that equal models are equal bytes.

    Through memory, since torch names its archive after the file; with texts that are objects of their own or
    interned, since a pickle tells whether two equal texts were one object.
    """
    buffer = io.BytesIO()
    torch.save(
        {
            "format": MODEL_FORMAT,
            "hyperparameters": json.loads(hyperparameters.model_dump_json()),
            "schema": json.loads(schema.model_dump_json()),
            "state_dicts": [{sys.intern(name): tensor.cpu() for name, tensor in state.items()} for state in weights],
        },
        buffer,
    )
    return buffer.getvalue()
