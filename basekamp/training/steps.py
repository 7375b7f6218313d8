"""What the steps of an epoch need: which rows, what is drawn for them, and how far to move.

Orders and draws follow from each seed and the epoch alone, so a resumed epoch takes the steps that are left of it.
Shapes: K seeds, n rows, b rows of a batch.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from basekamp.hyperparameters import Hyperparameters
from basekamp.training.augment import Augmentation, Draws
from basekamp.training.schedule import rate_factor


class Step(NamedTuple):
    """What one step needs: row numbers, what was drawn for them, the learning rate as a share of the highest.

    `follow` is how far the averaged weights move towards the present ones.
    """

    rows: Tensor
    draws: Draws | None
    rate: float | Tensor
    follow: float | Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        """All of it as tensors, in order; only on CUDA, where the numbers are tensors too."""
        return (self.rows, *(self.draws or ()), self.rate, self.follow)

    @classmethod
    def of(cls, tensors: tuple[Tensor, ...]) -> "Step":
        """The step that `tensors` were of."""
        rows, *draws, rate, follow = tensors
        return cls(rows, Draws(*draws) if draws else None, rate, follow)

    def part(self, which: int, number: int) -> "Step":
        """Every `number`-th row, from the row `which` on."""
        draws = None if self.draws is None else Draws(*(values[which::number] for values in self.draws))
        return self._replace(rows=self.rows[which::number], draws=draws)


class Epochs:
    """How n rows become the steps of each epoch. `sizes`: rows of each batch."""

    def __init__(
        self, hyperparameters: Hyperparameters, n: int, device: torch.device, augment: Augmentation | None
    ) -> None:
        self.hyperparameters, self.n, self.device, self.augment = hyperparameters, n, device, augment
        self.sizes = batch_sizes(n, hyperparameters.batch_size)

    def steps(self, epoch: int, seeds: Sequence[int]) -> list[Step]:
        """The steps of an epoch; rows [b] where all seeds are one, else [K, b]."""
        distinct = seeds if len(set(seeds)) > 1 else seeds[:1]
        orders, draws = zip(*(self._drawn(seed, epoch) for seed in distinct), strict=True)
        rows = torch.split(_together(orders), self.sizes, dim=-1)
        drawn = [None] * len(self.sizes) if self.augment is None else _split_draws(draws, self.sizes)
        rates = [self._rate(epoch, i) for i in range(len(self.sizes))]
        follows = [self._follow(epoch * len(self.sizes) + i) for i in range(len(self.sizes))]
        if self.device.type == "cuda":
            rates, follows = (list(torch.tensor(values, device=self.device)) for values in (rates, follows))
        return [Step(*parts) for parts in zip(rows, drawn, rates, follows, strict=True)]

    def last_rate(self, epoch: int) -> float:
        """The learning rate of the last step of an epoch, as a share of the highest."""
        return self._rate(epoch, len(self.sizes) - 1)

    def _rate(self, epoch: int, step: int) -> float:
        n_steps = len(self.sizes)
        progress = (epoch * n_steps + step) / (n_steps * self.hyperparameters.n_epochs)
        return rate_factor(self.hyperparameters, progress)

    def _drawn(self, seed: int, epoch: int) -> tuple[Tensor, Draws | None]:
        """One seed's order of the rows int64 [n], and what happens to the images in that order."""
        generator = torch.Generator(self.device).manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(self.n, generator=generator, device=self.device)
        return order, self.augment.draw(self.n, generator) if self.augment else None

    def _follow(self, steps: int) -> float:
        """How far the averaged weights move towards the present ones; at first faster, to forget the untrained."""
        return 1.0 - min(self.hyperparameters.ema, (1 + steps) / (10 + steps))


def batch_sizes(n: int, size: int) -> list[int]:
    """Rows of each batch; a single row left over joins the batch before it: BatchNorm cannot train on one row."""
    sizes = [size] * (n // size) + ([n % size] if n % size else [])
    if len(sizes) > 1 and sizes[-1] == 1 < sizes[-2]:
        sizes[-2:] = [sizes[-2] + 1]
    return sizes


def _together(tensors: Sequence[Tensor]) -> Tensor:
    """[n] of one seed, or [K, n]."""
    return tensors[0] if len(tensors) == 1 else torch.stack(list(tensors))


def _split_draws(draws: Sequence[Draws], sizes: list[int]) -> list[Draws]:
    """The draws of each batch, [b] or [K, b]."""
    fields = [torch.split(_together(values), sizes, dim=-1) for values in zip(*draws, strict=True)]
    return [Draws(*parts) for parts in zip(*fields, strict=True)]
