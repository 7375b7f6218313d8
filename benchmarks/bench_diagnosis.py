"""How often a diagnosis is right: faults injected into real trainings, and trainings without any.

Every fault is tried on several data sets and seeds; what counts is whether its condition is among the findings. A
false alarm is a finding of severity warning or worse in a healthy training. Thresholds were chosen with seed 100; the
table is of seeds 0 and above. A starved GPU cannot be trained on a machine without one: its rule is fed with made-up
shares of time, and counts for little.

    python -m benchmarks.bench_diagnosis
"""

import argparse
import csv
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_wine, make_classification, make_friedman1

from basekamp.data.dataset import load_dataset
from basekamp.data.prepare import prepare_data
from basekamp.diagnosis.finding import Case
from basekamp.diagnosis.network_health import read_network_health
from basekamp.diagnosis.rules import RULES, diagnose
from basekamp.evaluation.evaluate import evaluate_model
from basekamp.evaluation.ladder import measure_ladder
from basekamp.experiment import DataSettings
from basekamp.hyperparameters import Hyperparameters
from basekamp.records.record import DataFacts, Record
from basekamp.training.results import Performance, Seconds
from basekamp.training.train import train_model
from benchmarks.measure import machine, table, write

Table = tuple[np.ndarray, np.ndarray]
GOOD = {"model": "mlp", "n_layers": 2, "width": 64, "lr": 3e-3, "n_epochs": 20, "batch_size": 32, "dropout": 0.1}


@dataclass(frozen=True)
class Trial:
    """One training: the data, settings that differ from good ones, and the condition injected, "" for none."""

    condition: str
    data: str
    settings: dict[str, Any] = field(default_factory=dict)
    harm: Callable[[Table, np.random.Generator], Table] | None = None
    split: Callable[[Path, np.random.Generator], None] | None = None


def tables(name: str, seed: int) -> Table:
    """Numbers [n, d] and targets [n]; each seed draws other rows."""
    chance = np.random.default_rng(seed)
    if name == "cancer":
        x, y = load_breast_cancer(return_X_y=True)
    elif name == "wine":
        x, y = load_wine(return_X_y=True)
        rows = chance.integers(len(y), size=600)
        x, y = x[rows] * (1 + 0.03 * chance.normal(size=(600, x.shape[1]))), y[rows]
    elif name == "digits":
        x, y = load_digits(return_X_y=True)
    elif name == "friedman":
        x, y = make_friedman1(2000, noise=1.0, random_state=seed)
    else:
        x, y = make_classification(
            2000,
            12,
            n_informative=8,
            n_redundant=2,
            n_classes=3 if name == "three" else 2,
            class_sep=1.2,
            flip_y=0.0,
            random_state=seed,
        )
    order = chance.permutation(len(y))
    return np.asarray(x, dtype=float)[order], np.asarray(y)[order]


# -- what is done to the data


def rare(told: Table, chance: np.random.Generator) -> Table:
    """Keep a few rows of the last class only."""
    x, y = told
    kept = (y != y.max()) | (chance.random(len(y)) < 0.06)
    return x[kept], y[kept]


def mislabelled(told: Table, chance: np.random.Generator) -> Table:
    """Give a seventh of the rows the next class."""
    x, y = told
    wrong = chance.random(len(y)) < 0.15
    return x, np.where(wrong, (y + 1) % (y.max() + 1), y)


def leaking(told: Table, chance: np.random.Generator) -> Table:
    """Add a column that is the target and a little noise."""
    x, y = told
    return np.column_stack([x, y + 0.02 * chance.normal(size=len(y)) * (np.std(y) or 1)]), y


def few(told: Table, chance: np.random.Generator) -> Table:
    """Keep 80 rows."""
    x, y = told
    rows = chance.permutation(len(y))[:80]
    return x[rows], y[rows]


def shifted(folder: Path, chance: np.random.Generator) -> None:
    """A sensor that was set anew before the validation rows were collected."""
    path = folder / "validation" / "x.npy"
    x = np.load(path)
    x[..., int(chance.integers(x.shape[-1]))] += 1.5
    np.save(path, x)


