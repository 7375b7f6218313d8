"""Outputs of a network over many rows. Shapes: n rows, k outputs, K stacked networks."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from basekamp.data.dataset import Schema

ROWS_AT_ONCE = {"tabular": 8192, "image": 1024}


class Predictor(Protocol):
    """A network, or a stack of them."""

    def eval(self) -> object:
        """Go to evaluation mode."""

    def __call__(self, x: Tensor) -> Tensor:
        """Give outputs [n, k], or [K, n, k]."""


@torch.no_grad()
def predict(
    model: Predictor,
    x: Tensor,
    schema: Schema,
    *,
    device: torch.device | None = None,
    between: Callable[[], None] = lambda: None,
) -> NDArray[np.float32]:
    """Give float32 [n, k] class probabilities, or float32 [n] values in the target's own unit; [K, …] of a stack.

    Rows go to the model's `device` part by part where x lies elsewhere; `between` is called after each part. The
    model is left in evaluation mode.
    """
    model.eval()
    parts = []
    for rows in torch.split(x, ROWS_AT_ONCE[schema.kind]):
        parts.append(model(rows.to(device)).float())
        between()
    outputs = torch.cat(parts, dim=-2)
    if schema.task == "classification":
        return _on_cpu(outputs.softmax(dim=-1))
    return _on_cpu(outputs[..., 0] * schema.target_std + schema.target_mean)


def _on_cpu(outputs: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = outputs.cpu().numpy().astype(np.float32)
    return array
