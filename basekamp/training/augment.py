"""Images changed at random while a network trains on them, on the device that holds them.

Shapes: n images uint8 [..., n, c, h, w]; draws int64 [..., n], the leading dimension K for stacked networks that see
different rows. What happens to an image follows from the seed, the epoch and its place in the epoch alone.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from basekamp.data.dataset import Schema
from basekamp.errors import InputError
from basekamp.hyperparameters import IMAGE_FIELDS, Hyperparameters


class Draws(NamedTuple):
    """What was drawn for each image: whether it is mirrored, how far it moves, and the corner of the cutout."""

    flips: Tensor
    downs: Tensor
    rights: Tensor
    tops: Tensor
    lefts: Tensor


class Augmentation:
    """Mirrors, moves and blanks images as the hyperparameters say.

    A moved image repeats its edge where it leaves a gap; what is blanked becomes the mean pixel of the training split.

    Source of the cutout, which may reach over the edge: DeVries and Taylor, Improved Regularization, 2017.
    """

    def __init__(self, hyperparameters: Hyperparameters, schema: Schema, device: torch.device) -> None:
        self.flip, self.crop, self.cutout = hyperparameters.flip, hyperparameters.crop, hyperparameters.cutout
        _, self.height, self.width = schema.input_shape
        self.downward = torch.arange(self.height, device=device)
        self.rightward = torch.arange(self.width, device=device)
        self.blank = torch.tensor(schema.pixel_mean, device=device).round().to(torch.uint8).view(-1, 1, 1)

    def draw(self, n: int, generator: torch.Generator) -> Draws:
        """Draw for n images, on the generator's device."""

        def below(limit: int) -> Tensor:
            return torch.randint(limit, (n,), generator=generator, device=generator.device)

        half = self.cutout // 2
        return Draws(
            flips=below(2) if self.flip else torch.zeros(n, dtype=torch.long, device=generator.device),
            downs=below(2 * self.crop + 1) - self.crop,
            rights=below(2 * self.crop + 1) - self.crop,
            tops=below(self.height) - half,
            lefts=below(self.width) - half,
        )

    def __call__(self, x: Tensor, draws: Draws) -> Tensor:
        """Change the images."""
        rows = (self.downward - draws.downs.unsqueeze(-1)).clamp(0, self.height - 1)
        columns = (self.rightward - draws.rights.unsqueeze(-1)).clamp(0, self.width - 1)
        if self.flip:
            columns = torch.where(draws.flips.unsqueeze(-1) == 1, columns.flip(-1), columns)
        places = rows.unsqueeze(-1) * self.width + columns.unsqueeze(-2)
        places = places.flatten(-2).unsqueeze(-2).expand(*x.shape[:-2], -1)
        moved = x.flatten(-2).gather(-1, places).view(x.shape)
        if not self.cutout:
            return moved
        is_blank = _between(self.downward, draws.tops, self.cutout).unsqueeze(-1) & _between(
            self.rightward, draws.lefts, self.cutout
        ).unsqueeze(-2)
        return torch.where(is_blank.unsqueeze(-3), self.blank, moved)


def augmentation(hyperparameters: Hyperparameters, schema: Schema, device: torch.device) -> Augmentation | None:
    """The augmentation asked for, None for none; raises InputError where the data has no images for it."""
    asked = [name for name in IMAGE_FIELDS if getattr(hyperparameters, name)]
    if not asked:
        return None
    if schema.kind != "image":
        raise InputError(f"{asked[0]} changes images, and {schema.source} holds a table: take it out.")
    smaller = min(schema.input_shape[1:])
    for name in ("crop", "cutout"):
        if getattr(hyperparameters, name) >= smaller:
            raise InputError(
                f"{name}={getattr(hyperparameters, name)} leaves nothing of images of {smaller} pixels: "
                f"use less than {smaller}."
            )
    return Augmentation(hyperparameters, schema, device)


def _between(places: Tensor, first: Tensor, number: int) -> Tensor:
    """Which places [..., m] lie among the `number` from `first` [...] on."""
    distance = places - first.unsqueeze(-1)
    return (distance >= 0) & (distance < number)
