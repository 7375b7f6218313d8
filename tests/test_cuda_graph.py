"""When steps become a CUDA graph, and that this changes no result."""

from functools import partial

import pytest
import torch
from torch import Tensor

from basekamp.data.dataset import load_dataset
from basekamp.hyperparameters import Hyperparameters
from basekamp.models.build import build_model
from basekamp.training.augment import Draws
from basekamp.training.course import Member
from basekamp.training.cuda_graph import TIMED_STEPS, WARM_STEPS, Stepper
from basekamp.training.feed import load_training_data
from basekamp.training.loop import StackLoop
from basekamp.training.steps import Step

FULL, LAST = (torch.zeros(4),), (torch.zeros(3),)


class Machine:
    """A GPU on which plain and captured steps take the time given, and that counts both."""

    def __init__(self, plain: float, captured: float) -> None:
        self.seconds = {"plain": plain, "captured": captured}
        self.taken = {"plain": 0, "captured": 0}
        self.now, self.captures = 0.0, 0

    def take(self, _: tuple[Tensor, ...], kind: str = "plain") -> None:
        self.taken[kind] += 1
        self.now += self.seconds[kind]

    def capture(self, _: object, inputs: tuple[Tensor, ...]) -> "Machine":
        self.captures += 1
        self.shape = inputs[0].shape
        return self

    def fits(self, inputs: tuple[Tensor, ...]) -> bool:
        return inputs[0].shape == self.shape

    def replay(self, inputs: tuple[Tensor, ...]) -> None:
        self.take(inputs, "captured")

    def run(self, n_steps: int, **changes: object) -> None:
        arguments = {"capture": self.capture, "clock": lambda: self.now, **changes}
        stepper = Stepper(self.take, n_steps, **arguments)
        for step in range(n_steps):
            stepper(LAST if step % 10 == 9 else FULL)


def test_long_trainings_of_short_steps_go_over_to_a_graph_and_say_so(capsys):
    machine = Machine(plain=0.004, captured=0.001)
    machine.run(10_000)
    before = WARM_STEPS + TIMED_STEPS  # and one more, for the last of these has the shape of an epoch's last batch
    assert machine.taken["plain"] == sum(step <= before or step % 10 == 9 for step in range(10_000))
    assert machine.taken["captured"] == 10_000 - machine.taken["plain"]
    told = capsys.readouterr().out
    assert told.startswith("A step took 4 ms, as a CUDA graph 1.")
    assert told.endswith("ms, so all others are taken.\n")


def test_short_trainings_are_not_captured():
    machine = Machine(plain=0.004, captured=0.001)
    machine.run(1000)
    assert machine.captures == 0
    assert machine.taken == {"plain": 1000, "captured": 0}


def test_graph_that_is_no_faster_is_dropped(capsys):
    machine = Machine(plain=0.1, captured=0.099)
    machine.run(1000)
    assert machine.captures == 1
    assert machine.taken["captured"] <= WARM_STEPS + TIMED_STEPS
    assert "which is no faster: steps are launched one kernel after the other again." in capsys.readouterr().out


def test_step_that_cannot_be_captured_trains_as_it_is(capsys):
    def refuse(*_: object) -> None:
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    machine = Machine(plain=0.1, captured=0.1)
    machine.run(1000, capture=refuse)
    assert machine.taken == {"plain": 1000, "captured": 0}
    told = capsys.readouterr().out
    assert told.count("cannot be captured as a CUDA graph (operation not permitted when stream is capturing)") == 1


@pytest.mark.parametrize("draws", [None, Draws(*torch.arange(5))], ids=["plain", "with draws"])
def test_step_is_the_same_after_it_was_tensors(draws):
    step = Step(torch.arange(3), draws, torch.tensor(0.1), torch.tensor(0.2))
    assert Step.of(step.tensors()) == step


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("model", ["mlp", "cnn", "resnet"])
def test_graph_gives_the_weights_of_plain_steps(digits, monkeypatch, model, seeds):
    from basekamp.training import cuda_graph

    settings = Hyperparameters.from_mapping(
        {"model": model, "n_layers": 9 if model == "resnet" else 2, "width": 16, "n_epochs": 6, "lr": 0.01}
        | {"flip": True, "crop": 1, "ema": 0.9, "clip_norm": 1.0, "patience": 0}
        | ({} if model == "resnet" else {"dropout": 0.2})
    )
    data, device, reached = load_dataset(digits), torch.device("cuda"), []
    for least in (0.0, float("inf")):
        monkeypatch.setattr(cuda_graph, "LEAST_SECONDS", least)
        monkeypatch.setattr(cuda_graph, "LEAST_GAIN", 0.0)
        members = [Member(seed, settings) for seed in range(seeds)]
        build = partial(build_model, schema=data.schema)
        loop = StackLoop(build, load_training_data(data, device), members, metric="accuracy")
        loop.run()
        assert (loop.stepper.graph is not None) == (least == 0.0)
        reached.append([course.curves["validation_loss"] for course in loop.courses])
    assert torch.tensor(reached[0]).allclose(torch.tensor(reached[1]), atol=1e-3)
