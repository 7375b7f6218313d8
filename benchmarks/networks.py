"""The two networks that the training loops are compared on, as a user's own models."""

from torch import nn


def mlp(input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """784-256-128-10."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 256),
        nn.ReLU(),
        nn.Linear(256, 128),
        nn.ReLU(),
        nn.Linear(128, n_outputs),
    )


def cnn(input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """Two convolutions of 16 and 32 channels, each halved, and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, n_outputs),
    )
