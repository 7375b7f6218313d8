"""A trace of a few steps: where it lies, what it shows, and that nothing else changes by it."""

import gzip
import json
import os
from pathlib import Path

import pytest
import torch

from basekamp.training import tracer
from basekamp.training.loop import StackLoop
from basekamp.training.saver import Saver
from tests.test_checkpoint import stopping_after
from tests.trainings import results, train

pytestmark = pytest.mark.usefixtures("home")


def events(folder: Path) -> list[str]:
    with gzip.open(folder / "trace.json.gz") as file:
        return [event["name"] for event in json.load(file)["traceEvents"]]


def steps(folder: Path) -> list[str]:
    return sorted({name for name in events(folder) if name.startswith("ProfilerStep#")})


def test_trace_holds_a_few_steps_and_changes_no_byte_of_the_results(digits, tmp_path, capsys):
    settings = {"model": "mlp", "width": 8, "dropout": 0.2, "seeds": 2}
    train(digits, tmp_path / "plain", **settings)
    assert "trace" not in capsys.readouterr().out
    train(digits, tmp_path / "traced", profile=True, **settings)
    assert f"The trace of a few steps is {tmp_path / 'traced' / 'trace.json.gz'}: " in capsys.readouterr().out
    assert results(tmp_path / "traced") == results(tmp_path / "plain")
    assert os.listdir(tmp_path / "plain") == [name for name in os.listdir(tmp_path / "traced") if "trace" not in name]
    assert steps(tmp_path / "traced") == [f"ProfilerStep#{number}" for number in range(1, 1 + tracer.STEPS)]
    assert {"aten::addmm", "aten::baddbmm"} & set(events(tmp_path / "traced"))


def test_trace_shows_the_second_epoch_or_the_only_one(digits, tmp_path, monkeypatch):
    begun, counted = [], []

    class Watched(torch.profiler.profile):
        def start(self) -> None:
            begun.append(True)
            super().start()

        def step(self) -> None:
            counted.append(True)
            super().step()

    monkeypatch.setattr(torch.profiler, "profile", Watched)
    take, taken = StackLoop._take, []

    def watched(loop: StackLoop, step: object) -> None:
        taken.append((loop.epoch, bool(begun)))
        take(loop, step)

    monkeypatch.setattr(StackLoop, "_take", watched)
    for n_epochs, expected in ((3, {(0, False), (1, True), (2, True)}), (1, {(0, True)})):
        for told in (begun, counted, taken):
            told.clear()
        train(digits, tmp_path / str(n_epochs), profile=True, n_epochs=n_epochs)
        assert set(taken) == expected
        assert (len(begun), len(counted)) == (1, 1 + tracer.STEPS)  # then it costs nothing more
        assert len(steps(tmp_path / str(n_epochs))) == tracer.STEPS


def test_trace_of_fewer_steps_than_it_would_hold_is_written_at_the_end(tables, tmp_path):
    train(tables["classification"], tmp_path, profile=True, n_epochs=2, batch_size=128)
    assert 0 < len(steps(tmp_path)) < tracer.STEPS


@pytest.mark.parametrize("settings", [{"model": "majority"}, {"model": "boosting", "n_trees": 2}])
def test_training_without_steps_to_trace_says_so(tables, tmp_path, capsys, settings):
    train(tables["classification"], tmp_path / "model", profile=True, **settings)
    assert capsys.readouterr().out.count("No trace was written: ") == 1
    assert sorted(os.listdir(tmp_path / "model")) == ["model.pth", "training.json"]


def test_resumed_training_is_traced_and_ends_with_the_same_bytes(digits, tmp_path, monkeypatch):
    train(digits, tmp_path / "whole", n_epochs=4)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Saver, "after_step", stopping_after(17))
        train(digits, tmp_path / "stopped", n_epochs=4, profile=True)
    train(digits, tmp_path / "stopped", n_epochs=4, profile=True)
    assert len(steps(tmp_path / "stopped")) == tracer.STEPS
    assert results(tmp_path / "stopped") == results(tmp_path / "whole")


def test_trace_that_cannot_be_written_does_not_stop_the_training(digits, tmp_path, monkeypatch, capsys):
    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(tracer, "replace_file", fail)
    train(digits, tmp_path / "traced", profile=True)
    monkeypatch.undo()
    assert "trace.json.gz cannot be written (no space left): the training goes on without." in capsys.readouterr().out
    train(digits, tmp_path / "again", profile=True)
    assert len(steps(tmp_path / "again")) == tracer.STEPS


def test_profiler_ends_with_a_training_that_fails(digits, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Saver, "after_step", stopping_after(16))  # in the second epoch, while it traces
        train(digits, tmp_path / "failed", profile=True)
    train(digits, tmp_path / "again", profile=True)
    assert len(steps(tmp_path / "again")) == tracer.STEPS
