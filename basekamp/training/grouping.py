"""Which members of a training train at once: told by their size, never by a clock, so that it is always the same."""

from collections.abc import Sequence

import torch
from torch import nn

from basekamp.data.dataset import Schema
from basekamp.hyperparameters import Hyperparameters
from basekamp.models.build import count_multiplications, count_parameters

MAY_DIFFER = ("lr", "weight_decay", "dropout")
"""The settings in which the members of one stack may differ."""

LARGEST_STEP = {("cpu", True): 1 << 22, ("cpu", False): 1 << 20, ("cuda", True): 1 << 36, ("cuda", False): 1 << 33}
"""Multiplications in one network's step up to which a stack pays: by device, and by whether its layers are made for it.

On 2 cores measured (benchmarks/bench_replicates.py): larger steps are bound by arithmetic, of which a stack has as
much. On CUDA not measured yet.
"""

MOST_PARAMETERS = 1 << 26
MOST_ROW_NUMBERS = 1 << 25


def shape_of(settings: Hyperparameters) -> str:
    """What must be alike in a stack, as a text to compare."""
    return settings.model_dump_json(exclude=set(MAY_DIFFER))


def most_at_once(network: nn.Module, settings: Hyperparameters, schema: Schema, device: torch.device) -> int:
    """How many of this network are worth training at once; 1 where a stack does not pay."""
    step = count_multiplications(network, schema) * settings.batch_size
    if step > LARGEST_STEP[device.type, bool(getattr(network, "takes_stacked", False))]:
        return 1
    room = (MOST_PARAMETERS // max(count_parameters(network), 1), MOST_ROW_NUMBERS // schema.rows["train"])
    return max(1, min(room))


def in_groups(places: Sequence[int], most: int) -> list[list[int]]:
    """Split into as few groups of at most `most` as can be, of sizes as equal as can be."""
    number = -(-len(places) // most)
    borders = [len(places) * i // number for i in range(number + 1)]
    return [list(places[begin:end]) for begin, end in zip(borders, borders[1:], strict=False)]
