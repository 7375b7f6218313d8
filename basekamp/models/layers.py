"""Layers that work with one network's numbers or with those of K networks side by side (a leading dimension K).

Shapes: K networks, n rows, d inputs, w outputs. x is [n, d] when the networks share their rows, else [K, n, d].
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

_BITS = 31
_STRIDE = 0x1E3779B9  # odd: consecutive steps begin far apart in the 2^32 numbers that are mixed


class Linear(nn.Linear):
    """A linear layer whose weight is [w, d], or [K, w, d] once K networks are stacked."""

    def forward(self, x: Tensor) -> Tensor:
        """Give [n, w] or [K, n, w]; rows that all networks share are multiplied in one go."""
        weight, bias = self.weight, self.bias
        if weight.dim() == 2:
            return functional.linear(x, weight, bias)
        if x.dim() == 2:
            together = functional.linear(x, weight.flatten(0, 1), None if bias is None else bias.flatten())
            return together.view(len(x), *weight.shape[:2]).transpose(0, 1)
        if bias is None:
            return torch.bmm(x, weight.transpose(1, 2))
        return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))


class SeededDropout(nn.Module):
    """Dropout whose mask follows from a key alone, so that it is the same alone, stacked, and after a resume.

    `key` (int32) and `p` are buffers without dimensions, or [K] once K networks are stacked. Whoever trains sets
    the keys once (`first_keys`) and moves them on after each step (`next_keys`). On CPU also three times as
    fast as torch's own dropout.

    Source of the mixing: Chris Wellons' lowbias32, https://nullprogram.com/blog/2018/07/31/ (here 31 bits are kept).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.is_active = p > 0
        self.key: Tensor
        self.p: Tensor
        self.register_buffer("key", torch.zeros((), dtype=torch.int32), persistent=False)
        self.register_buffer("p", torch.tensor(p), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Drop each number with the chance p and scale up what is left; nothing in evaluation mode."""
        if not (self.training and self.is_active):
            return x
        shape = x.shape[self.key.dim() :]
        ahead = self.key.shape + (1,) * len(shape)
        places = torch.arange(shape.numel(), dtype=torch.int32, device=x.device).view(shape)
        mixed = places + self.key.view(ahead)
        mixed = (mixed ^ (mixed >> 16)) * 0x7FEB352D
        mixed = (mixed ^ (mixed >> 15)) * -0x7B935975
        mixed = mixed ^ (mixed >> 16)
        p = self.p.view(ahead)
        kept: Tensor = x * (mixed >= p * 2**_BITS) * (1 / (1 - p)).to(x.dtype)
        return kept


def dropouts(network: nn.Module) -> list[SeededDropout]:
    """Every seeded dropout layer of a network that drops something, in order."""
    return [layer for layer in network.modules() if isinstance(layer, SeededDropout)]


def first_key(seed: int, layer: int) -> int:
    """The int32 key of a network's n-th dropout layer in step 0."""
    return _as_int32(((seed * 1_000_003 + layer + 1) * 0x9E3779B97F4A7C15 >> 16) & 0xFFFFFFFF)


def key_after(first: int, steps: int) -> int:
    """The key after that many steps."""
    return _as_int32((first + steps * _STRIDE) & 0xFFFFFFFF)


def next_keys(keys: Tensor) -> None:
    """Move keys (int32, any shape) on by one step, in place; they wrap around."""
    keys += _STRIDE


def seed_dropouts(network: nn.Module) -> None:
    """Put a `SeededDropout` in the place of every plain `nn.Dropout` of a user's own network."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, SeededDropout(child.p))


def _as_int32(number: int) -> int:
    return number - (1 << 32) if number >= 1 << 31 else number
