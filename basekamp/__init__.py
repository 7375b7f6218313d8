"""The base camp of deep-learning work on Kubeflow: a baseline first, every attempt judged against it."""

__version__ = "0.1.0"
