"""How long it takes to become good: a network on images, and tables against LightGBM.

Each seed is trained alone by `train_model`, whose whole time counts, and judged on the test split, which no choice was
made on. LightGBM gets the same encoded rows and the same splits; its leaves, and whether it is told which columns are
categories, are those that do best on the validation split. Ours are settings that an experiment file can say.

    pip install -e '.[benchmarks,examples]' && python -m benchmarks.bench_quality
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from basekamp.data.dataset import Dataset
from basekamp.evaluation.evaluate import Predictions, judge_predictions, predict_split
from basekamp.evaluation.metrics import metric_value
from basekamp.hyperparameters import Hyperparameters
from basekamp.records.verdict import measure_difference
from basekamp.training.results import MODEL_FILE
from basekamp.training.train import train_model
from benchmarks.fashion_mnist import fashion_mnist
from benchmarks.measure import machine, seconds, summary, table, write
from benchmarks.tables import adult, flights

PACKAGES = ("torch", "scikit-learn", "lightgbm", "numpy")
IMAGES = {
    "model": "resnet",
    "n_layers": 9,
    "width": 8,
    "n_epochs": 8,
    "batch_size": 256,
    "lr": 1e-2,
    "schedule": "one_cycle",
    "flip": True,
    "precision": "bfloat16",
    "patience": 0,
}
ACCURACY, MOST_SECONDS = 0.92, 110.0

TABULAR = {"model": "tabular", "n_layers": 3, "schedule": "one_cycle"}
BOOSTING = {"model": "boosting", "n_trees": 2000, "shrinkage": 0.05}
TABLES: dict[str, tuple[Callable[[], Dataset], dict[str, dict[str, Any]]]] = {
    "flights": (
        flights,
        {
            "tabular": {
                **TABULAR,
                "width": 512,
                "n_epochs": 20,
                "batch_size": 2048,
                "lr": 4e-3,
                "weight_decay": 3e-2,
                "dropout": 0.1,
                "ema": 0.998,
                "precision": "bfloat16",
                "patience": 3,
            },
            "boosting": {**BOOSTING, "n_leaves": 511},
        },
    ),
    "adult": (
        adult,
        {
            "tabular": {
                **TABULAR,
                "width": 256,
                "n_epochs": 10,
                "batch_size": 1024,
                "lr": 2e-3,
                "weight_decay": 1e-2,
                "dropout": 0.2,
                "patience": 0,
            },
            "boosting": BOOSTING,
        },
    ),
}
PEER, MARGIN = "LightGBM", 0.002
N_TREES, SHRINKAGE, ROUNDS_WITHOUT_GAIN = 2000, 0.05, 100
LEAVES, FORMS = (31, 63, 127, 255, 511), ("categories as such", "categories as codes")


class Trained(NamedTuple):
    """How long one seed took, and what it answers on the test split."""

    seconds: float
    predictions: Predictions


def train(data: Dataset, settings: dict[str, Any], *, metric: str, seed: int, gpus: str) -> Trained:
    """Train one seed of ours."""
    hyperparameters = Hyperparameters.from_mapping(settings)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        took = seconds(
            lambda: train_model(
                data.directory, folder, hyperparameters, metric=metric, seeds=1, first_seed=seed, gpus=gpus
            )
        )
        return Trained(took, predict_split(data, folder / MODEL_FILE, split="test", gpus=gpus))


class LightGbm:
    """LightGBM with the leaves and the form of categories that do best on the validation split."""

    def __init__(self, data: Dataset) -> None:
        self.splits = {name: data.split(name) for name in ("train", "validation", "test")}
        self.categories = list(range(data.schema.n_numeric, *data.schema.input_shape))
        self.validation_auc = {form: self._validation_auc(*form) for form in product(LEAVES, FORMS)}
        self.chosen = max(self.validation_auc, key=self.validation_auc.__getitem__)

    def train(self, seed: int) -> Trained:
        """Train one seed."""
        leaves, form = self.chosen
        model, test = _model(leaves, seed), self.splits["test"]
        took = seconds(lambda: self._fit(model, form))
        outputs = model.predict_proba(test.x)[np.newaxis].astype(np.float32)
        return Trained(took, Predictions(rows=test.rows, targets=test.y, outputs=outputs))

    def settings(self) -> dict[str, Any]:
        """What was chosen, and the validation values that it was chosen by."""
        values = {f"{leaves} leaves, {form}": auc for (leaves, form), auc in self.validation_auc.items()}
        return {"num_leaves": self.chosen[0], "form": self.chosen[1], "validation_auc": values}

    def _validation_auc(self, leaves: int, form: str) -> float:
        model, validation = _model(leaves, seed=0), self.splits["validation"]
        self._fit(model, form)
        auc = metric_value("auc", validation.y, model.predict_proba(validation.x))
        print(f"  {PEER}, {leaves} leaves, {form}: {auc:.4f} on the validation split", flush=True)
        return auc

    def _fit(self, model: Any, form: str) -> None:
        """Grow trees until the validation AUC no longer rises."""
        from lightgbm import early_stopping

        train, validation = self.splits["train"], self.splits["validation"]
        model.fit(
            train.x,
            train.y,
            eval_X=validation.x,
            eval_y=validation.y,
            eval_metric="auc",
            categorical_feature=self.categories if form == FORMS[0] else [],
            callbacks=[early_stopping(ROUNDS_WITHOUT_GAIN, first_metric_only=True, verbose=False)],
        )


def _model(leaves: int, seed: int) -> Any:
    """The seed draws the rows and the columns of each tree."""
    from lightgbm import LGBMClassifier

    return LGBMClassifier(
        n_estimators=N_TREES,
        learning_rate=SHRINKAGE,
        num_leaves=leaves,
        subsample=0.8,
        subsample_freq=1,
        colsample_bytree=0.8,
        random_state=seed,
        verbose=-1,
    )


def judge_images(*, seeds: int, gpus: str) -> dict[str, Any]:
    """Fashion-MNIST: accuracy and seconds of each seed, and whether the goals hold."""
    data, trained = fashion_mnist(), []
    for seed in range(seeds):
        trained.append(_shown("resnet", data, train(data, IMAGES, metric="accuracy", seed=seed, gpus=gpus), "accuracy"))
    told = _told(data, trained, metric="accuracy")
    goals = {
        "accuracy": _goal(told["mean"], ACCURACY, holds=told["mean"] >= ACCURACY),
        "seconds": _goal(told["seconds"]["max"], MOST_SECONDS, holds=told["seconds"]["max"] <= MOST_SECONDS),
    }
    judged = "goals hold" if all(goal["holds"] for goal in goals.values()) else "goals missed"
    return {"metric": "accuracy", "models": {"resnet": {"settings": IMAGES, **told, "judged": judged}}, "goals": goals}


def judge_table(name: str, *, seeds: int, gpus: str) -> dict[str, Any]:
    """A table: test AUC and seconds of our models and of LightGBM, seed after seed in turns, and the differences."""
    load, models = TABLES[name]
    data = load()
    peer = LightGbm(data)
    trained: dict[str, list[Trained]] = {model: [] for model in (*models, PEER)}
    for seed in range(seeds):
        for model, settings in models.items():
            trained[model].append(_shown(model, data, train(data, settings, metric="auc", seed=seed, gpus=gpus), "auc"))
        trained[PEER].append(_shown(PEER, data, peer.train(seed), "auc"))
    told: dict[str, dict[str, Any]] = {
        model: {"settings": settings} for model, settings in (*models.items(), (PEER, peer.settings()))
    }
    for model in told:
        told[model] |= _told(data, trained[model], metric="auc")
    for model in models:
        told[model] |= _against(_together(trained[model]), _together(trained[PEER]))
    told[PEER]["judged"] = ""
    return {"metric": "auc", "models": told}


def main() -> None:
    """Measure, print and write."""
    names = ("fashion-mnist", *TABLES)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="seeds")
    parser.add_argument("--gpus", default="0")
    parser.add_argument("--only", choices=names)
    arguments = parser.parse_args()
    how = {"seeds": arguments.repeats, "gpus": arguments.gpus}
    lines = [["data", "model", "metric", "on the test split", "seconds", "judged"]]
    for name in (arguments.only,) if arguments.only else names:
        print(name, flush=True)
        result = judge_table(name, **how) if name in TABLES else judge_images(**how)
        lines += [[name, model, result["metric"], *_cells(told)] for model, told in result["models"].items()]
        suffix = "" if arguments.gpus == "0" else "_gpu"
        write(f"bench_quality_{name.replace('-', '_')}{suffix}", {"machine": machine(*PACKAGES), **result})
    print(table(lines))


def _shown(model: str, data: Dataset, trained: Trained, metric: str) -> Trained:
    """Print what one seed came to."""
    value = judge_predictions(data, trained.predictions, metric=metric, split="test").metrics[metric]
    print(f"  {model}: {metric} {value:.4f} in {trained.seconds:.1f} s", flush=True)
    return trained


def _together(trained: Sequence[Trained]) -> Predictions:
    """The predictions of all seeds as one."""
    outputs = np.concatenate([each.predictions.outputs for each in trained])
    return trained[0].predictions.model_copy(update={"outputs": outputs})


def _told(data: Dataset, trained: Sequence[Trained], *, metric: str) -> dict[str, Any]:
    """Each seed's value, their mean and standard deviation, and the seconds."""
    evaluation = judge_predictions(data, _together(trained), metric=metric, split="test")
    return {
        "mean": evaluation.metrics[metric],
        "spread": evaluation.spread[metric],
        "each": [replicate[metric] for replicate in evaluation.replicates],
        "seconds": summary([each.seconds for each in trained]),
    }


def _against(ours: Predictions, peers: Predictions) -> dict[str, Any]:
    """Ours minus LightGBM's with its 95 % interval over seeds and rows, as the library judges its own attempts."""
    difference = measure_difference("auc", ours, peers)
    low, high = difference.interval()
    is_level = difference.value >= -MARGIN or high >= 0
    judged = "better" if low > 0 else "level" if is_level else "behind"
    return {"difference": difference.value, "interval": [low, high], "judged": judged}


def _goal(reached: float, wanted: float, *, holds: bool) -> dict[str, Any]:
    return {"wanted": wanted, "reached": reached, "holds": holds}


def _cells(told: dict[str, Any]) -> list[str]:
    difference = f"{told['difference']:+.4f} to {PEER}, " if "difference" in told else ""
    return [
        f"{told['mean']:.4f} ± {told['spread']:.4f}",
        f"{told['seconds']['median']:.1f} ({told['seconds']['min']:.1f} to {told['seconds']['max']:.1f})",
        f"{difference}{told['judged']}",
    ]


if __name__ == "__main__":
    main()
