"""The loop: members that train together end as each alone does, and what each setting does."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from basekamp.data.dataset import load_dataset
from basekamp.hyperparameters import Hyperparameters
from basekamp.models.build import build_model, fit_model
from basekamp.training.course import Member
from basekamp.training.feed import StreamedFeed, load_training_data
from basekamp.training.loop import StackLoop
from basekamp.training.loss import mean_losses
from tests.trainings import CPU, train, write_own_model

pytestmark = pytest.mark.usefixtures("home")

EVERYTHING = {"ema": 0.9, "clip_norm": 0.5, "warmup": 0.2, "label_smoothing": 0.1}
IMAGES = {"flip": True, "crop": 1, "cutout": 3}
VARIANTS = {
    "mlp": {"model": "mlp", "width": 16, "dropout": 0.3, **EVERYTHING, **IMAGES},
    "linear": {"model": "linear"},
    "cnn": {"model": "cnn", "width": 4, "dropout": 0.2, **EVERYTHING, **IMAGES},
    # At a larger rate a rounding that flips one ReLU shows in 1e-5: which rounding depends on the processor.
    "resnet": {"model": "resnet", "n_layers": 9, "width": 2, "lr": 0.003},
}


def loop_of(dataset: Path, members: Sequence[Member], *, metric: str = "accuracy", streams: bool = False) -> StackLoop:
    data = load_dataset(dataset)
    settings = members[0].hyperparameters
    build = partial(build_model, schema=data.schema, fitted=fit_model(settings, data))
    return StackLoop(build, load_training_data(data, CPU, streams=streams), members, metric=metric)


def settings_of(**values: object) -> Hyperparameters:
    return Hyperparameters.from_mapping({"n_epochs": 1, "lr": 0.01, "batch_size": 64, "patience": 0, **values})


def run(loop: StackLoop) -> StackLoop:
    loop.run()
    return loop


def assert_same_course(together: StackLoop, k: int, alone: StackLoop) -> None:
    ours, theirs = together.courses[k], alone.courses[0]
    assert (ours.n_epochs, ours.best_epoch, ours.ended) == (theirs.n_epochs, theirs.best_epoch, theirs.ended)
    for name, values in ours.curves.items():
        assert values == pytest.approx(theirs.curves[name], abs=1e-4), name
    assert ours.best_weights.keys() == theirs.best_weights.keys()
    for name, tensor in ours.best_weights.items():
        torch.testing.assert_close(
            tensor, theirs.best_weights[name], rtol=0, atol=1e-5, msg=lambda told, name=name: f"{name}: {told}"
        )


@pytest.mark.parametrize("name", VARIANTS)
def test_seeds_trained_together_have_the_weights_of_each_alone_after_an_epoch(digits, name):
    settings = settings_of(**VARIANTS[name])
    together = run(loop_of(digits, [Member(seed, settings) for seed in (3, 4, 5)]))
    for k, seed in enumerate((3, 4, 5)):
        assert_same_course(together, k, run(loop_of(digits, [Member(seed, settings)])))


@pytest.mark.parametrize("name", ["classification", "regression"])
def test_seeds_of_a_table_trained_together_have_the_weights_of_each_alone(tables, name):
    for model in ("mlp", "tabular"):
        settings = settings_of(model=model, width=8, dropout=0.1, batch_size=32)
        metric = {"classification": "auc", "regression": "rmse"}[name]
        together = run(loop_of(tables[name], [Member(seed, settings) for seed in range(3)], metric=metric))
        for k in range(3):
            alone = run(loop_of(tables[name], [Member(k, settings)], metric=metric))
            for weights, theirs in zip(
                together.courses[k].best_weights.values(), alone.courses[0].best_weights.values(), strict=True
            ):
                torch.testing.assert_close(weights, theirs, rtol=0, atol=1e-5)


def test_trials_of_one_seed_and_other_rates_trained_together_have_the_weights_of_each_alone(digits):
    rates = ((0.01, 0.0, 0.0), (0.003, 0.1, 0.3), (0.03, 1e-4, 0.6))
    trials = [settings_of(model="mlp", width=8, lr=lr, weight_decay=decay, dropout=p) for lr, decay, p in rates]
    together = run(loop_of(digits, [Member(0, settings) for settings in trials]))
    for k, settings in enumerate(trials):
        assert_same_course(together, k, run(loop_of(digits, [Member(0, settings)])))


def test_member_that_ends_early_leaves_the_others_as_they_would_be(tables):
    settings = settings_of(model="mlp", width=8, lr=0.05, n_epochs=25, patience=3, batch_size=32)
    together = run(loop_of(tables["classification"], [Member(seed, settings) for seed in range(4)]))
    ends = {course.n_epochs for course in together.courses}
    assert len(ends) > 1, "no seed ended before another: choose other settings"
    for k in range(4):
        alone = run(loop_of(tables["classification"], [Member(k, settings)]))
        assert together.courses[k].n_epochs == alone.courses[0].n_epochs
        assert together.courses[k].best_epoch == alone.courses[0].best_epoch


def test_member_that_diverges_is_never_best_and_leaves_the_others_alone(digits, capsys):
    calm, wild = (settings_of(model="mlp", width=8, n_layers=3, n_epochs=3, lr=lr) for lr in (0.01, 1e30))
    together = run(loop_of(digits, [Member(0, calm), Member(0, wild)]))
    assert together.courses[1].ended == "diverged"
    assert all(np.isfinite(values).all() for values in together.courses[1].curves.values())
    assert "Seed 0 diverged in epoch" in capsys.readouterr().out
    alone = run(loop_of(digits, [Member(0, calm)]))
    for name, tensor in together.courses[0].best_weights.items():
        torch.testing.assert_close(tensor, alone.courses[0].best_weights[name], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_rows_streamed_from_the_disk_give_the_bytes_of_rows_in_memory(digits, name):
    members = [Member(seed, settings_of(**VARIANTS[name], n_epochs=2)) for seed in (0, 1)]
    resident, streamed = loop_of(digits, members), loop_of(digits, members, streams=True)
    assert isinstance(streamed.data.feed, StreamedFeed)
    assert resident.data.feed.is_resident and not streamed.data.feed.is_resident
    run(resident), run(streamed)
    for ours, theirs in zip(resident.courses, streamed.courses, strict=True):
        assert ours.curves == theirs.curves
        for name, tensor in ours.best_weights.items():
            assert torch.equal(tensor, theirs.best_weights[name])


def test_streamed_rows_that_cannot_be_read_end_the_training_with_the_error(digits, monkeypatch):
    loop = loop_of(digits, [Member(0, settings_of(model="linear"))], streams=True)

    def fail(*_: object, **__: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr("basekamp.training.feed.np.take", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        loop.run()
    assert loop.data.feed.thread is None


@pytest.mark.parametrize(
    ("setting", "value"),
    [("ema", 0.99), ("clip_norm", 0.01), ("warmup", 0.5), ("label_smoothing", 0.3), ("flip", True), ("crop", 2)]
    + [("cutout", 4), ("schedule", "one_cycle"), ("precision", "bfloat16")],
)
def test_each_setting_changes_the_weights_and_is_off_by_default(digits, setting, value):
    plain = run(loop_of(digits, [Member(0, settings_of(model="mlp", width=8))]))
    off = Hyperparameters.model_fields[setting].default
    again = run(loop_of(digits, [Member(0, settings_of(model="mlp", width=8, **{setting: off}))]))
    changed = run(loop_of(digits, [Member(0, settings_of(model="mlp", width=8, **{setting: value}))]))
    assert torch.equal(plain.stack.storage, again.stack.storage)
    ours, theirs = (list(loop.courses[0].best_weights.values()) for loop in (plain, changed))
    assert not any(torch.equal(*pair) for pair in zip(ours, theirs, strict=True) if pair[0].dim() == 2)


def test_averaged_weights_are_what_is_judged_and_kept(digits):
    settings = settings_of(model="linear", ema=0.999, n_epochs=2)
    loop, followed = loop_of(digits, [Member(0, settings)]), []
    loop.after_step = lambda: followed.append(loop.stack.snapshot())
    loop.run()
    steps = len(loop.epochs.sizes) * 2
    expected, numbers = followed[0].clone(), [followed[i] for i in after_each_step(followed, steps)]
    for step, storage in enumerate(numbers):
        expected.lerp_(storage, 1 - min(0.999, (1 + step) / (10 + step)))
    torch.testing.assert_close(loop.average, expected, rtol=1e-4, atol=1e-5)
    assert loop.courses[0].best_epoch == 2
    kept = torch.cat([tensor.flatten() for name, tensor in loop.courses[0].best_weights.items() if "linear" in name])
    torch.testing.assert_close(kept, expected, rtol=1e-4, atol=1e-5)


def after_each_step(followed: list[Tensor], steps: int) -> list[int]:
    """Which calls came after a step: one call before the first, and one in the validation after each epoch."""
    half = steps // 2
    return [*range(1, 1 + half), *range(2 + half, 2 + steps)]


def test_mean_losses_of_stacked_outputs_are_those_of_each():
    outputs, targets = torch.randn(3, 7, 4), torch.randint(4, (3, 7))
    expected = torch.stack([torch.nn.functional.cross_entropy(o, t) for o, t in zip(outputs, targets, strict=True)])
    torch.testing.assert_close(mean_losses(outputs, targets), expected)
    shared = torch.stack([torch.nn.functional.cross_entropy(o, targets[0]) for o in outputs])
    torch.testing.assert_close(mean_losses(outputs, targets[0]), shared)
    numbers = torch.randn(3, 7)
    squared = (outputs[..., 0] - numbers).square().mean(dim=1)
    torch.testing.assert_close(mean_losses(outputs, numbers), squared)
    torch.testing.assert_close(mean_losses(outputs[0], targets[0]), expected[:1])


def test_own_model_is_stacked_with_all_settings_and_keeps_its_outputs(digits, tmp_path, monkeypatch, capsys):
    network = (
        "nn.Sequential(nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), "
        "nn.Linear(108, n_outputs))"
    )
    write_own_model(monkeypatch, tmp_path, "stacked_models", network)
    settings = settings_of(model="stacked_models:build", **EVERYTHING, **IMAGES)
    together = run(loop_of(digits, [Member(seed, settings) for seed in range(3)]))
    for k in range(3):
        assert_same_course(together, k, run(loop_of(digits, [Member(k, settings)])))
    train(digits, tmp_path / "m", seeds=3, model="stacked_models:build", batch_size=16)
    assert "cannot be stacked" not in capsys.readouterr().out


def test_own_model_that_cannot_be_stacked_trains_one_seed_after_the_other_and_says_why(
    digits, tmp_path, monkeypatch, capsys
):
    noisy = (
        "class Noisy(nn.Module):\n"
        "    def __init__(self, d, k):\n"
        "        super().__init__()\n"
        "        self.linear = nn.Linear(d, k)\n"
        "    def forward(self, x):\n"
        "        x = x.flatten(1)\n"
        "        return self.linear(x + 0.1 * torch.randn_like(x) if self.training else x)\n"
    )
    write_own_model(monkeypatch, tmp_path, "noisy_models", "Noisy(64, n_outputs)", noisy)
    training = train(digits, tmp_path / "m", seeds=2, model="noisy_models:build")
    printed = capsys.readouterr().out
    assert printed.count("trains one seed after the other, for it cannot be stacked (") == 1
    assert "6/6 epochs, seed 1, accuracy" in printed
    assert min(replicate.curves.validation_metric[-1] for replicate in training.replicates) > 0.8


class Greedy:
    """A network's step that runs out of memory above a number of rows, as a GPU would."""

    def __init__(self, most: int) -> None:
        self.most, self.real = most, StackLoop._backward

    def __get__(self, loop: StackLoop, kind: type) -> Callable[..., Tensor]:
        def backward(step: object) -> Tensor:
            if step.rows.shape[-1] * loop.stack.size > self.most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
            return self.real(loop, step)

        return backward


