"""Training: resume after every kind of end, reproducibility, what is kept and why it stopped."""

import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from basekamp.data.dataset import Dataset, load_dataset
from basekamp.data.prepare import prepare_data
from basekamp.errors import DeviceError, InputError
from basekamp.evaluation.goals import METRICS
from basekamp.evaluation.metrics import all_metrics, metric_value
from basekamp.evaluation.predict import predict
from basekamp.experiment import DataSettings
from basekamp.hyperparameters import Hyperparameters
from basekamp.models.build import build_model
from basekamp.training.checkpoint import Saver, read_checkpoint
from basekamp.training.device import choose_device, fitting_threads
from basekamp.training.loop import learning_rate
from basekamp.training.results import Replicate, Training
from basekamp.training.train import load_models, train_model
from basekamp.work import work_directory
from tests.trainer import Job, Trainer, start_trainer

CPU = torch.device("cpu")
LINEAR = "nn.Linear(input_shape[0], n_outputs)"
LONG = {"model": "mlp", "width": 24, "dropout": 0.3, "batch_size": 64, "n_epochs": 7, "patience": 0}


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "digits"
    prepare_data(DataSettings(source="sklearn:digits", target="digit"), folder)
    return folder


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """400 rows of two numbers and a colour, with a class and a number that depend on them."""
    folder, rng = tmp_path_factory.mktemp("tables"), np.random.default_rng(3)
    a, b, color = rng.normal(size=400), rng.normal(size=400), rng.integers(4, size=400)
    price = 5000 + 300 * a - 120 * b + 200 * color + rng.normal(scale=10, size=400)
    kind = np.where(a + 0.5 * color + rng.normal(scale=0.3, size=400) > 0.8, "yes", "no")
    lines = [f"{a[i]},{b[i]},{'rgbw'[color[i]]},{price[i]},{kind[i]}" for i in range(400)]
    (folder / "sales.csv").write_text("\n".join(["a,b,color,price,kind", *lines]))
    for target, other in (("price", "kind"), ("kind", "price")):
        settings = DataSettings(source=str(folder / "sales.csv"), target=target, drop=(other,))
        prepare_data(settings, folder / target)
    return {"regression": folder / "price", "classification": folder / "kind"}


@pytest.fixture(scope="session")
def trainer() -> Iterator[Trainer]:
    with start_trainer() as started:
        yield started


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BASEKAMP_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BASEKAMP_PROGRESS", raising=False)
    return tmp_path / "home"


def train(dataset: Path, directory: Path, *, metric: str = "accuracy", seeds: int = 1, **settings: object) -> Training:
    values = {"n_epochs": 3, "lr": 0.01, **settings}
    return train_model(dataset, directory, Hyperparameters.from_mapping(values), metric=metric, seeds=seeds)


def results(directory: Path) -> tuple[bytes, bytes]:
    """The model's bytes and the training's, times left out."""
    told = (directory / "training.json").read_bytes()
    return (directory / "model.pth").read_bytes(), re.sub(rb'"seconds":[^,]+,', b"", told)


def predictions(data: Dataset, directory: Path, split: str = "validation") -> list[np.ndarray]:
    schema, models = load_models(directory / "model.pth", CPU)
    return [predict(model, torch.tensor(data.split(split).x), schema) for model in models]


def ranks(replicate: Replicate, metric: str) -> list[tuple[float, float]]:
    """The higher, the better: metric first, then loss."""
    sign = 1 if METRICS[metric] == "maximize" else -1
    curves = replicate.curves
    return [(sign * value, -loss) for value, loss in zip(curves.validation_metric, curves.validation_loss, strict=True)]


