"""Kubeflow component: one pack of a sweep's round."""

from kfp import dsl

from components import component


@component
def train_trials(dataset: dsl.Input[dsl.Dataset], pack: str, experiment: str, store: str, gpus: str = "0") -> str:
    """Train the trials of one pack, as many at once as pays; a killed training goes on from its checkpoint.

    Args:
        dataset: The data set folder from prepare-data.
        pack: Name of the pack, from plan-sweep.
        experiment: Name of the experiment.
        store: Where the results of the trials and the checkpoints go.
        gpus: How many GPUs; "0" trains on the CPU, "1" on a GPU.

    Returns:
        The name of the pack, for what follows it.
    """
    from pathlib import Path

    from basekamp.sweeps.trials import train_trials

    train_trials(Path(dataset.path), pack, experiment=experiment, store=store, gpus=gpus)
    return pack