def test_batch_that_does_not_fit_is_refused_with_the_largest_that_does(digits, tmp_path, monkeypatch):
    from basekamp.errors import DeviceError

    monkeypatch.setattr(StackLoop, "_backward", Greedy(100))
    with pytest.raises(DeviceError) as refusal:
        train(digits, tmp_path, model="mlp", batch_size=500)
    message = str(refusal.value)
    assert message.startswith("batch_size=500 of model: mlp does not fit the memory of the device")
    assert "Tried to allocate 20.00 GiB" in message
    assert message.endswith("use batch_size 62 or less, or a GPU with more memory.")
    assert not (tmp_path / "model.pth").exists()


def test_networks_that_do_not_fit_together_train_in_smaller_groups(digits, tmp_path, monkeypatch, capsys):
    expected = train(digits, tmp_path / "one", model="mlp", width=8, batch_size=50, seeds=4)
    monkeypatch.setattr(StackLoop, "_backward", Greedy(100))
    training = train(digits, tmp_path / "two", model="mlp", width=8, batch_size=50, seeds=4)
    assert "4 networks at once do not fit the GPU: half as many train at once." in capsys.readouterr().out
    for ours, theirs in zip(training.replicates, expected.replicates, strict=True):
        assert ours.curves.validation_loss == pytest.approx(theirs.curves.validation_loss, abs=1e-4)
