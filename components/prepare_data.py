"""Kubeflow component: source to data set."""

from kfp import dsl

from components import component


@component
def prepare_data(
    source: str,
    target: str,
    dataset: dsl.Output[dsl.Dataset],
    profile: dsl.Output[dsl.HTML],
    task: str = "auto",
    drop: list[str] = [],  # noqa: B006 - kfp reads the default from the signature
    rare: int = 10,
    validation: float = 0.15,
    test: float = 0.2,
    group: str = "",
    time: str = "",
    data_version: str = "bytes",
    reading: dict[str, object] = {},  # noqa: B006
    data_fingerprint: str = "",
    code_version: str = "",
):
    """Clean a source, split it by row hashes, and write it as memory-mapped tensors.

    Args:
        source: Path, URL, s3:// or minio:// object, or a bundled data set such as sklearn:digits.
        target: Name of the column to predict.
        dataset: The data set folder: x, y and row hashes per split, and schema.json.
        profile: What is in the data, column by column.
        task: auto, classification or regression.
        drop: Columns to leave out, such as known leaks.
        rare: Categories seen less often than this in the training split become one "other".
        validation: Share of rows for the validation split.
        test: Share of rows for the test split.
        group: Column whose equal values stay in one split; empty for none.
        time: Column of dates or numbers by which the newest rows are for testing; empty for none.
        data_version: What the fingerprint is of: bytes of the file, or content of its rows in any order.
        reading: How files are read: on_bad_row, missing and others, as data.reading in the experiment file.
        data_fingerprint: Fingerprint the source must have; empty for any. Part of the cache key.
        code_version: Version of the code; part of the cache key.
    """
    import shutil
    from pathlib import Path

    from basekamp.data.prepare import prepare_data
    from basekamp.experiment import DataSettings, Reading, Split

    split = Split(validation=validation, test=test, group=group, time=time)
    named = {"source": source, "target": target, "task": task, "version": data_version}
    how = Reading.model_validate(reading)
    settings = DataSettings(drop=tuple(drop), rare=rare, split=split, reading=how, **named)
    prepared = prepare_data(settings, Path(dataset.path), fingerprint=data_fingerprint)
    dataset.metadata.update(fingerprint=prepared.schema.fingerprint, task=prepared.schema.task)
    shutil.copyfile(prepared.directory / "profile.html", profile.path)
