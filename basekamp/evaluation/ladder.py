"""The ladder that every attempt stands on: what knowing nothing, a linear model and boosted trees reach on the data.

Its rungs are measured once for a data set, with one seed and settings that fit most data, within about half a minute.
"""

import math
import tempfile
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from basekamp.data.dataset import Dataset, load_dataset, with_fewer_rows
from basekamp.diagnosis.data_health import DataHealth, examine_data
from basekamp.document import load_document
from basekamp.evaluation.evaluate import Evaluation, evaluate_model
from basekamp.hyperparameters import Hyperparameters
from basekamp.storage.protocol import write_whole

LADDER_FILE = "ladder.json"
BATCH_SIZE, LINEAR_STEPS = 256, 3000
MOST_ROUNDS, FEWEST_ROUNDS, FEWEST_ROWS = 200, 40, 1000
MOST_WORK = 4_000_000_000
"""Rows times columns times raw scores times rounds that boosting may take: about 20 s on 2 cores."""


class Rung(BaseModel):
    """What one model reaches on the validation split; `note` says what was left out to keep it cheap."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    metrics: dict[str, float]
    note: str = ""


class Ladder(BaseModel):
    """The rungs from the lowest: majority or mean, linear, boosting; and what may be wrong with the data.

    Ladders of older releases have no `health`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rungs: list[Rung]
    health: DataHealth | None = None

    @classmethod
    def read(cls, directory: Path) -> "Ladder":
        """Read what `measure_ladder` wrote."""
        return load_document(cls, directory / LADDER_FILE)

    def log(self, metrics: Any, metric: str) -> None:
        """Log each rung's deciding metric into a Kubeflow `Metrics` artifact, and write its file."""
        for rung in self.rungs:
            metrics.log_metric(rung.model, round(rung.metrics[metric], 6))
        write_whole(Path(metrics.path), self.model_dump_json(indent=1))


def measure_ladder(dataset: Path, directory: Path, *, metric: str) -> Ladder:
    """Measure every rung on the validation split, and the data's health; write `ladder.json` into `directory`.

    Raises InputError for a metric that does not fit the data.
    """
    data = load_dataset(dataset)
    linear = _evaluated(dataset, _linear_settings(data), metric=metric)
    boosting, n_rows = _boosting_settings(data)
    told = f"{boosting.n_trees} rounds at most"
    with tempfile.TemporaryDirectory(prefix="basekamp-") as name:
        if n_rows < data.schema.rows["train"]:
            told += f", on {n_rows:,} of {data.schema.rows['train']:,} rows"
            dataset = with_fewer_rows(data, Path(name) / "dataset", n_rows)
        boosted = _evaluated(dataset, boosting, metric=metric)
    lowest = "majority" if data.schema.task == "classification" else "mean"
    ladder = Ladder(
        rungs=[
            Rung(model=lowest, metrics=linear.floor),
            Rung(model="linear", metrics=linear.metrics),
            Rung(model="boosting", metrics=boosted.metrics, note=told),
        ],
        health=examine_data(data),
    )
    write_whole(directory / LADDER_FILE, ladder.model_dump_json(indent=1))
    return ladder


def _evaluated(dataset: Path, settings: Hyperparameters, *, metric: str) -> Evaluation:
    from basekamp.training.train import train_model

    with tempfile.TemporaryDirectory(prefix="basekamp-") as name:
        train_model(dataset, Path(name), settings, metric=metric, seeds=1)
        return evaluate_model(dataset, Path(name) / "model.pth", Path(name), metric=metric)


def _linear_settings(data: Dataset) -> Hyperparameters:
    """As many epochs as give about 3,000 steps."""
    steps = -(-data.schema.rows["train"] // BATCH_SIZE)
    n_epochs = min(max(LINEAR_STEPS // steps, 3), 500)
    return Hyperparameters(model="linear", n_epochs=n_epochs, batch_size=BATCH_SIZE, lr=5e-3, patience=20)


def _boosting_settings(data: Dataset) -> tuple[Hyperparameters, int]:
    """The rounds, and the rows of the training split, that keep within `MOST_WORK`."""
    n_scores = len(data.schema.classes) if len(data.schema.classes) > 2 else 1
    per_row, rows = math.prod(data.schema.input_shape) * n_scores, data.schema.rows["train"]
    rounds = min(max(MOST_WORK // (per_row * rows), FEWEST_ROUNDS), MOST_ROUNDS)
    return Hyperparameters(model="boosting", n_trees=rounds), min(
        rows, max(MOST_WORK // (per_row * rounds), FEWEST_ROWS)
    )
