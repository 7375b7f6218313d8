"""What is said when a training does not fit the memory of its GPU."""

import torch

from basekamp.errors import DeviceError
from basekamp.training.loop import StackLoop


def too_large(loop: StackLoop, error: torch.OutOfMemoryError) -> DeviceError:
    """One sentence that names the batch, the memory it took, and the largest batch that fits (found by trying)."""
    settings, device = loop.hyperparameters, loop.data.device
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
    told = f" at a peak of {peak:.1f} GiB" if peak is not None else ""
    fitting = _largest_that_fits(loop)
    advice = f"use batch_size {fitting} or less" if fitting else "even one row does not fit: use a smaller model"
    reason = " ".join(str(error).split())[:160]
    return DeviceError(
        f"batch_size={settings.batch_size} of model: {settings.model} does not fit the memory of the device{told} "
        f"({reason}): {advice}, or a GPU with more memory."
    )


def _largest_that_fits(loop: StackLoop) -> int:
    size = min(loop.hyperparameters.batch_size, len(loop.data.y)) // 2
    while size and not _fits(loop, size):
        size //= 2
    return size


def _fits(loop: StackLoop, size: int) -> bool:
    """Whether the gradients of that many rows can be computed."""
    if loop.data.device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        loop.try_batch(size)
    except torch.OutOfMemoryError:
        return False
    return True
