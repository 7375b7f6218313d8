"""Kubeflow component: evaluation to verdict, record and report."""

from kfp import dsl

from components import component


@component
def compare_models(
    dataset: dsl.Input[dsl.Dataset],
    model_file: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    ladder: dsl.Input[dsl.Artifact],
    checked: dsl.Input[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    summary: dsl.Output[dsl.Markdown],
    record: dsl.Output[dsl.Artifact],
    store: str,
    experiment: str,
    run_id: str,
    attempt: str = "baseline",
    hypothesis: str = "",
    expect: float = 0.0,
    image: str = "",
    gpus: str = "0",
    tracking: str = "",
):
    """Judge an attempt against the baseline, put its record into the store, and write the report.

    Args:
        dataset: The data set folder from prepare-data.
        model_file: The model folder from train-model.
        evaluation: The evaluation folder from evaluate-model.
        ladder: The ladder folder from measure-ladder.
        checked: The folder from check-data.
        report: The report as one HTML page.
        summary: The verdict and its table as Markdown.
        record: The record as JSON.
        store: Folder, s3://bucket/prefix or minio://bucket/prefix where records live.
        experiment: Name of the experiment.
        run_id: Name of this run; a repeated step of the same run gives the same record.
        attempt: Name of the attempt; "baseline" for the baseline.
        hypothesis: Why the attempt should be better.
        expect: Smallest gain that matters, in the metric's unit.
        image: Reference of the image that ran, for the record.
        gpus: How many GPUs; "0" evaluates on the CPU.
        tracking: Trackers to tell of the verdict, such as mlflow.
    """
    from pathlib import Path

    from basekamp.records.compare import Folders, Question
    from basekamp.records.waiting import compare_or_keep
    from basekamp.tracking.judged import tell_trackers

    named = {"experiment": experiment, "attempt": attempt, "run": run_id, "image": image}
    question = Question(hypothesis=hypothesis, expect=expect, **named)
    pages = {"html": Path(report.path), "markdown": Path(summary.path)}
    folders = Folders(*(Path(each.path) for each in (dataset, model_file, evaluation, ladder, checked)))
    written = compare_or_keep(folders, question, store=store, gpus=gpus, tracking=tracking, **pages)
    Path(record.path).write_text(written.model_dump_json(indent=1))
    record.metadata.update(name=written.name, key=written.key)
    tell_trackers(tracking, Path(model_file.path), written, store=store)
