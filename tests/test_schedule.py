"""The learning rate over a training."""

import pytest

from basekamp.hyperparameters import Hyperparameters
from basekamp.training.schedule import learning_rate


@pytest.mark.parametrize(("schedule", "expected"), [("cosine", [0.2, 0.1, 0.0]), ("constant", [0.2, 0.2, 0.2])])
def test_learning_rate_follows_its_schedule(schedule, expected):
    settings = Hyperparameters(lr=0.2, schedule=schedule)
    assert [learning_rate(settings, progress) for progress in (0.0, 0.5, 1.0)] == pytest.approx(expected, abs=1e-12)
