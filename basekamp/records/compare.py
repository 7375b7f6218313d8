"""Judge one run against the baseline and put its record into the store."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from basekamp.data.dataset import Dataset, Schema, load_dataset
from basekamp.data.facts import read_profile
from basekamp.diagnosis.network_health import read_network_health
from basekamp.errors import InputError
from basekamp.evaluation.evaluate import PREDICTIONS_FILE, Evaluation, Predictions, read_evaluation
from basekamp.evaluation.ladder import Ladder
from basekamp.evaluation.worst import read_worst
from basekamp.hyperparameters import Hyperparameters
from basekamp.language import speaking
from basekamp.naming import Value, id_digest, id_time, new_id
from basekamp.records.data_check import CheckedData
from basekamp.records.gate import earlier_opening, may_open, open_test_split, record_opening
from basekamp.records.record import BASELINE, DataFacts, Opening, Record, differing, file_name, record_name
from basekamp.records.shelf import (
    MODEL,
    PREDICTIONS,
    RECORD,
    REPORT,
    TRACE,
    Shelf,
    id_in,
    read_record,
    read_shelf,
    record_key,
    stem,
)
from basekamp.records.verdict import (
    Comparison,
    Difference,
    judge,
    level_of_look,
    measure_difference,
    seeds_needed,
)
from basekamp.report.attempt import attempt_html, attempt_markdown
from basekamp.report.sentence import verdict_sentence
from basekamp.storage import Store, open_store
from basekamp.storage.protocol import write_whole
from basekamp.training.results import MODEL_FILE, TRACE_FILE, Training

FEWEST_SEEDS = 2
_ANY_TIME = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Question:
    """What a run asks: which attempt of which experiment, and the hypothesis behind it.

    `run` names the run itself: the same run gives the same record id, however often a step is repeated. `image` is
    the reference of the image that it runs in, where there is one.
    """

    experiment: str
    attempt: str
    hypothesis: str
    expect: float
    run: str
    image: str = ""

    def new_id(self, when: datetime) -> str:
        """An id of a time and of this question."""
        return new_id(when, f"{self.run}/{self.experiment}/{self.attempt}")

    def is_of(self, record_id: str) -> bool:
        """Whether an id is of this question, whenever it was made."""
        return id_digest(record_id) == id_digest(self.new_id(_ANY_TIME))


@dataclass(frozen=True)
class Folders:
    """What `prepare_data`, `train_model`, `evaluate_model`, `measure_ladder` and `check_data` wrote for one run.

    Without `checked`, the record tells of no check.
    """

    dataset: Path
    model: Path
    evaluation: Path
    ladder: Path
    checked: Path | None = None


@dataclass(frozen=True)
class _Evidence:
    """What a record is made from: the folders of one run, and the store with what it holds already."""

    folders: Folders
    data: Dataset
    store: Store
    shelf: Shelf
    baseline: Record | None
    gpus: str


def compare_models(
    folders: Folders, question: Question, *, store: str, html: Path, markdown: Path, gpus: str = "0"
) -> Record:
    """Judge the run, put its record into the store, and write the report as HTML and Markdown.

    The store gets the predictions, the model, the report and at last the JSON, which makes the record exist. Called
    again, it gives the same record; after a call that was cut off, it completes it under the same id.

    Raises InputError when an attempt has no baseline, or one of another metric or target, StoreError when the
    store fails.
    """
    opened = open_store(store)
    shelf = read_shelf(opened, question.experiment)
    next_id = question.new_id(shelf.next_time())
    stored = next((row for row in shelf.every if question.is_of(row.id)), None)
    shelf = shelf.at(stored.lineage) if stored else shelf
    baseline = read_record(opened, shelf.baseline) if shelf.baseline else None
    leftovers = [] if stored else _leftovers(opened, question)
    if stored:
        record = read_record(opened, stored)
    else:
        evidence = _Evidence(folders, load_dataset(folders.dataset), opened, shelf, baseline, gpus)
        record = _make_record(evidence, question, (id_in(leftovers[0]) if leftovers else None) or next_id)
    write_whole(html, attempt_html(record, baseline, shelf))
    write_whole(markdown, attempt_markdown(record, baseline))
    if not stored:
        _put(evidence, record, html, leftovers)
    return record


def _make_record(evidence: _Evidence, question: Question, record_id: str) -> Record:
    told, predictions = read_evaluation(evidence.folders.evaluation)
    training = Training.read(evidence.folders.model)
    if len(training.replicates) < FEWEST_SEEDS:
        raise InputError(f"seeds={len(training.replicates)} is not allowed: use 2 or more, one seed tells no noise.")
    folders = evidence.folders
    checked = CheckedData.read(folders.checked) if folders.checked else CheckedData(findings=[], compared=False)
    params = Hyperparameters.model_validate(training.hyperparameters).effective()
    baseline = evidence.baseline
    differs = differing(params, baseline.params) if baseline else {}
    comparison = opening = None
    if question.attempt != BASELINE:
        comparison, opening = _judge(evidence, question, told, predictions, params=params, record_id=record_id)
    name = file_name(record_name(record_id, params, told, comparison), first=differs)
    return Record(
        id=record_id,
        name=name,
        key=record_key(question.experiment, question.attempt, name),
        experiment=question.experiment,
        role="baseline" if question.attempt == BASELINE else "attempt",
        attempt=question.attempt,
        hypothesis=question.hypothesis,
        created=id_time(record_id),
        run=question.run,
        image=question.image,
        metric=told.metric,
        data=_data_facts(evidence.data.schema),
        params=params,
        differs=differs,
        training=training,
        evaluation=told,
        comparison=comparison,
        opening=opening,
        ladder=Ladder.read(evidence.folders.ladder),
        network=read_network_health(evidence.folders.evaluation),
        worst=read_worst(evidence.folders.evaluation),
        profile=read_profile(evidence.data.directory),
        checks=checked.findings,
        contract=checked.contract,
        files={
            MODEL: _digest(evidence.folders.model / MODEL_FILE),
            PREDICTIONS: _digest(evidence.folders.evaluation / PREDICTIONS_FILE),
        },
    )


def _judge(
    evidence: _Evidence,
    question: Question,
    told: Evaluation,
    predictions: Predictions,
    *,
    params: dict[str, Value],
    record_id: str,
) -> tuple[Comparison, Opening | None]:
    """Compare with the baseline on the validation split; open the test split for an attempt that has earned it."""
    store, shelf, data = evidence.store, evidence.shelf, evidence.data
    baseline = _comparable(evidence.baseline, question, told, data.schema)
    theirs = Predictions.fetch(store, stem(baseline.key) + PREDICTIONS)
    difference = measure_difference(told.metric, predictions, theirs)
    judged_before = shelf.judged_before(params, len(told.replicates))
    comparison = compare_with(baseline, difference, told, expect=question.expect, judged_before=judged_before)
    opening = earlier_opening(store, question.experiment, record_id)
    is_same_data = data.schema.dataset_fingerprint == baseline.data.dataset
    if opening is None and is_same_data and may_open(store, shelf, comparison, told):
        model = evidence.folders.model / MODEL_FILE
        opening = open_test_split(
            store, shelf, data, model, metric=told.metric, record_id=record_id, gpus=evidence.gpus
        )
    return comparison, opening


def _comparable(baseline: Record | None, question: Question, told: Evaluation, schema: Schema) -> Record:
    """The baseline, when there is one and it answers the same question."""
    if baseline is None:
        raise InputError(
            f"{question.experiment} has no baseline to judge {question.attempt} against: run the baseline first "
            "(`basekamp run FILE` does)."
        )
    same = {
        "metric": (told.metric, baseline.metric),
        "target": (schema.target, baseline.data.target),
        "task": (schema.task, baseline.data.task),
        "classes": (", ".join(told.classes), ", ".join(baseline.evaluation.classes)),
    }
    for key, (ours, theirs) in same.items():
        if ours != theirs:
            raise InputError(
                f"{key}: {ours:.100} of {question.attempt} is not the {theirs:.100} of the baseline of "
                f"{question.experiment}: give the changed question an experiment name of its own."
            )
    return baseline


def compare_with(
    baseline: Record, difference: Difference, evaluation: Evaluation, *, expect: float, judged_before: int
) -> Comparison:
    """Turn a measured difference into a verdict with everything that led to it."""
    verdict, level = judge(difference, expect=expect, judged_before=judged_before)
    next_level = level_of_look(judged_before + 1)
    needed = seeds_needed(difference, expect=expect, level=next_level) if verdict == "inconclusive" else None
    with speaking("en"):  # records are in one language, pages in any
        sentence = verdict_sentence(verdict, difference, expect=expect, level=level, needed=needed)
    return Comparison(
        baseline=baseline.name,
        baseline_mean=baseline.mean,
        attempt_mean=evaluation.metrics[evaluation.metric],
        difference=difference,
        interval=difference.interval(),
        judged_before=judged_before,
        level=level,
        judged_interval=difference.interval(level),
        expect=expect,
        verdict=verdict,
        seeds_needed=needed,
        sentence=sentence,
    )


def _put(evidence: _Evidence, record: Record, html: Path, leftovers: list[str]) -> None:
    """Write the record's files, the JSON last, then remove what an interrupted try had under another name."""
    store, base = evidence.store, stem(record.key)
    store.put(base + PREDICTIONS, evidence.folders.evaluation / PREDICTIONS_FILE)
    store.put(base + MODEL, evidence.folders.model / MODEL_FILE)
    for extension in (REPORT, TRACE):  # the one may show fewer records than there are now, the other another training
        if base + extension in leftovers:
            store.delete(base + extension)
    store.put(base + REPORT, html)
    if (evidence.folders.model / TRACE_FILE).is_file():
        store.put(base + TRACE, evidence.folders.model / TRACE_FILE)
    record_opening(store, record)
    store.put(base + RECORD, record.model_dump_json(indent=1).encode())
    for key in leftovers:
        if stem(key) != base:
            store.delete(key)


def _leftovers(store: Store, question: Question) -> list[str]:
    """Keys that an interrupted try of this very run wrote: without the JSON they are no record yet."""
    keys = (entry.key for entry in store.entries(record_key(question.experiment, question.attempt, "")))
    return [key for key in keys if (found := id_in(key)) and question.is_of(found)]


def _data_facts(schema: Schema) -> DataFacts:
    return DataFacts(
        source=schema.source,
        target=schema.target,
        task=schema.task,
        fingerprint=schema.fingerprint,
        dataset=schema.dataset_fingerprint,
        rows=dict(schema.rows),
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
