"""Whether the baseline still reproduces: trained again as it was recorded, and compared with what was recorded."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from basekamp.data.dataset import Dataset
from basekamp.data.prepare import prepare_data
from basekamp.errors import InputError
from basekamp.evaluation.evaluate import Evaluation, Predictions, evaluate_model, read_evaluation
from basekamp.experiment import Experiment
from basekamp.hyperparameters import Hyperparameters
from basekamp.records.pinned import other_question
from basekamp.records.record import Record
from basekamp.records.shelf import PREDICTIONS, read_record, read_shelf, stem
from basekamp.records.verdict import Difference, measure_difference
from basekamp.report.numbers import between, change, number, signed
from basekamp.storage import Store, open_store
from basekamp.training.results import MODEL_FILE, Training


class Result(BaseModel):
    """The deciding metric over the seeds: mean and sample standard deviation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    spread: float
    n: int


class Verification(BaseModel):
    """The baseline trained again beside its record. Differences are today minus recorded.

    identical: every metric of every seed is, to the last digit. difference: None where fewer than half of the examples
    are the recorded ones. changed: what is not as it was recorded, as {what: (recorded, today)}.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    experiment: str
    baseline: str
    metric: str
    recorded: Result
    today: Result
    identical: bool
    difference: float | None
    interval: tuple[float, float] | None
    reproduces: bool
    changed: dict[str, tuple[str, str]]
    sentence: str


def verify_baseline(experiment: Experiment, *, store: str, gpus: str = "0") -> Verification:
    """Train the pinned baseline again, with its recorded settings and seeds on the file's data, and compare.

    Nothing of it is kept. It reproduces when it is identical, or when the 95 % interval of the difference, over the
    recorded noise of the seeds and the examples that both were measured on, holds zero.

    Raises InputError when there is no baseline, or the file asks another question.
    """
    opened = open_store(store)
    row = read_shelf(opened, experiment.experiment).baseline
    if row is None:
        raise InputError(
            f"{experiment.experiment} has no baseline in {opened.url} to verify: make one with `basekamp run FILE`."
        )
    record = read_record(opened, row)
    for key, (recorded, theirs) in other_question(record, experiment).items():
        raise InputError(
            f"{key}: {theirs} of the file is not the {recorded} of the baseline of {experiment.experiment}: verify "
            "with the file that it was recorded from."
        )
    with tempfile.TemporaryDirectory(prefix="basekamp-") as scratch:
        return compare_with_record(record, opened, _train_again(record, experiment, Path(scratch), gpus=gpus))


@dataclass(frozen=True)
class Again:
    """What the second training came to."""

    data: Dataset
    training: Training
    evaluation: Evaluation
    predictions: Predictions


def compare_with_record(record: Record, store: Store, again: Again) -> Verification:
    """Tell what is alike and what has changed."""
    told = again.evaluation
    identical = told.replicates == record.evaluation.replicates
    difference = _difference(record, store, again.predictions)
    low, high = difference.interval() if difference else (0.0, 0.0)
    reproduces = identical or (difference is not None and low <= 0 <= high)
    results = {"recorded": _result(record.evaluation), "today": _result(told)}
    return Verification(
        experiment=record.experiment,
        baseline=record.name,
        metric=record.metric,
        **results,
        identical=identical,
        difference=difference.value if difference else None,
        interval=(low, high) if difference else None,
        reproduces=reproduces,
        changed=_changed(record, again),
        sentence=_sentence(record.metric, **results, identical=identical, difference=difference, holds=reproduces),
    )


def _train_again(record: Record, experiment: Experiment, folder: Path, *, gpus: str) -> Again:
    from basekamp.training.train import train_model  # torch takes longer to import than a wrong file to refuse

    dataset, model, told = folder / "data", folder / "model", folder / "told"
    replicates = record.training.replicates
    data = prepare_data(experiment.data, dataset)
    training = train_model(
        dataset,
        model,
        Hyperparameters.model_validate(record.training.hyperparameters),
        metric=record.metric,
        seeds=len(replicates),
        first_seed=replicates[0].seed,
        gpus=gpus,
    )
    evaluate_model(dataset, model / MODEL_FILE, told, metric=record.metric, gpus=gpus)
    return Again(data, training, *read_evaluation(told))


def _difference(record: Record, store: Store, predictions: Predictions) -> Difference | None:
    """Today against recorded; None when they share too few examples.

    The recorded noise is the yardstick of both: what is noisier today would else pass for the same.
    """
    recorded = Predictions.fetch(store, stem(record.key) + PREDICTIONS)
    try:
        told = measure_difference(record.metric, predictions, recorded)
    except InputError:
        return None
    of_both = told.variance_seeds_baseline * (1 + told.n_seeds[1] / told.n_seeds[0])
    return told.model_copy(update={"variance_seeds_attempt": 0.0, "variance_seeds_baseline": of_both})


def _result(evaluation: Evaluation) -> Result:
    metric = evaluation.metric
    return Result(mean=evaluation.metrics[metric], spread=evaluation.spread[metric], n=len(evaluation.replicates))


def _changed(record: Record, again: Again) -> dict[str, tuple[str, str]]:
    """What is not as it was; what an older release did not record is left out."""
    schema = again.data.schema
    pairs: dict[str, tuple[str | None, str]] = {
        "source": (record.data.source, schema.source),
        "data": (record.data.fingerprint, schema.fingerprint),
        "prepared data": (record.data.dataset, schema.dataset_fingerprint),
        "device": (record.training.device, again.training.device),
    }
    versions = record.training.versions
    pairs |= {package: (versions.get(package), version) for package, version in again.training.versions.items()}
    return {what: (before, now) for what, (before, now) in pairs.items() if before is not None and before != now}


def _sentence(
    metric: str, *, recorded: Result, today: Result, identical: bool, difference: Difference | None, holds: bool
) -> str:
    measured = f"{metric} was recorded as {_told(recorded)} and is {_told(today)} today"
    if identical:
        return f"{measured}: it reproduces, identical to the last digit."
    if difference is None:
        return f"{measured}: it does not reproduce, fewer than half of the examples are those it was measured on."
    apart = f"the difference is {signed(difference.value)}, 95 % interval {between(difference.interval())}"
    return f"{measured}: it {'reproduces' if holds else 'does not reproduce'}, {apart}."


def _told(result: Result) -> str:
    return f"{number(result.mean)} ± {change(result.spread)} over {result.n} seeds"
