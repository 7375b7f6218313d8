"""Kubeflow component: data set to the ladder that every attempt stands on."""

from kfp import dsl

from components import component


@component
def measure_ladder(
    dataset: dsl.Input[dsl.Dataset],
    rungs: dsl.Output[dsl.Metrics],
    ladder: dsl.Output[dsl.Artifact],
    metric: str,
    code_version: str = "",
):
    """Measure what knowing nothing, a linear model and boosted trees reach, once for a data set.

    Args:
        dataset: The data set folder from prepare-data.
        rungs: The deciding metric of each rung.
        ladder: Folder with ladder.json, every metric of each rung.
        metric: Deciding metric.
        code_version: Version of the code; part of the cache key.
    """
    from pathlib import Path

    from basekamp.evaluation.ladder import measure_ladder

    measured = measure_ladder(Path(dataset.path), Path(ladder.path), metric=metric)
    measured.log(rungs, metric)
