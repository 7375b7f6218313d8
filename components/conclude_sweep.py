"""Kubeflow component: all trials to one report and one winner."""

from kfp import dsl

from components import component


@component
def conclude_sweep(report: dsl.Output[dsl.HTML], done: list[str], experiment: str, store: str) -> str:
    """Choose the winner of a sweep and write the report of all trials.

    Args:
        report: Every trial on one HTML page.
        done: The packs of the last round.
        experiment: Name of the experiment.
        store: Folder, s3://bucket/prefix or minio://bucket/prefix where records live.

    Returns:
        Every hyperparameter of the winner, as a JSON object.
    """
    from pathlib import Path

    from basekamp.sweeps.conclude import conclude_sweep

    return conclude_sweep(done, experiment=experiment, store=store, html=Path(report.path))
