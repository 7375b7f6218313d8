"""Boosting: the trees that scikit-learn grew, as tensors, and how many of them are kept."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from basekamp.data.dataset import load_dataset
from basekamp.evaluation.evaluate import evaluate_model
from basekamp.evaluation.metrics import metric_value
from basekamp.hyperparameters import Hyperparameters
from basekamp.models.trees import TreeEnsemble, grown_trees
from tests.trainings import predictions, results, train

pytestmark = pytest.mark.usefixtures("home")


def rows(n: int, d: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


@pytest.mark.parametrize("n_classes", [2, 3, 0], ids=["two classes", "three classes", "numbers"])
def test_trees_in_tensors_answer_as_scikit_learn_does(n_classes):
    x = rows(800)
    score = x[:, 0] * x[:, 1] + x[:, 2]
    if n_classes:
        y = np.digitize(score, np.quantile(score, np.arange(1, n_classes) / n_classes))
        model = HistGradientBoostingClassifier(max_iter=40, random_state=0).fit(x, y)
        expected = model.decision_function(rows(500, seed=1))
    else:
        model = HistGradientBoostingRegressor(max_iter=40, random_state=0).fit(x, score)
        expected = model.predict(rows(500, seed=1))
    network = TreeEnsemble(n_classes or 1)
    network.load_state_dict(grown_trees(model._predictors, model._baseline_prediction))
    answered = network(torch.from_numpy(rows(500, seed=1))).numpy()
    answered = answered[:, 1] if n_classes == 2 else answered[:, 0] if not n_classes else answered
    np.testing.assert_allclose(answered, expected, rtol=1e-4, atol=1e-5)


def test_rows_that_lie_on_a_border_go_where_scikit_learn_sends_them():
    x = np.repeat(np.arange(40, dtype=np.float32)[:, None] / 7, 30, axis=0)
    model = HistGradientBoostingRegressor(max_iter=5, random_state=0).fit(x, np.sin(3 * x[:, 0]))
    network = TreeEnsemble(1)
    state = grown_trees(model._predictors, model._baseline_prediction)
    network.load_state_dict(state)
    borders = torch.unique(state["threshold"])
    near = torch.cat([borders, *(torch.nextafter(borders, torch.tensor(far)) for far in (9.0, -9.0))])
    expected = model.predict(near.numpy()[:, None])
    np.testing.assert_allclose(network(near[:, None]).numpy()[:, 0], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("task", "metric"), [("classification", "auc"), ("classification", "accuracy"), ("regression", "rmse")]
)
def test_boosting_keeps_the_rounds_that_do_best_and_its_model_file_answers_so(tables, tmp_path, task, metric):
    training = train(tables[task], tmp_path, metric=metric, seeds=2, model="boosting", n_trees=60)
    data = load_dataset(tables[task])
    for replicate, outputs in zip(training.replicates, predictions(data, tmp_path), strict=True):
        values = replicate.curves.validation_metric
        assert values[replicate.best_epoch] == (min(values) if metric == "rmse" else max(values))
        assert metric_value(metric, data.split("validation").y, outputs) == pytest.approx(
            values[replicate.best_epoch], rel=1e-5
        )
        assert len(values) == len(replicate.curves.train_loss) + 1 == replicate.n_epochs + 1
    assert training.n_parameters > 0


def test_seeds_of_boosting_choose_from_other_columns(digits, tmp_path):
    training = train(digits, tmp_path, seeds=2, model="boosting", n_trees=3)
    assert training.replicates[0].curves != training.replicates[1].curves


def test_boosting_beats_a_linear_model_where_columns_multiply(tmp_path):
    from basekamp.data.prepare import prepare_data
    from basekamp.experiment import DataSettings

    x = rows(3000, 3)
    lines = [f"{a},{b},{c},{'yes' if a * b > 0 else 'no'}" for a, b, c in x]
    (tmp_path / "product.csv").write_text("\n".join(["a,b,c,same", *lines]))
    prepare_data(DataSettings(source=str(tmp_path / "product.csv"), target="same"), tmp_path / "data")
    reached = {}
    for model in ("linear", "boosting"):
        train(tmp_path / "data", tmp_path / model, model=model)
        told = evaluate_model(tmp_path / "data", tmp_path / model / "model.pth", tmp_path / "told", metric="accuracy")
        reached[model] = told.metrics["accuracy"]
    assert reached["boosting"] > 0.95 > 0.6 > reached["linear"]


def test_boosting_takes_images_and_gives_the_same_bytes_again(digits, tmp_path):
    for name in ("one", "two"):
        training = train(digits, tmp_path / name, model="boosting", n_trees=12)
    assert results(tmp_path / "one") == results(tmp_path / "two")
    assert max(training.replicates[0].curves.validation_metric) > 0.85


def test_boosting_tells_only_its_own_settings():
    effective = Hyperparameters.from_mapping({"model": "boosting", "n_leaves": 7}).effective()
    assert effective == {"model": "boosting", "n_trees": 300, "n_leaves": 7, "shrinkage": 0.1}


def sound_state() -> dict[str, torch.Tensor]:
    x = rows(300)
    model = HistGradientBoostingRegressor(max_iter=3, random_state=0).fit(x, x[:, 0])
    return grown_trees(model._predictors, model._baseline_prediction)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: state["left"].fill_(1 << 20),
        lambda state: state["right"].fill_(-1),
        lambda state: state["feature"].fill_(-1),
        lambda state: state.update(depth=torch.tensor(1 << 30, dtype=torch.int32)),
        lambda state: state.update(left=state["left"][:1]),
        lambda state: state.pop("value"),
    ],
    ids=["node out of the tree", "node below 0", "column below 0", "endless", "other shape", "missing"],
)
def test_trees_that_do_not_hold_together_are_refused(spoil):
    state = sound_state()
    spoil(state)
    with pytest.raises(RuntimeError):
        TreeEnsemble(1).load_state_dict(state)
