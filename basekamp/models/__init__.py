"""Networks from hyperparameters: the ladder from a constant to a convolutional network, or the user's own."""

from basekamp.models.build import build_model

__all__ = ["build_model"]
