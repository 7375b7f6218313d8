"""Outputs of a network over many rows. Shapes: n rows, k outputs."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from basekamp.data.dataset import Schema

ROWS_AT_ONCE = 8192


@torch.inference_mode()
def predict(model: nn.Module, x: Tensor, schema: Schema) -> NDArray[np.float32]:
    """Give float32 [n, k] class probabilities, or float32 [n] values in the target's own unit.

    `x` and the model lie on the same device. The model is left in evaluation mode.
    """
    model.eval()
    outputs = torch.cat([model(rows).float() for rows in torch.split(x, ROWS_AT_ONCE)])
    if schema.task == "classification":
        return _on_cpu(outputs.softmax(dim=1))
    return _on_cpu(outputs[:, 0] * schema.target_std + schema.target_mean)


def _on_cpu(outputs: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = outputs.cpu().numpy().astype(np.float32)
    return array
