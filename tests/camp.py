"""A store that grows in tests: the digits, a few recipes trained on them, and what comparing them left."""

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from basekamp.data.prepare import prepare_data
from basekamp.evaluation.evaluate import evaluate_model
from basekamp.evaluation.ladder import measure_ladder
from basekamp.experiment import DataSettings, Split
from basekamp.hyperparameters import Hyperparameters
from basekamp.records.compare import Folders, Question, compare_models
from basekamp.records.record import Record
from basekamp.records.shelf import (
    Shelf,
    read_shelf,
)
from basekamp.storage import Store, open_store
from basekamp.training.train import train_model

RECIPES = {
    "baseline": {"model": "linear", "n_epochs": 3, "batch_size": 64, "lr": 6e-3},
    "faster": {"model": "linear", "n_epochs": 4, "batch_size": 64, "lr": 1e-2},
    "deep": {"model": "mlp", "n_layers": 1, "width": 64, "n_epochs": 6, "batch_size": 32, "lr": 1e-2},
    "simplest": {"model": "majority"},
    "slower": {"model": "linear", "n_epochs": 3, "batch_size": 64, "lr": 1e-5},
}


class Clock(datetime):
    """A clock that is one second later at each look, so that ids keep the order of a test's steps."""

    time = datetime(2026, 1, 1, tzinfo=UTC)
    step = timedelta(seconds=1)

    @classmethod
    def now(cls, tz=None):
        cls.time += cls.step
        return cls.time


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr("basekamp.records.shelf.datetime", Clock)
    monkeypatch.setattr(Clock, "step", timedelta(seconds=1))
    return Clock


def learn(folder: Path, recipe: str, *, data: str = "data", metric: str = "accuracy", seeds: int = 3) -> None:
    """Train and evaluate a recipe into <folder>/<recipe> and <folder>/<recipe>-told."""
    model = folder / recipe
    train_model(folder / data, model, Hyperparameters(**RECIPES[recipe]), metric=metric, seeds=seeds)
    evaluate_model(folder / data, model / "model.pth", folder / f"{recipe}-told", metric=metric)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The digits, and four recipes trained and evaluated on them; nobody writes here afterwards."""
    folder = tmp_path_factory.mktemp("trained")
    split = Split(validation=0.3, test=0.2)
    prepare_data(DataSettings(source="sklearn:digits", target="digit", split=split), folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BASEKAMP_HOME", str(folder / "home"))
        measure_ladder(folder / "data", folder / "ladder", metric="accuracy")
        for recipe in RECIPES:
            learn(folder, recipe)
    return folder


@dataclass
class Camp:
    """A store, and the trained recipes that can be compared into it."""

    trained: Path
    folder: Path
    url: str

    def compare(
        self, recipe: str, *, attempt: str = "", run: str = "", expect: float = 0.01, **folders: Path
    ) -> Record:
        question = Question("digits", attempt or recipe, f"{recipe} is better.", expect, run or f"run-{recipe}")
        return compare_models(
            Folders(
                folders.get("data", self.trained / "data"),
                folders.get("model", self.trained / recipe),
                folders.get("told", self.trained / f"{recipe}-told"),
                self.trained / "ladder",
            ),
            question,
            store=self.url,
            html=self.folder / "report.html",
            markdown=self.folder / "report.md",
        )

    @property
    def store(self) -> Store:
        return open_store(self.url)

    @property
    def shelf(self) -> Shelf:
        return read_shelf(self.store, "digits")

    def keys_below(self, prefix: str = "digits/") -> list[str]:
        return [entry.key for entry in self.store.entries(prefix)]

    def content(self) -> dict[str, bytes]:
        return {key: self.store.get(key) for key in self.keys_below()}


def forget(camp: Camp, *parts: str) -> None:
    """Delete the keys that hold one of the parts."""
    for key in camp.keys_below():
        if any(part in key for part in parts):
            camp.store.delete(key)


@pytest.fixture
def camp(trained, tmp_path):
    return Camp(trained, tmp_path, str(tmp_path / "store"))


@pytest.fixture(scope="session")
def climbed_once(trained, tmp_path_factory):
    """A camp with a baseline, then a refuted, a supported and a better supported attempt. Not to be changed."""
    folder = tmp_path_factory.mktemp("climbed")
    camp = Camp(trained, folder, str(folder / "store"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("basekamp.records.shelf.datetime", Clock)
        for recipe in ("baseline", "slower", "faster", "deep"):
            camp.compare(recipe)
            shutil.copy(folder / "report.html", folder / f"{recipe}.html")
    return camp


@pytest.fixture
def climbed(climbed_once, tmp_path):
    """A copy of that camp to change."""
    shutil.copytree(climbed_once.url, tmp_path / "store")
    return Camp(climbed_once.trained, tmp_path, str(tmp_path / "store"))
