"""What telling a tracker costs a training: with `tracking: mlflow` to a live server, against none.

The network takes both cores, so that whatever the process that sends computes is taken from the training. It begins to
send after a minute, as it does by default; each training lasts longer than that. The limit is a ratio of 1.

Seconds of whole trainings vary by more than what is looked for; so the time that the training itself spends on telling,
waiting at its end included, is measured as well. The process that sends has the priority of an idle one, by which
Linux gives it 3 parts in 1,027 of a core that others want.

    python -m benchmarks.bench_tracking
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from basekamp.data.prepare import prepare_data
from basekamp.experiment import DataSettings
from basekamp.hyperparameters import Hyperparameters
from basekamp.tracking.training import TrainingTracker
from basekamp.training.train import train_model
from benchmarks.measure import in_turns, machine, ratios, seconds, summary, table, write
from tests.mlflow_server import MlflowServer

SETTINGS = {"model": "mlp", "n_layers": 2, "width": 512, "batch_size": 256, "patience": 0}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4500)
    arguments = parser.parse_args()
    settings = Hyperparameters(**SETTINGS, n_epochs=arguments.epochs)
    spent, shares = _time_telling(), list[float]()
    with tempfile.TemporaryDirectory() as folder:
        place, number = Path(folder), count()
        os.environ["BASEKAMP_HOME"] = str(place / "home")
        prepare_data(DataSettings(source="sklearn:digits", target="digit"), place / "data")
        (place / "mlflow").mkdir()
        server = MlflowServer(place / "mlflow").start()
        os.environ["MLFLOW_TRACKING_URI"] = server.url

        def train(tracked: bool) -> float:
            n = next(number)
            tracking = f"mlflow:bench/attempt-{n}" if tracked else ""
            spent[0] = 0.0
            taken = seconds(
                lambda: train_model(
                    place / "data", place / f"{n}", settings, metric="accuracy", seeds=1, tracking=tracking
                )
            )
            if tracked:
                shares.append(spent[0] / taken)
            return taken

        try:
            measured = in_turns(
                {"without": lambda: train(False), "with MLflow": lambda: train(True)}, repeats=arguments.repeats
            )
        finally:
            server.kill()
    ratio = ratios(measured, to="without")["with MLflow"]
    told = {name: summary(values) for name, values in measured.items()}
    share = summary(shares[1:])
    versions = machine("torch", "mlflow-skinny")
    result = {"epochs": arguments.epochs, "seconds": told, "ratio": ratio, "share_of_telling": share}
    write("bench_tracking", {"machine": versions} | result)
    print(table([["", "seconds"], *([name, f"{one['median']:.2f}"] for name, one in told.items())]))
    print(f"ratio of the same turn: median {ratio['median']:.4f}, {ratio['min']:.4f} to {ratio['max']:.4f}")
    print(f"spent on telling: median {share['median']:.3%}, {share['min']:.3%} to {share['max']:.3%}")


def _time_telling() -> list[float]:
    """A list whose only number grows by the seconds that trainings spend on telling."""
    spent = [0.0]

    def timed(act: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any) -> Any:
            begin = time.perf_counter()
            try:
                return act(*arguments)
            finally:
                spent[0] += time.perf_counter() - begin

        return wrapped

    for name in ("begin", "note", "end", "wait"):
        setattr(TrainingTracker, name, timed(getattr(TrainingTracker, name)))
    return spent


if __name__ == "__main__":
    main()
