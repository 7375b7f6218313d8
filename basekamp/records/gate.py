"""The champion gate: who may open the test split, what it said, and the immutable traces of both."""

import json
import tempfile
from pathlib import Path

from basekamp.data.dataset import Dataset
from basekamp.document import fetch_document
from basekamp.errors import InputError
from basekamp.evaluation.evaluate import Evaluation, Predictions, is_better, judge_predictions, predict_split
from basekamp.naming import Name, Value, format_name, new_id
from basekamp.records.record import Opening, Record, significant
from basekamp.records.shelf import MODEL, Row, Shelf, holds, id_in, read_record
from basekamp.records.verdict import Comparison, measure_difference
from basekamp.storage import Store


def may_open(store: Store, shelf: Shelf, comparison: Comparison, evaluation: Evaluation) -> bool:
    """Whether an attempt has earned a look at the test split: supported, and better than the champion so far."""
    champion = shelf.champion
    if comparison.verdict != "supported" or champion is None:
        return False
    return is_better(evaluation.metric, evaluation.metrics[evaluation.metric], read_record(store, champion).mean)


def open_test_split(
    store: Store, shelf: Shelf, data: Dataset, model: Path, *, metric: str, record_id: str, gpus: str
) -> Opening:
    """Measure the attempt, the baseline and the champion on the test split.

    The gate is passed when the attempt's mean is better there than the baseline's and the champion's.
    """
    baseline, champion = shelf.baseline, shelf.champion
    assert baseline is not None and champion is not None, "nothing is judged without a baseline"
    ours = predict_split(data, model, split="test", gpus=gpus)
    evaluation = judge_predictions(data, ours, metric=metric, split="test")
    others = {row.id: _stored_predictions(store, row, data, gpus) for row in (baseline, champion)}
    means = {
        key: judge_predictions(data, predictions, metric=metric, split="test").metrics[metric]
        for key, predictions in others.items()
    }
    difference = measure_difference(metric, ours, others[baseline.id])
    mean = evaluation.metrics[metric]
    return Opening(
        number=len(set(shelf.openings) - {record_id}) + 1,
        metrics=evaluation.metrics,
        replicates=evaluation.replicates,
        baseline_mean=means[baseline.id],
        difference=difference.value,
        interval=difference.interval(),
        champion=champion.id,
        champion_mean=means[champion.id],
        passed=all(is_better(metric, mean, other) for other in means.values()),
    )


def earlier_opening(store: Store, experiment: str, record_id: str) -> Opening | None:
    """The opening that an interrupted try for this record left: what was seen on the test split stays seen."""
    for entry in store.entries(f"{experiment}/openings/"):
        if id_in(entry.key) == record_id:
            return fetch_document(Opening, store, entry.key)
    return None


def record_opening(store: Store, record: Record) -> None:
    """Leave the trace of an opening and, when the gate was passed, of the promotion. Safe to repeat."""
    opening = record.opening
    if opening is None:
        return
    fields: dict[str, Value] = {
        "of": record.id,
        "passed": opening.passed,
        record.metric: significant(opening.metrics[record.metric]),
        "baseline": significant(opening.baseline_mean),
    }
    _put(
        store,
        record.experiment,
        "openings",
        Name("opening", fields, "json", record.id),
        opening.model_dump_json(indent=1),
    )
    if opening.passed:
        _put_promotion(store, record.experiment, of=record.id, by="gate", promotion_id=record.id)


def fall_back(store: Store, shelf: Shelf, row: Row) -> None:
    """Make `row` the champion again by a promotion record of its own; nothing is deleted.

    Raises InputError when its model was removed: a champion without one would be nothing to fall back to.
    """
    if not holds(store, row.key):
        raise InputError(
            f"the model of {row.name} was removed, by `basekamp gc` or by hand: choose another record, or train it "
            f"again with `basekamp run FILE --attempt {row.attempt}`."
        )
    when = shelf.next_time()
    _put_promotion(
        store, shelf.experiment, of=row.id, by="fallback", promotion_id=new_id(when, f"{when.isoformat()}/{row.id}")
    )


def _put_promotion(store: Store, experiment: str, *, of: str, by: str, promotion_id: str) -> None:
    name = Name("promotion", {"of": of, "by": by}, "json", promotion_id)
    _put(store, experiment, "promotions", name, json.dumps({"of": of, "by": by}))


def _put(store: Store, experiment: str, folder: str, name: Name, text: str) -> None:
    store.put(f"{experiment}/{folder}/{format_name(name)}", text.encode())


def _stored_predictions(store: Store, row: Row, data: Dataset, gpus: str) -> Predictions:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pth"
        store.fetch(row.beside(MODEL), path, durable=False)
        return predict_split(data, path, split="test", gpus=gpus)
