"""The model file: every replicate's tensors, its settings and its schema; no code, and nothing that runs."""

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from basekamp.data.dataset import Schema
from basekamp.errors import InputError
from basekamp.hyperparameters import Hyperparameters
from basekamp.models.build import build_model

MODEL_FORMAT = 1


def load_models(path: Path, device: torch.device) -> tuple[Schema, list[torch.nn.Module]]:
    """Rebuild every replicate of a model file, ready to predict. Reads tensors and plain values only.

    Raises InputError for a file that is no model file of ours.
    """
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
        if saved["format"] != MODEL_FORMAT:
            raise ValueError(f"format {saved['format']}, this basekamp reads {MODEL_FORMAT}")
        hyperparameters = Hyperparameters.model_validate(saved["hyperparameters"])
        schema = Schema.model_validate(saved["schema"])
        state_dicts = saved["state_dicts"]
    except Exception as error:
        raise InputError(f"{path} is no model file of basekamp ({type(error).__name__}): train it again.") from error
    models = [build_model(hyperparameters, schema).to(device).eval() for _ in state_dicts]
    for model, state_dict in zip(models, state_dicts, strict=True):
        try:
            model.load_state_dict(state_dict)
        except RuntimeError as error:
            name = hyperparameters.model
            raise InputError(f"{path} does not fit model: {name} as its code is now: train it again.") from error
    return schema, models


def model_bytes(hyperparameters: Hyperparameters, schema: Schema, weights: Sequence[dict[str, torch.Tensor]]) -> bytes:
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
