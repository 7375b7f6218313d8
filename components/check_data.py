"""Kubeflow component: data set to what breaks a rule."""

from kfp import dsl

from components import component


@component
def check_data(
    dataset: dsl.Input[dsl.Dataset],
    checked: dsl.Output[dsl.Artifact],
    store: str,
    experiment: str,
    attempt: str = "baseline",
    checks: dict[str, str] = {},  # noqa: B006 - kfp reads the default from the signature
):
    """Hold the data to the rules, and to the contract of the baseline's data; stop before anything is trained.

    Args:
        dataset: The data set folder from prepare-data.
        checked: Folder with checks.json: what breaks a rule, and for a baseline the contract to keep.
        store: Folder, s3://bucket/prefix or minio://bucket/prefix where records live.
        experiment: Name of the experiment.
        attempt: Name of the attempt; "baseline" for the baseline.
        checks: From rule to stop, warn or off; a rule that is left out has its default.
    """
    from pathlib import Path

    from basekamp.records.data_check import check_data

    folders = (Path(dataset.path), Path(checked.path))
    told = check_data(*folders, checks, store=store, experiment=experiment, attempt=attempt)
    print(told.text())