def repeated(folder: Path, chance: np.random.Generator) -> None:
    """A tenth of the validation rows are training rows."""
    for part in ("x", "y"):
        path = folder / "validation" / f"{part}.npy"
        held, train = np.load(path), np.load(folder / "train" / f"{part}.npy")
        number = max(len(held) // 10, 1)
        held[:number] = train[:number]
        np.save(path, held)


# -- networks that are built badly, as a user's own


OWN = """
from torch import nn
def deep(input_shape, n_outputs, depth=12, unit="Sigmoid", gain=1.0, bias=0.0):
    width, layers = 32, []
    for i in range(depth):
        linear = nn.Linear(input_shape[0] if i == 0 else width, width)
        linear.weight.data.mul_(gain)
        linear.bias.data.add_(bias)
        layers += [linear, getattr(nn, unit)()]
    return nn.Sequential(*layers, nn.Linear(width, n_outputs))
"""


def own(**options: Any) -> dict[str, Any]:
    """Settings of a network of the user's own."""
    return {"model": "badly_built:deep", "options": options, "n_layers": None, "width": None, "dropout": None}


def trials() -> Iterator[Trial]:
    """Every fault on several data sets, then healthy ones."""
    for data in ("two", "three", "cancer"):
        yield Trial("divergence", data, {"lr": 1e9})
        yield Trial("learning-rate-too-high", data, {"lr": 1.0, "n_epochs": 12})
        yield Trial("learning-rate-too-low", data, {"lr": 2e-6 if data != "cancer" else 2e-5})
        yield Trial(
            "underfitting", data if data != "cancer" else "friedman", {"width": 1, "n_layers": 1, "dropout": 0.0}
        )
        yield Trial("dead-units", data, own(depth=2, unit="ReLU", bias=-12.0))
        yield Trial("saturated-units", data, own(depth=2, unit="Tanh", gain=30.0) | {"lr": 1e-4})
        yield Trial("vanishing-gradients", data, own(depth=8, unit="Sigmoid"))
        yield Trial("exploding-gradients", data, own(depth=8, unit="ReLU", gain=6.0) | {"lr": 1e-5})
        yield Trial("plateau", data, own(depth=10, unit="Sigmoid"))
        yield Trial("label-noise", data, {"n_epochs": 8}, mislabelled)
        yield Trial("class-imbalance", data, {}, rare)
        yield Trial("train-validation-shift", data, {}, split=shifted)
        yield Trial("duplicates-across-splits", data, {}, split=repeated)
        yield Trial("leaking-feature", "two" if data == "cancer" else data, {}, leaking)
        yield Trial("too-little-data", data if data != "cancer" else "friedman", {}, few)
        yield Trial("overfitting", data, {"width": 256, "n_epochs": 80, "patience": 0, "dropout": 0.0}, few_and_noisy)
    healthy = [
        {},
        {"width": 128},
        {"act": "gelu"},
        {"n_layers": 3},
        {"lr": 1e-3, "n_epochs": 30},
        {"model": "linear", "lr": 1e-2},
        {"model": "boosting"},
    ]
    for data in ("two", "three", "cancer", "wine", "digits", "friedman"):
        for settings in (
            healthy if data not in ("two", "three", "friedman") else [h for h in healthy if h.get("model") != "linear"]
        ):
            yield Trial("", data, settings)


def few_and_noisy(told: Table, chance: np.random.Generator) -> Table:
    """Keep 300 rows and make their numbers noisy: enough to learn by heart."""
    x, y = told
    rows = chance.permutation(len(y))[:300]
    noise = 1.5 * x.std(axis=0) * chance.normal(size=(300, x.shape[1]))
    return x[rows] + noise, y[rows]


def run(trial: Trial, seed: int, folder: Path) -> Case:
    """Train it and give what is known of it."""
    chance = np.random.default_rng(seed + 1)
    x, y = tables(trial.data, seed)
    if trial.harm:
        x, y = trial.harm((x, y), chance)
    names = y if trial.data == "friedman" else np.array([f"k{one}" for one in y])
    with (folder / "data.csv").open("w") as file:
        writer = csv.writer(file)
        writer.writerow([*(f"c{i}" for i in range(x.shape[1])), "target"])
        writer.writerows([*row, target] for row, target in zip(x.tolist(), names.tolist(), strict=True))
    prepare_data(DataSettings(source=str(folder / "data.csv"), target="target"), folder / "data")
    if trial.split:
        trial.split(folder / "data", chance)
    metric = "r2" if trial.data == "friedman" else "accuracy"
    settings = {key: value for key, value in (GOOD | trial.settings).items() if value is not None}
    if settings["model"] in ("linear", "boosting"):
        settings = {key: settings[key] for key in settings if key not in ("n_layers", "width", "act", "dropout")}
    if settings["model"] == "boosting":
        settings = {"model": "boosting"}
    training = train_model(folder / "data", folder / "model", Hyperparameters(**settings), metric=metric, seeds=2)
    told = evaluate_model(folder / "data", folder / "model" / "model.pth", folder / "told", metric=metric, examine=True)
    schema = load_dataset(folder / "data").schema
    facts = {"source": "", "target": "target", "fingerprint": "", "dataset": "", "rows": schema.rows}
    record = Record.model_construct(
        params=Hyperparameters(**settings).effective(),
        metric=metric,
        training=training,
        evaluation=told,
        data=DataFacts(task=schema.task, **facts),
        ladder=measure_ladder(folder / "data", folder / "ladder", metric=metric),
        network=read_network_health(folder / "told"),
    )
    return Case(record)


def starved(case: Case, share: float, utilisation: float | None) -> Case:
    """The same as if a card had waited for data for a share of the time."""
    ran = Performance(
        device="a card",
        seconds=Seconds(total=100.0, data=100 * share, compute=100 * (1 - share)),
        gpu_utilisation=utilisation,
    )
    training = case.record.training.model_copy(update={"performance": ran})
    return Case(case.record.model_copy(update={"training": training}))


@dataclass
class Tally:
    """What was found of what was injected, {condition: [found, injected]}, and alarms in healthy trainings."""

    counts: dict[str, list[int]] = field(default_factory=lambda: {name: [0, 0] for name in RULES})
    healthy: int = 0
    alarms: list[str] = field(default_factory=list)

    def note(self, condition: str, case: Case, what: str) -> None:
        """Diagnose one case and count; tell what was missed, or found where nothing is."""
        found = diagnose(case)
        if condition:
            is_found = condition in [one.condition for one in found]
            self.counts[condition][0] += is_found
            self.counts[condition][1] += 1
            if not is_found:
                print(f"missed {condition} on {what}: {[one.condition for one in found]}", flush=True)
            return
        self.healthy += 1
        if wrong := [one for one in found if one.severity != "note"]:
            print(f"false alarm on {what}: {wrong}", flush=True)
            self.alarms.append(f"{what}: {', '.join(one.condition for one in wrong)}")

    def as_json(self) -> dict[str, Any]:
        """Plain values with the two rates."""
        found, injected = (sum(pair[i] for pair in self.counts.values()) for i in (0, 1))
        return {
            "found_of_injected": self.counts,
            "found": found / max(injected, 1),
            "healthy_trainings": self.healthy,
            "with_false_alarm": self.alarms,
            "false_alarm_rate": len(self.alarms) / max(self.healthy, 1),
        }


def run_all(place: Path, seeds: range, only: str) -> Tally:
    """Every trial with every seed, then the rule that needs a card."""
    tally, last = Tally(), None
    for seed in seeds:
        for i, trial in enumerate(trials()):
            if only and trial.condition != only:
                continue
            folder = place / f"{seed}-{i}"
            folder.mkdir()
            last = run(trial, seed, folder)
            tally.note(trial.condition, last, f"{trial.data} {trial.settings}, seed {seed}")
    if last is not None and not only:
        for share, utilisation in ((0.5, 90.0), (0.35, None), (0.05, 20.0)):
            tally.note("starved-gpu", starved(last, share, utilisation), "made-up shares of time")
    return tally


def main() -> None:
    """Train, diagnose, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--only", default="", help="A condition.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    with tempfile.TemporaryDirectory() as place:
        Path(place, "badly_built.py").write_text(OWN)
        sys.path.insert(0, place)
        os.environ["BASEKAMP_HOME"] = f"{place}/home"
        tally = run_all(Path(place), seeds, arguments.only)
    told = tally.as_json()
    if not arguments.only:
        write("bench_diagnosis", {"machine": machine("torch", "scikit-learn", "numpy"), "seeds": [*seeds], **told})
    print(table([["condition", "found"], *([name, f"{k} of {n}"] for name, (k, n) in tally.counts.items())]))
    print(f"found {told['found']:.1%}; healthy trainings with a false alarm: {len(tally.alarms)} of {tally.healthy}")


if __name__ == "__main__":
    main()
