"""Networks from hyperparameters: the ladder from a constant to a convolutional network, or the user's own."""
