"""Many networks at once against one after the other: seeds of one attempt, and a sweep's trials.

Both sides are the `Cohort` that `train_model` and a sweep train by. They differ in the size of its groups alone: all
members in one, or each in its own. Where the library itself would not stack, since
there is nothing to gain, its choice is the other side, so 1.00 x; what a stack would have come to is told beside.

    python -m benchmarks.bench_replicates
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from basekamp.data.dataset import Dataset, load_dataset, with_fewer_rows
from basekamp.hyperparameters import Hyperparameters
from basekamp.training.checkpoint import Checkpoints
from basekamp.training.cohort import Cohort
from basekamp.training.course import Member
from basekamp.training.device import choose_device
from basekamp.training.saver import Saver
from benchmarks.fashion_mnist import fashion_mnist
from benchmarks.measure import in_turns, machine, ratios, seconds, summary, table, write
from benchmarks.tables import digits, sixteen_numbers

SEEDS, TRIALS = (3, 8), 64
RATES = (1e-4, 3e-2)
FASHION_ROWS = 10_000
GOALS = {"smallest sweep": 10.0, "everywhere": 1.0}


@dataclass(frozen=True)
class Case:
    """A network on a data set, and for how many epochs it trains here."""

    network: str
    data: str
    settings: dict[str, Any]

    def seeds(self, number: int) -> list[Member]:
        """Replicates of one attempt."""
        return [Member(seed, Hyperparameters(**self.settings, patience=0)) for seed in range(number)]

    def trials(self) -> list[Member]:
        """A sweep's trials: one seed, and a learning rate each."""
        rates = np.geomspace(*RATES, TRIALS)
        return [Member(0, Hyperparameters(**self.settings, patience=0, lr=float(rate))) for rate in rates]


REPLICATES = (
    Case("linear", "digits", {"model": "linear", "n_epochs": 20}),
    Case("mlp, 2 x 32", "16 numbers", {"model": "mlp", "width": 32, "n_epochs": 10}),
    Case("mlp, 2 x 128", "digits", {"model": "mlp", "width": 128, "n_epochs": 10}),
    Case("linear", "Fashion-MNIST", {"model": "linear", "n_epochs": 3}),
    Case("mlp, 256 and 128", "Fashion-MNIST", {"model": "benchmarks.networks:mlp", "n_epochs": 1}),
    Case("cnn, 2 x 8", "digits", {"model": "cnn", "width": 8, "n_epochs": 3}),
)
SWEEPS = (
    Case("mlp, 2 x 32", "16 numbers", {"model": "mlp", "width": 32, "batch_size": 32, "n_epochs": 1}),
    Case("mlp, 2 x 64", "digits", {"model": "mlp", "width": 64, "batch_size": 64, "n_epochs": 3}),
    Case("mlp, 2 x 128", "digits", {"model": "mlp", "width": 128, "n_epochs": 3}),
)


class Bench:
    """Members on a device with their rows, trained in groups of any size."""

    def __init__(self, members: Sequence[Member], data: Dataset, device: torch.device) -> None:
        self.members, self.data, self.device = members, data, device
        self.chosen = max(map(len, self._cohort(Path(), None).session.groups))

    def __call__(self, at_once: int) -> None:
        """Train all members, that many at once."""
        with tempfile.TemporaryDirectory() as folder:
            self._cohort(Path(folder), at_once).run(after_epoch=lambda: None)

    def _cohort(self, home: Path, at_once: int | None) -> Cohort:
        saver = Saver(Checkpoints("bench", home=home), every_seconds=30.0)
        return Cohort(self.members, self.data, self.device, metric="accuracy", saver=saver, at_once=at_once)

    def measured(self, *, repeats: int) -> dict[str, Any]:
        """Seconds of both sides and their ratio, and what the library's own choice comes to."""
        stacks = self.chosen > 1
        at_once = self.chosen if stacks else len(self.members)
        sides = {"one by one": lambda: seconds(lambda: self(1)), "at once": lambda: seconds(lambda: self(at_once))}
        measured = in_turns(sides, repeats=repeats)
        faster = ratios(measured, to="at once")["one by one"]
        return {
            "seconds": {name: summary(values) for name, values in measured.items()},
            "networks_at_once": at_once,
            "at_once_is_faster_by": faster,
            "library_stacks": stacks,
            "library_is_faster_by": faster["median"] if stacks else 1.0,
        }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--gpus", default="0")
    arguments = parser.parse_args()
    device = choose_device(arguments.gpus)
    results: dict[str, Any] = {"machine": machine("torch", "numpy"), "seeds": {}, "sweep": {}}
    lines = [["what", "network", "data", "batch", "one by one", "at once", "faster", "library stacks", "its choice"]]
    runs = [("seeds", case, case.seeds(number)) for case in REPLICATES for number in SEEDS]
    runs += [("sweep", case, case.trials()) for case in SWEEPS]
    with tempfile.TemporaryDirectory() as folder:
        data = _data(Path(folder))
        for kind, case, members in runs:
            key = f"{len(members)} x {case.network}, {case.data}"
            print(f"{kind}: {key}", flush=True)
            told = Bench(members, data[case.data], device).measured(repeats=arguments.repeats)
            results[kind][key] = told
            what = f"{len(members)} {'seeds' if kind == 'seeds' else 'trials'}"
            lines.append([what, case.network, case.data, str(members[0].hyperparameters.batch_size), *_cells(told)])
    results["goals"] = _goals(results)
    print(table(lines))
    print(json.dumps(results["goals"], indent=1))
    write("bench_replicates" if arguments.gpus == "0" else "bench_replicates_gpu", results)


def _data(folder: Path) -> dict[str, Dataset]:
    fewer = with_fewer_rows(fashion_mnist(), folder / "fashion-mnist", FASHION_ROWS)
    return {"digits": digits(), "16 numbers": sixteen_numbers(), "Fashion-MNIST": load_dataset(fewer)}


def _cells(told: dict[str, Any]) -> list[str]:
    faster = told["at_once_is_faster_by"]
    return [
        f"{told['seconds']['one by one']['median']:.2f} s",
        f"{told['seconds']['at once']['median']:.2f} s",
        f"{faster['median']:.2f} × ({faster['min']:.2f} to {faster['max']:.2f})",
        "yes" if told["library_stacks"] else "no",
        f"{told['library_is_faster_by']:.2f} ×",
    ]


def _goals(results: dict[str, Any]) -> dict[str, Any]:
    """The smallest sweep's ratio, and the lowest of all, as the library chooses."""
    chosen = {kind: [told["library_is_faster_by"] for told in results[kind].values()] for kind in ("seeds", "sweep")}
    reached = {"smallest sweep": chosen["sweep"][0], "everywhere": min(chosen["seeds"] + chosen["sweep"])}
    return {
        name: {"wanted": wanted, "reached": reached[name], "holds": reached[name] >= wanted}
        for name, wanted in GOALS.items()
    }


if __name__ == "__main__":
    main()
