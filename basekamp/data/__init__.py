"""From a source to a dataset folder: read, clean, split, encode, profile. Nothing here imports torch."""
