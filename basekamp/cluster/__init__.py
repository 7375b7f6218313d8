"""Runs on a cluster: typed arguments, submission and waiting."""
