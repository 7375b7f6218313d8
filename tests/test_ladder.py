"""The ladder: rungs that are measured on the data, cheaply, and how a report shows them."""

import numpy as np
import pytest

from basekamp.data.dataset import load_dataset, with_fewer_rows
from basekamp.evaluation import ladder as ladder_module
from basekamp.evaluation.evaluate import constant_outputs
from basekamp.evaluation.ladder import Ladder, Rung, measure_ladder
from basekamp.evaluation.metrics import metric_value
from basekamp.report.ladder import ladder_steps
from tests.made_records import LINEAR, MLP, make_record, make_row

pytestmark = pytest.mark.usefixtures("home")


def test_ladder_rises_from_the_majority_over_a_linear_model_to_trees(digits, tmp_path):
    ladder = measure_ladder(digits, tmp_path / "ladder", metric="accuracy")
    assert [rung.model for rung in ladder.rungs] == ["majority", "linear", "boosting"]
    validation = load_dataset(digits).split("validation").y
    floor = metric_value("accuracy", validation, constant_outputs(load_dataset(digits), len(validation)))
    values = [rung.metrics["accuracy"] for rung in ladder.rungs]
    assert values[0] == floor < 0.2 < 0.9 < min(values[1:])
    assert Ladder.read(tmp_path / "ladder") == ladder


def test_ladder_of_numbers_begins_with_the_mean(tables, tmp_path):
    ladder = measure_ladder(tables["regression"], tmp_path, metric="rmse")
    assert [rung.model for rung in ladder.rungs] == ["mean", "linear", "boosting"]
    values = [rung.metrics["rmse"] for rung in ladder.rungs]
    assert values[0] > values[1] and values[0] > values[2]


def test_large_data_is_measured_on_fewer_rows_and_rounds_and_says_so(digits, tmp_path, monkeypatch):
    rows = load_dataset(digits).schema.rows["train"]
    monkeypatch.setattr(ladder_module, "MOST_WORK", 64 * 10 * 40 * (rows // 2))
    monkeypatch.setattr(ladder_module, "FEWEST_ROWS", 100)
    ladder = measure_ladder(digits, tmp_path, metric="accuracy")
    assert ladder.rungs[2].note == f"40 rounds at most, on {rows // 2:,} of {rows:,} rows"
    assert ladder.rungs[2].metrics["accuracy"] > 0.85


def test_fewer_rows_are_the_first_ones_and_the_other_splits_stay(digits, tmp_path):
    whole = load_dataset(digits)
    part = load_dataset(with_fewer_rows(whole, tmp_path / "part", 100))
    assert part.schema.rows == {**whole.schema.rows, "train": 100}
    assert part.schema.dataset_fingerprint != whole.schema.dataset_fingerprint
    for name in ("train", "validation", "test"):
        for ours, theirs in zip(part.split(name), whole.split(name), strict=True):
            if theirs is not None:
                np.testing.assert_array_equal(ours, theirs[:100] if name == "train" else theirs)


def laddered(attempt: str, value: float, params: dict, **changes):
    rungs = [Rung(model=model, metrics={"accuracy": reached}) for model, reached in RUNGS.items()]
    record = make_record(attempt, {"accuracy": value, "loss": 0.1}, params, **changes)
    return record.model_copy(update={"ladder": Ladder(rungs=rungs)})


RUNGS = {"majority": 0.1, "linear": 0.6, "boosting": 0.8}


def test_steps_end_with_the_best_and_show_this_attempt_where_it_is_not():
    baseline = laddered("baseline", 0.5, {"model": "mlp"})
    record = laddered("wider", 0.7, MLP, baseline=baseline, minute=1)
    rows = [make_row(0.5, role="baseline"), make_row(0.9, attempt="deep"), make_row(0.7)]
    steps = ladder_steps(record, baseline, rows)
    assert [step.name for step in steps] == ["majority", "linear", "boosting", "this attempt", "best so far"]
    assert [step.share for step in steps] == pytest.approx([0, 0.625, 0.875, 0.75, 1])
    assert [step.is_this for step in steps] == [False, False, False, True, False]
    assert steps[-1].note == "deep"


def test_linear_baseline_stands_for_the_linear_rung():
    baseline = laddered("baseline", 0.55, LINEAR)
    steps = ladder_steps(baseline, None, [make_row(0.55, role="baseline")])
    assert [(step.name, step.value) for step in steps][1] == ("linear", 0.55)
    assert steps[1].note == "the baseline, 3 seeds"


def test_steps_of_a_minimised_metric_climb_downwards_and_never_below_the_lowest():
    rungs = [Rung(model=m, metrics={"rmse": v}) for m, v in (("mean", 4.0), ("linear", 5.0), ("boosting", 2.0))]
    baseline = make_record("baseline", {"rmse": 4.0, "loss": 16.0}, {"model": "mean"}, metric="rmse")
    record = make_record("deep", {"rmse": 1.0, "loss": 1.0}, MLP, metric="rmse", baseline=baseline, minute=1)
    record = record.model_copy(update={"ladder": Ladder(rungs=rungs)})
    rows = [make_row(4.0, metric="rmse", role="baseline"), make_row(1.0, metric="rmse", id=record.id)]
    steps = ladder_steps(record, baseline, rows)
    assert [step.share for step in steps] == pytest.approx([0, 0, 2 / 3, 1])
    assert steps[-1].is_this


def test_record_without_a_ladder_shows_none():
    record = make_record("baseline", {"accuracy": 0.5, "loss": 0.1}, LINEAR)
    assert ladder_steps(record, None, [make_row(0.5, role="baseline")]) == []
