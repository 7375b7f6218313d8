"""A strong network for tables. Shapes: n rows, f numbers, b bins, q frequencies, e numbers for each, k outputs."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from basekamp.models.layers import SeededDropout
from basekamp.models.networks import ACTIVATIONS

BINS = 128
FREQUENCIES, FREQUENCY_SPREAD = 32, 3.0
WAVE_SIZE, WAVE_SCALE = 16, 0.3
TABLE_SIZE, TABLE_SPREAD = 8, 0.03
BIN_SCALE, CATEGORY_SCALE = 0.1, 0.05

_NEVER = torch.finfo(torch.float32).max
_ROWS_FOR_QUANTILES = 200_000


class Tabular(nn.Module):
    """Each number as itself, as waves and as a row of its bin's table; each category as a row; then a perceptron.

    What comes from tables and waves is scaled down, which under AdamW is a lower learning rate for them.

    Sources: Gorishniy et al., On Embeddings for Numerical Features in Tabular Deep Learning, 2022 (waves: PLR);
    Holzmüller et al., Better by Default, 2024 (RealMLP: parts that learn at rates of their own).
    """

    def __init__(
        self,
        edges: Tensor,
        cardinalities: Sequence[int],
        n_outputs: int,
        *,
        n_layers: int,
        width: int,
        act: str,
        dropout: float,
    ) -> None:
        super().__init__()
        self.n_numeric = len(edges)
        self.numbers = NumberEmbedding(edges) if self.n_numeric else None
        self.tables = nn.ModuleList(_Table(size, min(TABLE_SIZE, size), CATEGORY_SCALE) for size in cardinalities)
        size = self.n_numeric * (1 + WAVE_SIZE + TABLE_SIZE) + sum(min(TABLE_SIZE, each) for each in cardinalities)
        layers: list[nn.Module] = []
        for _ in range(n_layers):
            layers += [nn.Linear(size, width), ACTIVATIONS[act](), SeededDropout(dropout)]
            size = width
        self.layers = nn.Sequential(*layers, nn.Linear(size, n_outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Answer [n, k] for numbers first and category codes after them."""
        codes = x[:, self.n_numeric :].long()
        parts = [table(codes[:, i]) for i, table in enumerate(self.tables)]
        if self.numbers is not None:
            parts.append(self.numbers(x[:, : self.n_numeric]))
        out: Tensor = self.layers(torch.cat(parts, dim=1))
        return out


class NumberEmbedding(nn.Module):
    """Numbers [n, f] to [n, f * (1 + WAVE_SIZE + TABLE_SIZE)]; edges [f, b - 1] are the borders of the bins."""

    def __init__(self, edges: Tensor) -> None:
        super().__init__()
        self.edges: Tensor
        self.register_buffer("edges", edges)
        self.waves = _Waves(len(edges))
        self.bins = _Table(len(edges) * BINS, TABLE_SIZE, BIN_SCALE)

    def forward(self, x: Tensor) -> Tensor:
        """Put the numbers beside their waves and their bins' rows."""
        places = (x.unsqueeze(-1) >= self.edges).sum(dim=-1) + torch.arange(len(self.edges), device=x.device) * BINS
        return torch.cat([x, self.waves(x), self.bins(places).flatten(1)], dim=1)


class _Table(nn.Embedding):
    """Rows of small numbers, held larger by 1 / scale."""

    def __init__(self, length: int, size: int, scale: float) -> None:
        super().__init__(length, size)
        self.scale = scale
        nn.init.normal_(self.weight, std=TABLE_SPREAD / scale)

    def forward(self, codes: Tensor) -> Tensor:
        return functional.embedding(codes, self.weight) * self.scale


class _Waves(nn.Module):
    """Sines and cosines of learnt frequencies, mixed by a layer for each number."""

    def __init__(self, n_numeric: int) -> None:
        super().__init__()
        bound = (2 * FREQUENCIES) ** -0.5
        self.frequencies = nn.Parameter(torch.randn(n_numeric, 1, FREQUENCIES) * FREQUENCY_SPREAD)
        self.weight = nn.Parameter(torch.empty(n_numeric, 2 * FREQUENCIES, WAVE_SIZE).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n_numeric, 1, WAVE_SIZE).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        angles = 2 * math.pi * x.T.unsqueeze(-1) * self.frequencies
        waves = torch.baddbmm(self.bias, torch.cat([angles.cos(), angles.sin()], dim=-1), self.weight).relu()
        return waves.transpose(0, 1).flatten(1) * WAVE_SCALE


def bin_edges(numbers: Tensor) -> Tensor:
    """Borders [f, b - 1] between the training split's numbers [n, f]; those that a column does not need are never met.

    Up to b different values get a bin each; more are parted at quantiles.
    """
    edges = no_edges(numbers.shape[1])
    for column, values in enumerate(numbers.T):
        distinct = torch.unique(values)
        if len(distinct) > BINS:
            some = values[torch.linspace(0, len(values) - 1, min(len(values), _ROWS_FOR_QUANTILES)).long()]
            distinct = torch.unique(torch.quantile(some, torch.linspace(0, 1, BINS)))
        edges[column, : len(distinct) - 1] = (distinct[1:] + distinct[:-1]) / 2
    return edges


def no_edges(n_numeric: int) -> Tensor:
    """Borders [f, b - 1] that no number reaches."""
    return torch.full((n_numeric, BINS - 1), _NEVER)
