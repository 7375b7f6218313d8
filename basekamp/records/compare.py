"""Judge one run against the baseline and put its record into the store."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from basekamp.data.dataset import Schema, load_dataset
from basekamp.errors import InputError
from basekamp.evaluation.evaluate import PREDICTIONS_FILE, Evaluation, Predictions, read_evaluation
from basekamp.evaluation.goals import RESULT_KEYS
from basekamp.hyperparameters import Hyperparameters
from basekamp.naming import id_digest, id_time, new_id, parse_name
from basekamp.records.gate import may_open, open_test_split, record_opening
from basekamp.records.record import BASELINE, DataFacts, Record, differing, file_name, record_name
from basekamp.records.shelf import MODEL, PREDICTIONS, RECORD, REPORT, Shelf, read_record, read_shelf, record_key, stem
from basekamp.records.verdict import Comparison, Difference, Verdict, judge, measure_difference, seeds_needed
from basekamp.report.attempt import attempt_html, attempt_markdown
from basekamp.storage import Store, open_store
from basekamp.training.results import MODEL_FILE, Training


@dataclass(frozen=True)
class Question:
    """What a run asks: which attempt of which experiment, and the hypothesis behind it.

    `run` names the run itself: the same run gives the same record id, however often a step is repeated.
    """

    experiment: str
    attempt: str
    hypothesis: str
    expect: float
    run: str


def compare_models(
    dataset: Path,
    model: Path,
    evaluation: Path,
    question: Question,
    *,
    store: str,
    html: Path,
    markdown: Path,
    gpus: str = "0",
) -> Record:
    """Judge the run, put its record into the store, and write the report as HTML and Markdown.

    `model` and `evaluation` are the folders that `train_model` and `evaluate_model` wrote. The store gets the
    predictions, the model, the report and at last the JSON, which makes the record exist.

    Raises InputError when an attempt has no baseline, StoreError when the store fails.
    """
    opened = open_store(store)
    shelf = read_shelf(opened, question.experiment)
    baseline = read_record(opened, shelf.baseline) if shelf.baseline else None
    earlier = next((row for row in shelf.rows if _is_of(row.id, question)), None)
    if earlier:
        record = read_record(opened, earlier)
    else:
        record = _judge(opened, shelf, baseline, question, dataset, model, evaluation, gpus)
    page = attempt_html(record, baseline, shelf)
    html.write_text(page, encoding="utf-8")
    markdown.write_text(attempt_markdown(record, baseline), encoding="utf-8")
    if not earlier:
        _put(opened, record, model, evaluation, html)
    return record


def _judge(
    store: Store,
    shelf: Shelf,
    baseline: Record | None,
    question: Question,
    dataset: Path,
    model: Path,
    evaluation: Path,
    gpus: str,
) -> Record:
    data = load_dataset(dataset)
    told, predictions = read_evaluation(evaluation)
    training = Training.read(model)
    params = Hyperparameters.model_validate(training.hyperparameters).effective()
    differs = differing(params, baseline.params) if baseline else {}
    comparison = opening = None
    record_id = _record_id(store, question)
    if question.attempt != BASELINE:
        if baseline is None or shelf.baseline is None:
            raise InputError(
                f"{question.experiment} has no baseline to judge {question.attempt} against: run the baseline first "
                "(`basekamp run FILE` does)."
            )
        theirs = Predictions.from_bytes(store.get(shelf.baseline.beside(PREDICTIONS)))
        difference = measure_difference(told.metric, predictions, theirs)
        comparison = compare_with(
            baseline, difference, told, expect=question.expect, judged_before=shelf.judged_before(params)
        )
        if data.schema.dataset_fingerprint == baseline.data.dataset and may_open(store, shelf, comparison, told):
            opening = open_test_split(
                store, shelf, data, model / MODEL_FILE, metric=told.metric, record_id=record_id, gpus=gpus
            )
    name = file_name(record_name(record_id, params, told, comparison), first=(*RESULT_KEYS, *told.metrics, *differs))
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
        metric=told.metric,
        data=_data_facts(data.schema),
        params=params,
        differs=differs,
        training=training,
        evaluation=told,
        comparison=comparison,
        opening=opening,
        files={
            MODEL: _digest(model / MODEL_FILE),
            PREDICTIONS: _digest(evaluation / PREDICTIONS_FILE),
        },
    )


def compare_with(
    baseline: Record, difference: Difference, evaluation: Evaluation, *, expect: float, judged_before: int
) -> Comparison:
    """Turn a measured difference into a verdict with everything that led to it."""
    verdict, level = judge(difference, expect=expect, judged_before=judged_before)
    needed = seeds_needed(difference, expect=expect, level=level) if verdict == "inconclusive" else None
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
        sentence=_sentence(verdict, difference, expect=expect, level=level, needed=needed),
    )


def _sentence(verdict: Verdict, difference: Difference, *, expect: float, level: float, needed: int | None) -> str:
    gain, half = difference.gain, difference.half_width(level)
    measured = (
        f"{difference.metric} is {abs(gain):.4g} {'better' if gain >= 0 else 'worse'} (± {half:.2g} at {level:.1%})"
    )
    if verdict == "supported":
        return f"{measured}, a gain of at least the {expect:g} hoped for, and no difference is ruled out."
    if verdict == "refuted":
        return f"{measured}: a gain of {expect:g} is ruled out."
    if needed:
        return f"{measured}: undecided; about {needed} seeds would decide it."
    return f"{measured}: undecided, and more seeds cannot decide it; more validation examples or a larger expect can."


def _put(store: Store, record: Record, model: Path, evaluation: Path, html: Path) -> None:
    base = stem(record.key)
    store.put(base + PREDICTIONS, evaluation / PREDICTIONS_FILE)
    store.put(base + MODEL, model / MODEL_FILE)
    store.put(base + REPORT, html)
    record_opening(store, record)
    store.put(base + RECORD, record.model_dump_json(indent=1).encode())


def _record_id(store: Store, question: Question) -> str:
    """The id that an earlier, interrupted try of this very step used, or a new one."""
    for entry in store.entries(record_key(question.experiment, question.attempt, "")):
        found = parse_name(PurePosixPath(entry.key).name).id
        if found and _is_of(found, question):
            return found
    return new_id(datetime.now(UTC), _run_key(question))


def _is_of(record_id: str, question: Question) -> bool:
    return id_digest(record_id) == id_digest(new_id(datetime.now(UTC), _run_key(question)))


def _run_key(question: Question) -> str:
    return f"{question.run}/{question.experiment}/{question.attempt}"


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
