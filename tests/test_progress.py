"""Progress: in a log, a watched file and a terminal."""

import json
import os
import re
import sys

import pytest

from tests.trainings import train

pytestmark = pytest.mark.usefixtures("home")


def test_progress_in_a_log_ends_with_all_epochs_even_after_an_early_stop(tables, tmp_path, capsys):
    settings = {"metric": "loss", "model": "mlp", "lr": 0.05, "n_epochs": 30, "patience": 1, "schedule": "constant"}
    training = train(tables["classification"], tmp_path, seeds=2, **settings)
    assert {replicate.ended for replicate in training.replicates} == {"early"}
    (line,) = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"60/60 epochs, seeds 0 to 1, loss 0\.\d{4}", line)


def test_progress_file_holds_json_that_is_whole_at_every_moment(trainer, digits, tmp_path, monkeypatch, capsys):
    told = tmp_path / "told" / "progress.json"
    monkeypatch.setenv("BASEKAMP_PROGRESS", str(told))
    train(digits, tmp_path / "model", seeds=2, model="linear", patience=0)
    assert re.fullmatch(r"seeds 0 to 1, accuracy 0\.\d{4}", json.loads(told.read_text())["text"])
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
    assert "6/6 epochs, seeds 0 to 1, accuracy 0." in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
