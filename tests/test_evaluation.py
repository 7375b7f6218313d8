"""Metrics against scikit-learn, and what an evaluation tells, on every task and in every corner."""

import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from kfp import dsl
from sklearn import metrics as reference

from basekamp.data.dataset import Cleaning, Dataset, Schema, SplitArrays, load_dataset, save_split
from basekamp.data.prepare import prepare_data
from basekamp.errors import InputError
from basekamp.evaluation import evaluate
from basekamp.evaluation.evaluate import (
    Evaluation,
    Predictions,
    constant_outputs,
    evaluate_model,
    is_better,
    judge_predictions,
    predict_split,
    read_evaluation,
)
from basekamp.evaluation.goals import CLASSIFICATION_METRICS, METRICS, REGRESSION_METRICS
from basekamp.evaluation.metrics import all_metrics, metric_value
from basekamp.evaluation.predict import predict
from basekamp.experiment import DataSettings
from basekamp.hyperparameters import Hyperparameters
from basekamp.models.build import build_model
from basekamp.training.train import train_model

CLOSE = 1e-9
FEW = settings(max_examples=40, deadline=None)


@st.composite
def classified(draw: st.DrawFn, fewest: int = 2, most: int = 6):
    """Targets int64 [n] and probabilities float32 [n, k], many of them equal."""
    k, n = draw(st.integers(fewest, most)), draw(st.integers(2, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weights = rng.integers(0, 4, (n, k)) + 0.01 if draw(st.booleans()) else rng.random((n, k)) ** 3 + 1e-9
    present = draw(st.integers(1, k))  # the other classes are absent from the targets
    targets = rng.choice(rng.permutation(k)[:present], n).astype(np.int64)
    return targets, (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


@given(classified())
@FEW
def test_accuracy_and_f1_agree_with_scikit_learn(table):
    targets, outputs = table
    answers = outputs.argmax(axis=1)
    told = all_metrics(targets, outputs)
    assert told["accuracy"] == pytest.approx(reference.accuracy_score(targets, answers), abs=CLOSE)
    f1 = reference.f1_score(targets, answers, average="macro", zero_division=0.0)
    assert told["f1"] == pytest.approx(f1, abs=CLOSE)
    with warnings.catch_warnings():  # scikit-learn warns of answers that are no target
        warnings.simplefilter("ignore")
        balanced = reference.balanced_accuracy_score(targets, answers)
    assert told["balanced_accuracy"] == pytest.approx(balanced, abs=CLOSE)


@given(classified())
@FEW
def test_loss_agrees_with_scikit_learn(table):
    targets, outputs = table
    outputs = np.maximum(outputs, 1e-7).astype(np.float64)
    labels = range(outputs.shape[1])
    expected = reference.log_loss(targets, outputs / outputs.sum(axis=1, keepdims=True), labels=labels)
    assert metric_value("loss", targets, outputs.astype(np.float32)) == pytest.approx(expected, abs=1e-5)


@given(classified(most=2))
@FEW
def test_auc_of_two_classes_agrees_with_scikit_learn(table):
    targets, outputs = table
    assume(len(np.unique(targets)) == 2)
    expected = reference.roc_auc_score(targets, outputs[:, 1])
    assert metric_value("auc", targets, outputs) == pytest.approx(expected, abs=CLOSE)


@given(classified(fewest=3))
@FEW
def test_auc_of_many_classes_agrees_with_scikit_learn_one_against_the_rest(table):
    targets, outputs = table
    present = np.unique(targets)
    assume(len(present) >= 2)
    expected = np.mean([reference.roc_auc_score(targets == label, outputs[:, label]) for label in present])
    assert metric_value("auc", targets, outputs) == pytest.approx(expected, abs=CLOSE)


def test_auc_agrees_with_scikit_learn_in_its_own_one_vs_rest_mode():
    rng = np.random.default_rng(3)
    targets, outputs = rng.integers(0, 4, 300), rng.dirichlet(np.ones(4), 300)
    expected = reference.roc_auc_score(targets, outputs, multi_class="ovr", average="macro")
    assert metric_value("auc", targets, outputs) == pytest.approx(expected, abs=CLOSE)


@given(st.integers(0, 2**32 - 1), st.integers(2, 80), st.sampled_from([1e-3, 1.0, 1e6]))
@FEW
def test_regression_metrics_agree_with_scikit_learn(seed, n, scale):
    rng = np.random.default_rng(seed)
    targets = (rng.normal(5, 2, n) * scale).astype(np.float32)
    outputs = (targets + rng.normal(0, 1, n) * scale).astype(np.float32)
    told = all_metrics(targets, outputs)
    wide = targets.astype(np.float64), outputs.astype(np.float64)
    assert told["rmse"] == pytest.approx(reference.root_mean_squared_error(*wide))
    assert told["loss"] == pytest.approx(reference.mean_squared_error(*wide))
    assert told["mae"] == pytest.approx(reference.mean_absolute_error(*wide))
    assert told["r2"] == pytest.approx(reference.r2_score(*wide))


@given(classified())
@FEW
def test_no_metric_is_nan_whatever_classes_the_targets_hold(table):
    assert all(math.isfinite(value) for value in all_metrics(*table).values())


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_single_class_has_an_auc_of_one_half(n_classes):
    outputs = np.random.default_rng(0).dirichlet(np.ones(n_classes), 20).astype(np.float32)
    told = all_metrics(np.ones(20, dtype=np.int64), outputs)
    assert told["auc"] == 0.5 and list(told) == list(CLASSIFICATION_METRICS)


def test_a_certain_mistake_costs_a_finite_loss():
    outputs = np.array([[1.0, 0.0], [1.0, 0.0]], dtype=np.float32)
    assert metric_value("loss", np.array([1, 1]), outputs) == pytest.approx(-math.log(1e-7))


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e30, -7.3])
def test_a_constant_regression_target_has_an_r2_of_zero(constant):
    targets = np.full(37, constant, dtype=np.float32)
    told = all_metrics(targets, targets + np.float32(1))
    assert told["r2"] == 0.0 and all(math.isfinite(value) for value in told.values())
    assert list(told) == list(REGRESSION_METRICS)


@pytest.mark.parametrize(("metric", "higher"), [("accuracy", True), ("r2", True), ("loss", False), ("rmse", False)])
def test_is_better_follows_the_metric_and_nan_beats_nothing(metric, higher):
    assert is_better(metric, 2.0, 1.0) is higher and is_better(metric, 1.0, 2.0) is not higher
    assert not is_better(metric, 1.0, 1.0)
    assert not is_better(metric, math.nan, 1.0) and not is_better(metric, 1.0, math.nan)


def make_dataset(folder: Path, y: dict[str, np.ndarray], classes: tuple[str, ...] = ()) -> Dataset:
    """A data set of three random columns with these targets."""
    rng = np.random.default_rng(0)
    for name, targets in y.items():
        x = rng.normal(size=(len(targets), 3)).astype(np.float32)
        save_split(folder, name, SplitArrays(x, targets, rng.integers(0, 2**63, len(targets), dtype=np.uint64)))
    schema = Schema(
        source="memory",
        fingerprint="f" * 16,
        target="y",
        task="classification" if classes else "regression",
        kind="tabular",
        classes=classes,
        input_shape=(3,),
        n_numeric=3,
        rows={name: len(targets) for name, targets in y.items()},
        floor={},
        cleaning=Cleaning(),
    )
    (folder / "schema.json").write_text(schema.model_dump_json())
    return load_dataset(folder)


def class_targets(n_classes: int, n: int = 120) -> np.ndarray:
    return np.random.default_rng(1).integers(0, n_classes, n)


def random_predictions(targets: np.ndarray, n_classes: int, seed: int = 0, replicates: int = 3) -> Predictions:
    rng = np.random.default_rng(seed)
    shape = (replicates, len(targets))
    outputs = rng.dirichlet(np.ones(n_classes), shape) if n_classes else rng.normal(size=shape)
    rows = np.arange(len(targets), dtype=np.uint64)
    return Predictions(rows=rows, targets=targets, outputs=outputs.astype(np.float32))


TASKS = {"binary": ("no", "yes"), "many": ("a", "b", "c"), "regression": ()}


@pytest.fixture(params=list(TASKS))
def data(request, tmp_path):
    classes = TASKS[request.param]
    y = class_targets(len(classes)) if classes else np.random.default_rng(1).normal(size=120).astype(np.float32)
    return make_dataset(tmp_path / "data", {"train": y, "validation": y[:60], "test": y[60:]}, classes)


def judged(data: Dataset, seed: int = 0, replicates: int = 3) -> Evaluation:
    targets = np.asarray(data.split("validation").y)
    predictions = random_predictions(targets, len(data.schema.classes), seed, replicates)
    return judge_predictions(data, predictions, metric="loss", split="validation")


def test_scorecard_has_the_same_finite_rounded_keys_for_every_model_of_a_task(data):
    one, other = judged(data, seed=0), judged(data, seed=1, replicates=2)
    assert list(one.scorecard()) == list(other.scorecard()) and one.scorecard() != other.scorecard()
    assert list(one.scorecard()) == [*one.metrics, "spread", "floor", "n_seeds", "n_examples"]
    for told in (one, other):
        assert all(math.isfinite(value) and value == round(value, 6) for value in told.scorecard().values())
    assert (one.scorecard()["n_seeds"], one.scorecard()["n_examples"]) == (3, 60)


def test_metrics_and_spread_are_mean_and_sample_deviation_over_replicates(data):
    told = judged(data)
    values = [one["loss"] for one in told.replicates]
    assert told.metrics["loss"] == pytest.approx(np.mean(values))
    assert told.spread["loss"] == pytest.approx(np.std(values, ddof=1))
    assert sorted(values)[1] == values[told.shown]
    assert judged(data, replicates=1).spread["loss"] == 0.0


def test_floor_is_what_knowing_nothing_reaches(data):
    told, y = judged(data), np.asarray(data.split("train").y)
    targets = np.asarray(data.split("validation").y)
    if data.schema.task == "regression":
        assert told.floor["rmse"] == pytest.approx(np.sqrt(np.mean((targets - y.mean()) ** 2)), rel=1e-5)
        assert constant_outputs(data, 5).shape == (5,)
    else:
        assert told.floor["accuracy"] == pytest.approx(np.mean(targets == np.bincount(y).argmax()))
        assert told.floor["auc"] == 0.5


def test_confusion_and_roc_belong_to_the_shown_replicate(data):
    told, targets = judged(data), np.asarray(data.split("validation").y)
    if data.schema.task == "regression":
        assert (told.confusion, told.roc) == ([], None)
        return
    outputs = random_predictions(targets, len(data.schema.classes)).outputs[told.shown]
    assert told.confusion == reference.confusion_matrix(targets, outputs.argmax(axis=1)).tolist()
    assert (told.roc is not None) == (len(data.schema.classes) == 2)
    if told.roc:
        area = np.trapezoid(told.roc.tpr, told.roc.fpr)
        assert area == pytest.approx(told.replicates[told.shown]["auc"], abs=1e-4)


def test_evaluation_survives_json_and_logs_into_kubeflow_artifacts(data, tmp_path):
    told = Evaluation.model_validate_json(judged(data).model_dump_json())
    assert told == judged(data)
    scorecard = dsl.Metrics(uri=str(tmp_path / "scorecard"))
    classification = dsl.ClassificationMetrics(uri=str(tmp_path / "classification"))
    told.log_scorecard(scorecard)
    told.log_classification(classification)
    assert scorecard.metadata == told.scorecard() == json.loads((tmp_path / "scorecard").read_text())
    assert json.loads((tmp_path / "classification").read_text())["confusion"] == told.confusion
    assert ("confusionMatrix" in classification.metadata) == bool(data.schema.classes)
    if told.confusion:
        rows = classification.metadata["confusionMatrix"]["rows"]
        assert [[int(cell) for cell in row["row"]] for row in rows] == told.confusion
    if told.roc:
        points = classification.metadata["confidenceMetrics"]
        assert all(math.isfinite(number) for point in points for number in point.values())
        assert len(points) == len(told.roc.fpr)


def test_roc_has_at_most_200_finite_points_from_corner_to_corner(tmp_path):
    y = class_targets(2, 5000)
    data = make_dataset(tmp_path / "data", dict.fromkeys(("train", "validation", "test"), y), ("no", "yes"))
    roc = judge_predictions(data, random_predictions(y, 2), metric="auc", split="validation").roc
    assert len(roc.fpr) == len(roc.tpr) == len(roc.thresholds) == evaluate.ROC_POINTS
    assert all(0 <= value <= 1 for value in (*roc.fpr, *roc.tpr, *roc.thresholds))
    assert (roc.fpr[0], roc.tpr[0], roc.fpr[-1], roc.tpr[-1]) == (0, 0, 1, 1)


@pytest.mark.parametrize("classes", [("no", "yes"), ("a", "b", "c")])
def test_a_test_split_of_a_single_class_is_judged_without_nan_or_warning(tmp_path, classes):
    y = class_targets(len(classes))
    lonely = np.zeros(30, dtype=np.int64)
    data = make_dataset(tmp_path / "data", {"train": y, "validation": y, "test": lonely}, classes)
    told = judge_predictions(data, random_predictions(lonely, len(classes)), metric="auc", split="test")
    assert all(math.isfinite(value) for value in told.scorecard().values())
    assert told.roc is None and len(told.confusion) == len(classes)


def test_more_than_100_classes_have_no_confusion_matrix(tmp_path):
    y = np.arange(101).repeat(3)
    splits = dict.fromkeys(("train", "validation", "test"), y)
    data = make_dataset(tmp_path / "data", splits, tuple(map(str, range(101))))
    told = judge_predictions(data, random_predictions(y, 101), metric="accuracy", split="validation")
    assert told.confusion == []


def test_predictions_survive_their_file_and_equal_ones_are_equal_bytes(tmp_path):
    predictions = random_predictions(class_targets(3), 3)
    for name in ("one.npz", "other.npz"):
        predictions.write(tmp_path / name)
    data = (tmp_path / "one.npz").read_bytes()
    assert data == (tmp_path / "other.npz").read_bytes()
    read = Predictions.from_bytes(data)
    assert read.groups is None
    grouped = predictions.model_copy(update={"groups": predictions.rows // 2})
    grouped.write(tmp_path / "grouped.npz")
    assert np.array_equal(Predictions.from_bytes((tmp_path / "grouped.npz").read_bytes()).groups, grouped.groups)
    for part in ("rows", "targets", "outputs"):
        assert np.array_equal(getattr(read, part), getattr(predictions, part))
        assert getattr(read, part).dtype == getattr(predictions, part).dtype


def test_predictions_refuse_pickles(tmp_path):
    np.savez(tmp_path / "evil.npz", rows=np.array([object()]), targets=1, outputs=1)
    with pytest.raises(ValueError, match="rows.npy is no array of numbers"):
        Predictions.from_bytes((tmp_path / "evil.npz").read_bytes())


def test_predict_gives_probabilities_or_values_in_the_targets_own_unit(data):
    schema = data.schema.model_copy(update={"target_mean": 100.0, "target_std": 5.0})
    model = build_model(Hyperparameters(model="linear"), schema)
    x = torch.tensor(np.asarray(data.split("validation").x))
    outputs = predict(model.train(), x, schema)
    assert outputs.dtype == np.float32 and not model.training
    if schema.task == "regression":
        expected = model(x).detach().numpy()[:, 0] * 5 + 100
        assert outputs.shape == (60,) and outputs == pytest.approx(expected, rel=1e-5)
    else:
        assert outputs.shape == (60, len(schema.classes)) and outputs.sum(axis=1) == pytest.approx(1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A real data set of 400 rows and a linear model of it, two seeds."""
    folder = tmp_path_factory.mktemp("trained")
    rng = np.random.default_rng(5)
    x = rng.normal(size=(400, 2)).round(4)
    rows = [f"{a},{b},{'late' if a + b > 0 else 'early'}" for a, b in x]
    (folder / "table.csv").write_text("\n".join(["a,b,when", *rows]))
    prepare_data(DataSettings(source=str(folder / "table.csv"), target="when"), folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BASEKAMP_HOME", str(folder / "home"))
        settings = Hyperparameters(model="linear", n_epochs=8, lr=0.05, batch_size=32)
        train_model(folder / "data", folder / "model", settings, metric="accuracy", seeds=2)
    return folder


def test_evaluate_model_writes_what_read_evaluation_reads(trained, tmp_path):
    told = evaluate_model(trained / "data", trained / "model" / "model.pth", tmp_path / "told", metric="accuracy")
    read, predictions = read_evaluation(tmp_path / "told")
    assert read == told and told.split == "validation" and told.metrics["accuracy"] > 0.9
    arrays = load_dataset(trained / "data").split("validation")
    assert np.array_equal(predictions.rows, arrays.rows) and np.array_equal(predictions.targets, arrays.y)
    assert predictions.outputs.shape == (2, len(arrays.y), 2)


def test_evaluating_again_gives_the_same_bytes(trained, tmp_path):
    for name in ("one", "other"):
        evaluate_model(trained / "data", trained / "model" / "model.pth", tmp_path / name, metric="accuracy")
    for name in ("evaluation.json", "predictions.npz"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_the_test_split_is_evaluated_only_when_named(trained, tmp_path):
    model = trained / "model" / "model.pth"
    told = evaluate_model(trained / "data", model, tmp_path / "told", metric="auc", split="test")
    assert told.split == "test" and told.n_examples == load_dataset(trained / "data").schema.rows["test"]


def test_a_model_that_answers_nan_is_refused_and_nothing_is_written(trained, tmp_path):
    saved = torch.load(trained / "model" / "model.pth", weights_only=True)
    for tensor in saved["state_dicts"][1].values():
        if tensor.is_floating_point():
            tensor.fill_(math.nan)
    torch.save(saved, tmp_path / "broken.pth")
    with pytest.raises(InputError, match="answers NaN or Inf on the validation split: train it with a lower lr"):
        evaluate_model(trained / "data", tmp_path / "broken.pth", tmp_path / "told", metric="accuracy")
    assert not (tmp_path / "told").exists()


def test_a_file_that_is_no_model_is_refused(trained, tmp_path):
    (tmp_path / "model.pth").write_bytes(b"no model")
    with pytest.raises(InputError, match=r"model\.pth is no model file of basekamp"):
        predict_split(load_dataset(trained / "data"), tmp_path / "model.pth", split="validation")


def test_every_metric_of_a_task_is_computed_and_has_a_goal():
    assert set(METRICS) == {*CLASSIFICATION_METRICS, *REGRESSION_METRICS}
    assert all(CLASSIFICATION_METRICS.get(name, goal) == goal for name, goal in METRICS.items())
