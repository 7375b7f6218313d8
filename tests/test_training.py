"""Training: reproducibility, what is kept and why it stopped, and what is refused."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from basekamp.data.dataset import load_dataset
from basekamp.errors import DeviceError, InputError
from basekamp.evaluation.metrics import all_metrics, metric_value
from basekamp.evaluation.predict import predict
from basekamp.hyperparameters import Hyperparameters
from basekamp.models.build import build_model
from basekamp.training.device import choose_device, fitting_threads
from basekamp.training.model_file import load_models
from basekamp.training.train import train_model
from tests.trainings import CPU, predictions, ranks, results, train, write_own_model

LINEAR = "nn.Linear(input_shape[0], n_outputs)"

pytestmark = pytest.mark.usefixtures("home")


def test_model_folder_that_cannot_be_written_is_refused(tables, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        InputError, match=r"^the model cannot be written to .*file/model \(Not a directory\): check the"
    ):
        train(tables["classification"], tmp_path / "file" / "model", model="majority")


def test_same_seeds_give_the_same_bytes_and_other_seeds_other_weights(tables, tmp_path):
    settings = {"seeds": 2, "model": "mlp", "width": 16, "dropout": 0.2}
    for name in ("one", "two"):
        train(tables["classification"], tmp_path / name, **settings)
    assert results(tmp_path / "one") == results(tmp_path / "two")
    first, second = (model.state_dict() for model in load_models(tmp_path / "one" / "model.pth", CPU)[1])
    assert first.keys() == second.keys()
    assert not any(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("task", "metric", "settings"),
    [
        ("classification", "accuracy", {"model": "mlp", "width": 8, "n_epochs": 25, "patience": 0, "lr": 0.03}),
        ("classification", "auc", {"model": "linear", "n_epochs": 6}),
        ("regression", "rmse", {"model": "mlp", "width": 8, "dropout": 0.2, "n_epochs": 6}),
        ("regression", "loss", {"model": "linear", "lr": 0.5, "schedule": "constant", "n_epochs": 8}),
    ],
)
def test_saved_models_are_those_of_the_best_epoch(tables, tmp_path, task, metric, settings):
    training = train(tables[task], tmp_path, metric=metric, seeds=2, **settings)
    assert torch.load(tmp_path / "model.pth", weights_only=True)["format"] == 1
    data = load_dataset(tables[task])
    for replicate, outputs in zip(training.replicates, predictions(data, tmp_path), strict=True):
        order = ranks(replicate, metric)
        assert replicate.best_epoch == order.index(max(order))
        best = replicate.curves.validation_metric[replicate.best_epoch]
        assert metric_value(metric, data.split("validation").y, outputs) == pytest.approx(best, rel=1e-6)
        assert len(order) == replicate.n_epochs + 1 == len(replicate.curves.train_loss) + 1


def test_epochs_of_equal_metric_are_told_apart_by_their_loss(tables, tmp_path):
    (replicate,) = train(tables["classification"], tmp_path, n_epochs=40, patience=0, lr=0.05).replicates
    curves = replicate.curves
    tied = [i for i, value in enumerate(curves.validation_metric) if value == max(curves.validation_metric)]
    assert len(tied) > 1
    assert replicate.best_epoch == min(tied, key=lambda i: curves.validation_loss[i]) != tied[0]


def test_early_stopping_waits_for_patience_epochs_and_patience_0_never_stops(tables, tmp_path):
    settings = {"metric": "loss", "model": "mlp", "width": 64, "lr": 0.05, "n_epochs": 30, "schedule": "constant"}
    early = train(tables["classification"], tmp_path / "early", patience=2, **settings).replicates[0]
    never = train(tables["classification"], tmp_path / "never", patience=0, **settings).replicates[0]
    assert (early.ended, early.n_epochs) == ("early", early.best_epoch + 2)
    assert early.n_epochs < 30
    assert (never.ended, never.n_epochs) == ("finished", 30)
    assert never.best_epoch < 30 - 5


def test_training_that_changes_nothing_keeps_epoch_0_and_stops_early(tables, tmp_path):
    (replicate,) = train(tables["classification"], tmp_path, lr=1e-30, patience=2, n_epochs=9).replicates
    assert (replicate.best_epoch, replicate.n_epochs, replicate.ended) == (0, 2, "early")


def test_seeds_differ_in_the_order_of_rows_too(tables, tmp_path, monkeypatch):
    zeroed = "def zeroed(layer):\n    nn.init.zeros_(layer.weight)\n    nn.init.zeros_(layer.bias)\n    return layer\n"
    write_own_model(monkeypatch, tmp_path, "zeroed_models", f"zeroed({LINEAR})", zeroed)
    training = train(tables["classification"], tmp_path / "m", seeds=2, model="zeroed_models:build")
    curves = [replicate.curves for replicate in training.replicates]
    assert curves[0].validation_loss[0] == curves[1].validation_loss[0]
    assert curves[0].validation_loss[1] != curves[1].validation_loss[1]


def test_diverging_training_ends_with_finite_weights_and_says_so(tables, tmp_path, capsys):
    settings = {"model": "mlp", "n_layers": 3, "lr": 1e6, "metric": "rmse", "n_epochs": 10}
    training = train(tables["regression"], tmp_path, seeds=2, **settings)
    printed = capsys.readouterr().out
    for replicate in training.replicates:
        assert replicate.ended == "diverged"
        assert len(replicate.curves.train_loss) == len(replicate.curves.lr) == replicate.n_epochs - 1
        assert len(replicate.curves.validation_loss) == replicate.n_epochs
        kept = f"the weights of epoch {replicate.best_epoch} are kept."
        lost = f"Seed {replicate.seed} diverged in epoch {replicate.n_epochs} (its loss is NaN or Inf)"
        assert f"{lost}: {kept}" in printed
    assert all(np.isfinite(outputs).all() for outputs in predictions(load_dataset(tables["regression"]), tmp_path))


def test_own_model_that_turns_nan_while_it_trains_ends_diverged(tables, tmp_path, monkeypatch):
    network = "nn.Sequential(nn.Linear(input_shape[0], n_outputs), Trap())"
    trap = "class Trap(nn.Module):\n    def forward(self, x): return x * float('nan') if self.training else x\n"
    write_own_model(monkeypatch, tmp_path, "trapped_models", network, trap)
    (replicate,) = train(tables["classification"], tmp_path / "model", model="trapped_models:build").replicates
    assert (replicate.ended, replicate.n_epochs, replicate.best_epoch) == ("diverged", 1, 0)


def test_majority_answers_the_class_frequencies_without_training(tables, tmp_path, capsys):
    training = train(tables["classification"], tmp_path, model="majority", seeds=2)
    assert capsys.readouterr().out.startswith("6/6 epochs, seeds 0 to 1, accuracy 0.")
    data = load_dataset(tables["classification"])
    frequencies = np.bincount(data.split("train").y) / data.schema.rows["train"]
    for replicate, outputs in zip(training.replicates, predictions(data, tmp_path), strict=True):
        np.testing.assert_allclose(outputs, np.tile(frequencies, (len(outputs), 1)), rtol=1e-6)
        assert (replicate.n_epochs, replicate.best_epoch, replicate.ended) == (0, 0, "finished")
    assert training.n_parameters == 0


def test_mean_answers_the_training_splits_mean(tables, tmp_path):
    train(tables["regression"], tmp_path, model="mean", metric="rmse")
    data = load_dataset(tables["regression"])
    (outputs,) = predictions(data, tmp_path)
    np.testing.assert_allclose(outputs, data.split("train").y.astype(np.float64).mean(), rtol=1e-6)


def test_linear_regression_learns_a_linear_target_in_its_own_unit(tables, tmp_path):
    training = train(
        tables["regression"], tmp_path, metric="r2", model="linear", lr=0.05, n_epochs=40, batch_size=32, patience=0
    )
    data = load_dataset(tables["regression"])
    (outputs,) = predictions(data, tmp_path, "test")
    reached = all_metrics(data.split("test").y, outputs)
    assert reached["r2"] > 0.95
    assert reached["rmse"] < 0.2 * data.schema.target_std
    curves = training.replicates[0].curves
    assert curves.train_loss[-1] < 0.05 < 0.5 < curves.train_loss[0]
    assert curves.validation_loss[-1] == pytest.approx(
        (1 - curves.validation_metric[-1]) * float(np.var(data.split("validation").y.astype(np.float64))), rel=1e-6
    )


def test_cnn_learns_digits(digits, tmp_path):
    training = train(digits, tmp_path, model="cnn", n_layers=2, width=8, batch_size=64)
    assert max(training.replicates[0].curves.validation_metric) > 0.9


def test_train_loss_is_the_mean_over_rows(digits, tmp_path):
    training = train(digits, tmp_path, model="linear", lr=1e-12, n_epochs=1, batch_size=500)
    data = load_dataset(digits)
    torch.manual_seed(0)
    outputs = predict(build_model(Hyperparameters(), data.schema), torch.tensor(data.split("train").x), data.schema)
    expected = metric_value("loss", data.split("train").y, outputs)
    assert training.replicates[0].curves.train_loss == [pytest.approx(expected, rel=1e-5)]


def test_learning_rate_curve_falls_to_almost_nothing_under_cosine(tables, tmp_path):
    (replicate,) = train(tables["classification"], tmp_path, lr=0.1, n_epochs=5, patience=0, batch_size=16).replicates
    assert replicate.curves.lr == sorted(replicate.curves.lr, reverse=True)
    assert 0 < replicate.curves.lr[-1] < 0.001 < 0.09 < replicate.curves.lr[0] < 0.1


def test_own_model_trains_and_loads_with_its_options(tables, tmp_path, monkeypatch):
    network = (
        "nn.Sequential(nn.BatchNorm1d(input_shape[0]), nn.Linear(input_shape[0], n_outputs, bias=options['bias']))"
    )
    write_own_model(monkeypatch, tmp_path, "my_models", network)
    data = load_dataset(tables["classification"])
    batch_size = data.schema.rows["train"] - 1
    settings = {"model": "my_models:build", "options": {"bias": False}, "batch_size": batch_size, "n_epochs": 2}
    training = train(tables["classification"], tmp_path / "model", **settings)
    assert training.n_parameters == 2 * 7 + 7 * 2
    (outputs,) = predictions(data, tmp_path / "model")
    replicate = training.replicates[0]
    value = metric_value("accuracy", data.split("validation").y, outputs)
    assert value == replicate.curves.validation_metric[replicate.best_epoch]


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (f"nn.Sequential({LINEAR}, nn.Threshold(1e9, float('nan')))", "gives NaN or Inf before any training: mend its"),
        ("nn.Linear(input_shape[0], 7)", r"gives \[2, 7\] for 2 rows: let it give \[2, 2\], one column per output\."),
        ("nn.Flatten(0)", r"gives \[14\] for 2 rows"),
        ("nn.Linear(99, n_outputs)", r"fails on a batch \(RuntimeError: mat1 and mat2 .*\): mend its forward\."),
        ("nn.LSTM(input_shape[0], n_outputs)", r"fails on a batch \(AttributeError: 'tuple'"),
    ],
)
def test_own_model_of_wrong_outputs_is_refused_in_one_line(tables, tmp_path, monkeypatch, network, message):
    write_own_model(monkeypatch, tmp_path, "wrong_models", network)
    with pytest.raises(InputError, match=f"^model: wrong_models:build {message}") as refusal:
        train(tables["classification"], tmp_path / "model", model="wrong_models:build")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "model").exists()


def test_model_file_of_an_own_model_that_changed_is_refused(tables, tmp_path, monkeypatch):
    write_own_model(monkeypatch, tmp_path, "changed_models", LINEAR)
    train(tables["classification"], tmp_path / "model", model="changed_models:build")
    write_own_model(monkeypatch, tmp_path, "changed_models", "nn.Linear(input_shape[0], n_outputs, bias=False)")
    with pytest.raises(InputError, match="does not fit model: changed_models:build as its code is now: train it again"):
        load_models(tmp_path / "model" / "model.pth", CPU)


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"no model", saved({"weights": torch.zeros(2)}), saved({"format": 99}), saved([Path("pickled")]), None],
    ids=["empty", "text", "other keys", "other format", "pickled object", "missing"],
)
def test_file_that_is_no_model_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "model.pth").write_bytes(content)
    with pytest.raises(InputError, match=r"model\.pth is no model file of basekamp \([^()]+\): train it again\.$"):
        load_models(tmp_path / "model.pth", CPU)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "cnn"}, r"model: cnn needs images, and .*sales\.csv holds a table: use model: mlp\."),
        ({"model": "mean"}, "model: mean does not fit a classification target: use model: majority."),
        ({"metric": "rmse"}, "metric: rmse does not fit a classification target: use accuracy, balanced_accuracy, "),
        ({"seeds": 0}, "seeds=0 is not allowed: use 1 or more."),
    ],
)
def test_settings_that_do_not_fit_the_data_are_refused_before_anything_is_written(
    tables, tmp_path, home, settings, message
):
    with pytest.raises(InputError, match=f"^{message}"):
        train(tables["classification"], tmp_path / "model", **settings)
    assert not (tmp_path / "model").exists()
    assert not home.exists()


@pytest.mark.parametrize("gpus", ["two", "", "-1", "1.0", " 1"])
def test_gpus_that_are_no_count_are_refused(gpus):
    with pytest.raises(InputError) as refusal:
        choose_device(gpus)
    assert str(refusal.value) == f'gpus="{gpus}" is not a count: use "0" for the CPU or "1" for a GPU.'


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_gpu_that_is_missing_is_an_error_with_its_remedy(tables, tmp_path):
    with pytest.raises(DeviceError) as refusal:
        train_model(tables["classification"], tmp_path / "m", Hyperparameters(), metric="accuracy", gpus="1")
    message = str(refusal.value)
    assert message.startswith('gpus="1" was asked for and this machine shows no CUDA device (torch ')
    assert message.endswith('use gpus="0", or a node and an image with a GPU.')


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
def test_training_on_a_gpu_reaches_what_the_cpu_reaches(digits, tmp_path):
    settings = Hyperparameters.from_mapping({"model": "cnn", "width": 16, "n_epochs": 8, "lr": 0.01})
    reached = []
    for gpus in ("0", "1"):
        training = train_model(digits, tmp_path / gpus, settings, metric="accuracy", seeds=2, gpus=gpus)
        reached.append([max(replicate.curves.validation_metric) for replicate in training.replicates])
    assert np.abs(np.subtract(*reached)).max() < 0.03
    assert min(reached[1]) > 0.9
    data = load_dataset(digits)
    for outputs, expected in zip(predictions(data, tmp_path / "1"), reached[1], strict=True):
        assert metric_value("accuracy", data.split("validation").y, outputs) == pytest.approx(expected, abs=0.01)


def test_small_steps_are_computed_on_one_thread_and_large_ones_on_all():
    before = torch.get_num_threads()
    with fitting_threads(CPU, step_size=1000):
        assert torch.get_num_threads() == 1
    with fitting_threads(CPU, step_size=1 << 40):
        assert torch.get_num_threads() == before
    assert torch.get_num_threads() == before
