"""The first step of every network: from the data set's stored form to what layers can multiply.

Shapes: n rows, d columns, c channels, h x w pixels. `FlatPixels` and `MixedColumns` also take the numbers of K
stacked networks, and then x that is shared, as here, or has a leading dimension K; they give [K, n, width].
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional

from basekamp.data.dataset import Schema
from basekamp.models.layers import Linear


class NormalizedImage(nn.Module):
    """uint8 [n, c, h, w] to float [n, c, h, w], mean 0 and deviation 1 per channel of the training split."""

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self.output_shape = tuple(schema.input_shape)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(schema.pixel_mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(schema.pixel_std).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise one batch of raw pixels."""
        return (x - self.mean).div_(self.std)


class FlatPixels(nn.Module):
    """uint8 [n, c, h, w] to float [n, width]: a linear layer over all normalised pixels."""

    def __init__(self, schema: Schema, width: int) -> None:
        super().__init__()
        channels, height, columns = schema.input_shape
        self.normalize = NormalizedImage(schema)
        self.linear = Linear(channels * height * columns, width)

    def forward(self, x: Tensor) -> Tensor:
        """Mix all pixels of each image."""
        out: Tensor = self.linear(self.normalize(x).flatten(-3))
        return out


class MixedColumns(nn.Module):
    """float [n, d], numbers first and category codes after them, to float [n, width].

    The same function as a linear layer over numbers and one-hot categories, without ever building the
    one-hot matrix: a row's categories pick their weight rows, which are summed.
    """

    def __init__(self, n_numeric: int, cardinalities: Sequence[int], width: int) -> None:
        super().__init__()
        self.n_numeric = n_numeric
        self.bias = nn.Parameter(torch.zeros(width))
        self.numbers = Linear(n_numeric, width, bias=False) if n_numeric else None
        self.categories = nn.EmbeddingBag(sum(cardinalities), width, mode="sum") if cardinalities else None
        self.offsets: Tensor
        self.register_buffer("offsets", _offsets(cardinalities), persistent=False)
        bound = max(n_numeric + len(cardinalities), 1) ** -0.5
        for layer in (self.numbers, self.categories):
            if layer is not None:
                nn.init.uniform_(layer.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the columns of each row."""
        out = self.bias.unsqueeze(-2)
        if self.numbers is not None:
            out = out + self.numbers(x[..., : self.n_numeric])
        if self.categories is not None:
            out = out + self._summed_categories(x[..., self.n_numeric :].long() + self.offsets)
        return out.expand(*out.shape[:-2], x.shape[-2], -1)

    def _summed_categories(self, codes: Tensor) -> Tensor:
        """Sum the weight rows of each row's categories; K stacked tables are read as one of K times the length."""
        assert self.categories is not None
        weight = self.categories.weight
        if weight.dim() == 2:
            return functional.embedding_bag(codes, weight, mode="sum")
        size, length, width = weight.shape
        codes = codes + torch.arange(size, device=codes.device).view(-1, 1, 1) * length
        summed = functional.embedding_bag(codes.flatten(0, 1), weight.view(size * length, width), mode="sum")
        return summed.view(size, -1, width)


class OneHotColumns(nn.Module):
    """float [n, d], numbers first and category codes after them, to float [n, numbers + all categories]."""

    def __init__(self, n_numeric: int, cardinalities: Sequence[int]) -> None:
        super().__init__()
        self.n_numeric = n_numeric
        self.cardinalities = tuple(cardinalities)
        self.output_shape = (n_numeric + sum(cardinalities),)

    def forward(self, x: Tensor) -> Tensor:
        """Spread each category code over its own columns."""
        codes = x[:, self.n_numeric :].long()
        spread = [functional.one_hot(codes[:, i], size).to(x.dtype) for i, size in enumerate(self.cardinalities)]
        return torch.cat([x[:, : self.n_numeric], *spread], dim=1)


def _offsets(cardinalities: Sequence[int]) -> Tensor:
    """Where each categorical column's rows begin in the common weight table."""
    return torch.tensor([0, *accumulate(cardinalities)][: len(cardinalities)], dtype=torch.long)
