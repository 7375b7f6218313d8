"""What telling a tracker costs a training: with `tracking: mlflow` to a live server, against none.

The network takes both cores, so that whatever the process that sends computes is taken from the training. It begins to
send after a minute, as it does by default; each training lasts longer than that. The limit is a ratio of 1.

    python -m benchmarks.bench_tracking
"""

import argparse
import os
import tempfile
from itertools import count
from pathlib import Path

from basekamp.data.prepare import prepare_data
from basekamp.experiment import DataSettings
from basekamp.hyperparameters import Hyperparameters
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
            return seconds(
                lambda: train_model(
                    place / "data", place / f"{n}", settings, metric="accuracy", seeds=1, tracking=tracking
                )
            )

        try:
            measured = in_turns(
                {"without": lambda: train(False), "with MLflow": lambda: train(True)}, repeats=arguments.repeats
            )
        finally:
            server.kill()
    ratio = ratios(measured, to="without")["with MLflow"]
    told = {name: summary(values) for name, values in measured.items()}
    write(
        "bench_tracking",
        {"machine": machine("torch", "mlflow-skinny"), "epochs": arguments.epochs, "seconds": told, "ratio": ratio},
    )
    print(table([["", "seconds"], *([name, f"{one['median']:.2f}"] for name, one in told.items())]))
    print(f"ratio of the same turn: median {ratio['median']:.4f}, {ratio['min']:.4f} to {ratio['max']:.4f}")


if __name__ == "__main__":
    main()