@pytest.mark.parametrize(
    "settings",
    [LONG, {**LONG, "model": "linear", "dropout": 0.0, "schedule": "constant"}],
    ids=["mlp with dropout", "linear"],
)
def test_training_killed_at_random_moments_ends_with_the_bytes_of_one_never_killed(trainer, digits, tmp_path, settings):
    whole = Job(digits, tmp_path / "whole", settings, checkpoint_seconds=60.0)
    assert trainer.run(whole) == 0
    job, chance, states = Job(digits, tmp_path / "killed", settings), random.Random(8), []
    while (status := kill_or_finish(trainer, job, chance, may_kill=len(states) < 10)) == -signal.SIGKILL:
        assert ("Resuming from a checkpoint: " in job.log) == bool(states)
        states.append(read_checkpoint(job.checkpoints[0], device=CPU))
    assert status == 0
    assert "Resuming from a checkpoint: " in job.log
    assert len(states) >= 5
    batches = -(-load_dataset(digits).schema.rows["train"] // 64)
    positions = [state["running"]["position"] for state in states if state["running"]]
    in_the_middle = [position for position in positions if 0 < position["step"] < batches and position["epoch"] > 0]
    assert len(in_the_middle) >= 3
    assert results(job.model) == results(whole.model)
    assert os.listdir(job.folder / "home" / "checkpoints") == []
    assert sorted(os.listdir(job.model)) == ["model.pth", "training.json"]


def kill_or_finish(trainer: Trainer, job: Job, chance: random.Random, *, may_kill: bool) -> int:
    if not may_kill:
        return trainer.run(job)
    steps, seconds = chance.randint(5, 40), chance.uniform(0, 0.005)
    return trainer.signal_after(signal.SIGKILL, job, checkpoints=steps, then_seconds=seconds)


def test_sigterm_saves_and_exits_with_143_and_the_next_run_ends_with_the_same_bytes(trainer, digits, tmp_path):
    settings = {**LONG, "n_epochs": 60}
    whole = Job(digits, tmp_path / "whole", settings, seeds=1, checkpoint_seconds=60.0)
    assert trainer.run(whole) == 0
    script = (
        "import sys; from pathlib import Path; from basekamp.hyperparameters import Hyperparameters\n"
        "from basekamp.training.train import train_model\n"
        f"settings = Hyperparameters.from_mapping({settings})\n"
        "train_model(Path(sys.argv[1]), Path(sys.argv[2]), settings, metric='accuracy', seeds=1)"
    )
    job = Job(digits, tmp_path / "stopped", settings, seeds=1, checkpoint_seconds=60.0)
    told = tmp_path / "progress.json"
    environment = {**os.environ, "BASEKAMP_HOME": str(job.folder / "home"), "BASEKAMP_PROGRESS": str(told)}
    with subprocess.Popen([sys.executable, "-c", script, digits, job.model], env=environment) as process:
        wait_for(told)
        process.terminate()
        assert process.wait(60) == 143
    assert not job.model.exists()
    assert trainer.run(job) == 0
    assert "Resuming from a checkpoint: " in job.log
    assert results(job.model) == results(whole.model)


def wait_for(path: Path) -> None:
    give_up = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < give_up, f"{path} never came"
        time.sleep(0.001)


def flip_a_bit(data: bytes) -> bytes:
    return data[:1000] + bytes([data[1000] ^ 4]) + data[1001:]


@pytest.mark.parametrize(
    "damage",
    [flip_a_bit, lambda data: data[: len(data) // 2], lambda data: b"", lambda data: data[:32]],
    ids=["a bit flipped", "half", "empty", "only the digest"],
)
def test_damaged_checkpoint_is_set_aside_and_the_training_starts_afresh(trainer, digits, tmp_path, damage):
    job = Job(digits, tmp_path / "job", {**LONG, "n_epochs": 2}, seeds=1)
    assert trainer.signal_after(signal.SIGKILL, job, checkpoints=4) == -signal.SIGKILL
    checkpoint = job.checkpoints[0]
    checkpoint.write_bytes(damage(checkpoint.read_bytes()))
    job.checkpoint_seconds = 60.0
    assert trainer.run(job) == 0
    aside = checkpoint.with_suffix(".damaged")
    assert f"The checkpoint is damaged and set aside as {aside}: the training starts afresh." in job.log
    assert aside.exists()
    assert "Resuming" not in job.log
    assert "Traceback" not in job.log


def test_checkpoint_that_cannot_be_read_is_told_and_the_training_starts_afresh(capsys, tmp_path):
    tmp_path.joinpath("folder.pt").mkdir()
    assert read_checkpoint(tmp_path / "folder.pt", device=CPU) is None
    assert "cannot be read (Is a directory): the training starts afresh." in capsys.readouterr().out


@pytest.mark.parametrize(
    "other",
    [{"settings": {**LONG, "n_epochs": 1, "lr": 0.002}}, {"seeds": 3}, {"metric": "loss"}, {}],
    ids=["lr", "seeds", "metric", "none"],
)
def test_checkpoint_of_other_settings_is_not_used(trainer, digits, tmp_path, other):
    job = Job(digits, tmp_path / "job", {**LONG, "n_epochs": 1})
    assert trainer.signal_after(signal.SIGKILL, job, checkpoints=4) == -signal.SIGKILL
    changed = Job(**{**vars(job), "checkpoint_seconds": 60.0, **other})
    assert trainer.run(changed) == 0
    assert ("Resuming" in changed.log) == (not other)
    assert len(job.checkpoints) == (1 if other else 0)


def test_checkpoint_of_an_own_model_is_not_used_after_its_code_changed(tables, tmp_path, monkeypatch, capsys):
    options = {"model": "resumed_models:build", "n_epochs": 2}
    write_own_model(monkeypatch, tmp_path, "resumed_models", "nn.Linear(input_shape[0], n_outputs)")
    stop_before_seed(monkeypatch, 1, tables["classification"], tmp_path / "model", **options)
    write_own_model(monkeypatch, tmp_path, "resumed_models", "nn.Linear(input_shape[0], n_outputs, bias=False)")
    train(tables["classification"], tmp_path / "model", seeds=2, **options)
    assert "Resuming" not in capsys.readouterr().out


def write_own_model(monkeypatch: pytest.MonkeyPatch, folder: Path, module: str, network: str, before: str = "") -> None:
    """Write `module:build` into the folder, make that the current one, and forget an earlier import."""
    source = f"import torch\nfrom torch import nn\n{before}\ndef build(input_shape, n_outputs, **options):\n"
    (folder / f"{module}.py").write_text(f"{source}    return {network}\n")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, module, raising=False)


@pytest.mark.parametrize("steps", [1, 5, 8, 9, 16, 24], ids="step {}".format)
def test_training_stopped_after_any_step_ends_with_the_same_bytes(tables, tmp_path, monkeypatch, capsys, steps):
    data, settings = tables["regression"], {"model": "mlp", "width": 8, "dropout": 0.5, "batch_size": 32}
    assert -(-load_dataset(data).schema.rows["train"] // 32) == 8
    train(data, tmp_path / "whole", metric="rmse", **settings)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("basekamp.training.train.Saver.after_step", stopping_after(steps))
        train(data, tmp_path / "stopped", metric="rmse", **settings)
    train(data, tmp_path / "stopped", metric="rmse", **settings)
    assert f"seed 0 goes on after {(steps - 1) // 8} epochs and {(steps - 1) % 8 + 1} steps." in capsys.readouterr().out
    assert results(tmp_path / "stopped") == results(tmp_path / "whole")


def stopping_after(steps: int) -> Callable[[Saver], None]:
    """What a saver does after each step when it is to save and be interrupted at that one."""
    left = iter(range(steps - 1, -1, -1))

    def after_step(saver: Saver) -> None:
        if next(left) == 0:
            saver.save()
            raise KeyboardInterrupt

    return after_step


def stop_before_seed(monkeypatch: pytest.MonkeyPatch, seed: int, dataset: Path, directory: Path, **settings) -> None:
    """Interrupt a training of two seeds between two of them."""
    from basekamp.training.train import ReplicateLoop

    class Stopping(ReplicateLoop):
        def __init__(self, *arguments, **named):
            if named["seed"] == seed:
                raise KeyboardInterrupt
            super().__init__(*arguments, **named)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("basekamp.training.train.ReplicateLoop", Stopping)
        train(dataset, directory, seeds=2, **settings)


@pytest.mark.parametrize("model", ["majority", "linear"])
def test_training_stopped_between_two_seeds_ends_with_the_same_bytes(tables, tmp_path, monkeypatch, capsys, model):
    data = tables["classification"]
    train(data, tmp_path / "whole", seeds=2, model=model)
    stop_before_seed(monkeypatch, 1, data, tmp_path / "stopped", model=model)
    capsys.readouterr()
    train(data, tmp_path / "stopped", seeds=2, model=model)
    assert "Resuming from a checkpoint: 1 of 2 seeds are trained.\n" in capsys.readouterr().out
    assert results(tmp_path / "stopped") == results(tmp_path / "whole")


def test_checkpoint_folder_that_cannot_be_written_does_not_stop_the_training(tables, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("BASEKAMP_HOME", str(tmp_path / "file" / "home"))
    train(tables["classification"], tmp_path / "model", seeds=2)
    printed = capsys.readouterr().out
    assert printed.count("cannot be written (Not a directory): the training goes on, and a kill would lose it.") == 1
    assert (tmp_path / "model" / "model.pth").exists()


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
        assert metric_value(metric, data.split("validation").y, outputs) == best
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
        assert f"Seed {replicate.seed} diverged in epoch {replicate.n_epochs}: {kept}" in printed
    assert all(np.isfinite(outputs).all() for outputs in predictions(load_dataset(tables["regression"]), tmp_path))


def test_own_model_that_turns_nan_while_it_trains_ends_diverged(tables, tmp_path, monkeypatch):
    network = "nn.Sequential(nn.Linear(input_shape[0], n_outputs), Trap())"
    trap = "class Trap(nn.Module):\n    def forward(self, x): return x * float('nan') if self.training else x\n"
    write_own_model(monkeypatch, tmp_path, "trapped_models", network, trap)
    (replicate,) = train(tables["classification"], tmp_path / "model", model="trapped_models:build").replicates
    assert (replicate.ended, replicate.n_epochs, replicate.best_epoch) == ("diverged", 1, 0)


def test_majority_answers_the_class_frequencies_without_training(tables, tmp_path, capsys):
    training = train(tables["classification"], tmp_path, model="majority", seeds=2)
    assert capsys.readouterr().out.startswith("6/6 epochs, seed 1, accuracy 0.")
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


@pytest.mark.parametrize(("schedule", "expected"), [("cosine", [0.2, 0.1, 0.0]), ("constant", [0.2, 0.2, 0.2])])
def test_learning_rate_follows_its_schedule(schedule, expected):
    settings = Hyperparameters(lr=0.2, schedule=schedule)
    assert [learning_rate(settings, progress) for progress in (0.0, 0.5, 1.0)] == pytest.approx(expected, abs=1e-12)


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
    with pytest.raises(InputError, match=r"model\.pth is no model file of basekamp \(\w+\): train it again\.$"):
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


def test_progress_in_a_log_ends_with_all_epochs_even_after_an_early_stop(tables, tmp_path, capsys):
    settings = {"metric": "loss", "model": "mlp", "lr": 0.05, "n_epochs": 30, "patience": 1, "schedule": "constant"}
    training = train(tables["classification"], tmp_path, seeds=2, **settings)
    assert {replicate.ended for replicate in training.replicates} == {"early"}
    (line,) = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"60/60 epochs, seed 1, loss 0\.\d{4}", line)


def test_progress_file_holds_json_that_is_whole_at_every_moment(trainer, digits, tmp_path, monkeypatch, capsys):
    told = tmp_path / "told" / "progress.json"
    monkeypatch.setenv("BASEKAMP_PROGRESS", str(told))
    train(digits, tmp_path / "model", seeds=2, model="linear", patience=0)
    assert re.fullmatch(r"seed 1, accuracy 0\.\d{4}", json.loads(told.read_text())["text"])
    assert json.loads(told.read_text()) | {"text": ""} == {"done": 6, "total": 6, "text": ""}
    assert os.listdir(told.parent) == ["progress.json"]
    assert capsys.readouterr().out == ""


def test_progress_file_that_cannot_be_written_does_not_stop_the_training(tables, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("BASEKAMP_PROGRESS", str(tmp_path / "file" / "progress.json"))
    assert train(tables["classification"], tmp_path / "model").replicates[0].n_epochs == 3


def test_progress_in_a_terminal_is_a_bar(tables, tmp_path, monkeypatch):
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        patch.setenv("TERM", "xterm")
        patch.setenv("COLUMNS", "100")
        train(tables["classification"], tmp_path, seeds=2)
        terminal.flush()
        shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "6/6 epochs, seed 1, accuracy 0." in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)


def test_work_directory_is_the_chosen_one(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for chosen, expected in (("relative", tmp_path / "relative"), ("~/x", tmp_path / "x"), ("/abs", Path("/abs"))):
        monkeypatch.setenv("BASEKAMP_HOME", chosen)
        assert work_directory() == expected


def test_work_directory_is_in_the_current_folder_by_default(monkeypatch, tmp_path):
    monkeypatch.delenv("BASEKAMP_HOME")
    monkeypatch.chdir(tmp_path)
    assert work_directory() == tmp_path / ".basekamp"
    assert work_directory().is_dir()


def test_work_directory_is_a_temporary_one_where_nothing_can_be_written(monkeypatch, tmp_path):
    monkeypatch.delenv("BASEKAMP_HOME")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir("/proc")
    assert work_directory() == tmp_path / f"basekamp-{os.getuid()}"
