"""The loss that networks are trained on. Shapes: K networks, n rows, k outputs."""

from torch import Tensor
from torch.nn import functional


def mean_losses(outputs: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Each network's mean loss [K]: cross-entropy for class indices, mean squared error for numbers.

    outputs [n, k] of a single network, or [K, n, k]; targets [n], or [K, n] where networks see different rows.
    """
    if outputs.dim() == 2:
        return _losses(outputs, targets, label_smoothing, "mean").view(1)
    size, n = outputs.shape[:2]
    together = _losses(outputs.flatten(0, 1), targets.expand(size, n).flatten(), label_smoothing, "none")
    return together.view(size, n).mean(dim=1)


def _losses(outputs: Tensor, targets: Tensor, label_smoothing: float, reduction: str) -> Tensor:
    if targets.is_floating_point():
        return functional.mse_loss(outputs[:, 0].float(), targets, reduction=reduction)
    return functional.cross_entropy(outputs.float(), targets, reduction=reduction, label_smoothing=label_smoothing)
