"""What a checkpoint costs: ours, copied in the loop and written beside it, against one written in the loop.

Both save the same state as safely (temporary file, SHA-256, fsync, rename), after every 40th step. The *stall* is how
long the loop stands still; the *cost* is how much longer the whole run takes for each checkpoint, with what the
writing thread takes away from the computation. The share is of a run that saves every 30 s, as it does by default.

    python -m benchmarks.bench_checkpoint
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from basekamp.hyperparameters import Hyperparameters
from basekamp.models.build import build_model, count_parameters
from basekamp.training.checkpoint import Checkpoints
from basekamp.training.course import Member
from basekamp.training.device import choose_device
from basekamp.training.feed import load_training_data
from basekamp.training.loop import StackLoop
from basekamp.training.saver import Saver
from benchmarks.fashion_mnist import fashion_mnist
from benchmarks.measure import in_turns, machine, ratios, seconds, summary, table, write

EVERY, DEFAULT_SECONDS = 40, 30.0
NETWORKS = {
    "mlp, 2 layers of 1,024": {"model": "mlp", "n_layers": 2, "width": 1024, "batch_size": 1024},
    "resnet 9, width 16": {"model": "resnet", "n_layers": 9, "width": 16, "batch_size": 16},
}


class Run:
    """A loop that takes 200 steps, and what it does after every 40th."""

    def __init__(self, settings: dict[str, Any], device: torch.device, folder: Path) -> None:
        data = fashion_mnist()
        self.settings = Hyperparameters(**settings, n_epochs=1000, patience=0)
        self.rows = load_training_data(data, device)
        self.build = partial(build_model, schema=data.schema)
        self.saver = Saver(Checkpoints("bench", home=folder), every_seconds=1e9)
        self.stalled: dict[str, list[float]] = {"ours": [], "in the loop": []}

    def __call__(self, save: Callable[[StackLoop], None]) -> float:
        """Seconds of the run."""
        loop = StackLoop(self.build, self.rows, [Member(0, self.settings)], metric="accuracy")
        loop.has_started, done = True, 0

        def after_step() -> None:
            nonlocal done
            done += 1
            if done % EVERY == 0:
                save(loop)
            if done == 5 * EVERY:
                raise StopIteration

        loop.after_step = after_step
        return seconds(lambda: self._run(loop))

    def _run(self, loop: StackLoop) -> None:
        try:
            loop.run()
        except StopIteration:
            self.saver.writing.wait()

    def ours(self, loop: StackLoop) -> None:
        """Copy, and let a thread write."""
        self.saver.snapshot = loop.state
        self.stalled["ours"].append(seconds(self.saver.save))

    def in_the_loop(self, loop: StackLoop) -> None:
        """Write before the next step."""
        self.stalled["in the loop"].append(seconds(lambda: self.saver.checkpoints.write(loop.state())))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--gpus", default="0")
    arguments = parser.parse_args()
    device = choose_device(arguments.gpus)
    results: dict[str, Any] = {"machine": machine("torch"), "networks": {}}
    lines = [
        [
            "network",
            "parameters",
            "written in the loop",
            "our stall",
            "stall ratio",
            "longer run, each",
            "share of a run",
        ]
    ]
    for name, settings in NETWORKS.items():
        with tempfile.TemporaryDirectory() as folder:
            told = _measure(Run(settings, device, Path(folder)), repeats=arguments.repeats)
        results["networks"][name] = told
        lines.append(
            [
                name,
                f"{told['parameters']:,}",
                f"{1e3 * told['stall_seconds']['in the loop']['median']:.1f} ms",
                f"{1e3 * told['stall_seconds']['ours']['median']:.1f} ms",
                f"{told['stall_ratio']:.2f} ×",
                _range(told["cost_seconds"]["ours"]),
                f"{100 * told['share_of_run']:.2f} %",
            ]
        )
    print(table(lines))
    write("bench_checkpoint" if arguments.gpus == "0" else "bench_checkpoint_gpu", results)


def _range(cost: dict[str, float]) -> str:
    """What a checkpoint adds to the run; mostly less than runs differ among themselves."""
    return f"{1e3 * cost['median']:.0f} ms ({1e3 * cost['min']:.0f} to {1e3 * cost['max']:.0f})"


def _measure(run: Run, *, repeats: int) -> dict[str, Any]:
    measured = in_turns(
        {
            "none": lambda: run(lambda _: None),
            "ours": lambda: run(run.ours),
            "in the loop": lambda: run(run.in_the_loop),
        },
        repeats=repeats,
    )
    number = 5
    cost = {
        name: summary([(one - none) / number for one, none in zip(measured[name], measured["none"], strict=True)])
        for name in ("ours", "in the loop")
    }
    stall = {name: summary(values[number:]) for name, values in run.stalled.items()}
    return {
        "parameters": count_parameters(run.build(run.settings)),
        "seconds": {name: summary(values) for name, values in measured.items()},
        "to_none": ratios(measured, to="none"),
        "stall_seconds": stall,
        "cost_seconds": cost,
        "stall_ratio": stall["ours"]["median"] / stall["in the loop"]["median"],
        "share_of_run": max(stall["ours"]["median"], cost["ours"]["median"]) / DEFAULT_SECONDS,
    }


if __name__ == "__main__":
    main()
