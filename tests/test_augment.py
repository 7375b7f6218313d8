"""Images changed at random: what each change does to a picture."""

import pytest
import torch

from basekamp.errors import InputError
from basekamp.hyperparameters import Hyperparameters
from basekamp.training.augment import Draws, augmentation
from tests.schemas import image_schema, table_schema

CPU = torch.device("cpu")
PICTURE = torch.arange(2 * 4 * 5, dtype=torch.uint8).view(1, 2, 4, 5)


def changed(
    picture: torch.Tensor, *, flips: int = 0, down: int = 0, right: int = 0, top: int = 9, left: int = 9, **how
):
    settings = Hyperparameters.from_mapping({"model": "cnn", **how})
    change = augmentation(settings, image_schema(2, 4, 5), CPU)
    draws = Draws(*(torch.tensor([value]) for value in (flips, down, right, top, left)))
    return change(picture, draws)


def test_flip_mirrors_the_columns():
    assert torch.equal(changed(PICTURE, flip=True, flips=1), PICTURE.flip(-1))
    assert torch.equal(changed(PICTURE, flip=True, flips=0), PICTURE)


def test_crop_moves_and_repeats_the_edge():
    moved = changed(PICTURE, crop=2, down=1, right=-2)
    assert torch.equal(moved[0, :, 1:, :3], PICTURE[0, :, :3, 2:])
    assert torch.equal(moved[0, :, 0, :3], PICTURE[0, :, 0, 2:])
    assert torch.equal(moved[0, :, 1:, 3], PICTURE[0, :, :3, 4])


def test_cutout_blanks_a_square_with_the_mean_pixel_and_reaches_over_the_edge():
    blanked = changed(PICTURE, cutout=2, top=3, left=1)
    expected = PICTURE.clone()
    expected[0, :, 3:, 1:3] = 100
    assert torch.equal(blanked, expected)


def test_everything_together_on_stacked_rows_is_what_each_gets_alone():
    settings = Hyperparameters.from_mapping({"model": "cnn", "flip": True, "crop": 1, "cutout": 2})
    change = augmentation(settings, image_schema(2, 4, 5), CPU)
    x = torch.randint(256, (3, 7, 2, 4, 5), dtype=torch.uint8)
    draws = [change.draw(7, torch.Generator().manual_seed(seed)) for seed in range(3)]
    together = change(x, Draws(*(torch.stack(values) for values in zip(*draws, strict=True))))
    for k in range(3):
        assert torch.equal(together[k], change(x[k], draws[k]))


def test_draws_cover_their_range_evenly():
    settings = Hyperparameters.from_mapping({"model": "cnn", "flip": True, "crop": 2, "cutout": 3})
    draws = augmentation(settings, image_schema(2, 4, 5), CPU).draw(60_000, torch.Generator().manual_seed(0))
    for values, expected in (
        (draws.flips, range(2)),
        (draws.downs, range(-2, 3)),
        (draws.rights, range(-2, 3)),
        (draws.tops, range(-1, 3)),
        (draws.lefts, range(-1, 4)),
    ):
        counts = torch.bincount(values - min(expected))
        assert len(counts) == len(expected)
        assert (counts / 60_000 - 1 / len(expected)).abs().max() < 0.01


@pytest.mark.parametrize(
    ("how", "schema", "message"),
    [
        ({"flip": True}, table_schema(2), r"flip changes images, and table\.csv holds a table: take it out\."),
        ({"crop": 4}, image_schema(2, 4, 5), "crop=4 leaves nothing of images of 4 pixels: use less than 4."),
        ({"cutout": 9}, image_schema(2, 4, 5), "cutout=9 leaves nothing of images of 4 pixels: use less than 4."),
    ],
)
def test_changes_that_do_not_fit_the_data_are_refused(how, schema, message):
    with pytest.raises(InputError, match=f"^{message}"):
        augmentation(Hyperparameters.from_mapping({"model": "mlp", **how}), schema, CPU)


def test_nothing_asked_for_is_no_augmentation():
    assert augmentation(Hyperparameters(), image_schema(2, 4, 5), CPU) is None
