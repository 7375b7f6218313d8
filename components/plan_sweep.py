"""Kubeflow component: what a round of a sweep trains."""

from kfp import dsl

from components import component


@component
def plan_sweep(
    dataset: dsl.Input[dsl.Dataset],
    experiment: str,
    metric: str,
    store: str,
    sweep: str,
    settings: str,
    round_number: int,
    packs: int = 1,
    done: list[str] = [],  # noqa: B006 - kfp reads the default from the signature
) -> list[str]:
    """Plan one round of a sweep from what the rounds before came to.

    Args:
        dataset: The data set folder from prepare-data.
        experiment: Name of the experiment; it must have a baseline.
        metric: Deciding metric.
        store: Folder, s3://bucket/prefix or minio://bucket/prefix where records live.
        sweep: The sweep block of the experiment file, as a JSON object.
        settings: Every hyperparameter that the trials start from, as a JSON object.
        round_number: Which round, from 0.
        packs: How many parts of the round train at once.
        done: The packs of the round before, which has to end first.

    Returns:
        The names of the round's packs.
    """
    from pathlib import Path

    from basekamp.sweeps.rounds import SweepRun, plan_round

    run = SweepRun.of(experiment=experiment, metric=metric, store=store, sweep=sweep, settings=settings)
    return plan_round(Path(dataset.path), run, number=round_number, packs=packs)
