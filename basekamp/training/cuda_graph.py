"""Steps as a CUDA graph, which launches all their kernels at once, where that is worth the time it takes to capture.

A graph runs the same kernels on the same numbers, so it changes no result. It pays for small networks, whose steps are
bound by launching. Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

import time
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

WARM_STEPS = 20
"""Steps before any are timed: libraries choose their kernels, and the optimizer makes its moments."""

TIMED_STEPS = 20
LEAST_SECONDS = 5.0
"""What is left of the training at the speed measured, below which no graph is captured: capturing takes about one."""

LEAST_GAIN = 1.05


class Captured(Protocol):
    """A step that was captured."""

    def fits(self, inputs: tuple[Tensor, ...]) -> bool:
        """Whether these inputs have the shapes that were captured."""

    def replay(self, inputs: tuple[Tensor, ...]) -> None:
        """Take the step with these inputs."""


class Graph:
    """One step, captured; its inputs are copied to where the kernels look for them."""

    def __init__(self, take: Callable[[tuple[Tensor, ...]], None], inputs: tuple[Tensor, ...]) -> None:
        self.inputs = tuple(tensor.clone() for tensor in inputs)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            take(self.inputs)

    def fits(self, inputs: tuple[Tensor, ...]) -> bool:
        """Whether these inputs have the shapes that were captured."""
        return all(ours.shape == theirs.shape for ours, theirs in zip(self.inputs, inputs, strict=True))

    def replay(self, inputs: tuple[Tensor, ...]) -> None:
        """Take the step with these inputs."""
        for ours, theirs in zip(self.inputs, inputs, strict=True):
            ours.copy_(theirs)
        self.graph.replay()


class Stepper:
    """Takes steps one kernel after the other, measures them, and goes over to a graph when that pays.

    take: takes one step from its inputs, tensors on the device. n_steps: how many there will be at most.
    """

    def __init__(
        self,
        take: Callable[[tuple[Tensor, ...]], None],
        n_steps: int,
        *,
        capture: Callable[..., Captured] = Graph,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.take, self.n_steps, self.capture, self.clock = take, n_steps, capture, clock or _synchronised
        self.graph: Captured | None = None
        self.done = self.began = 0
        self.began_at = self.plain_seconds = 0.0
        self.is_worth_a_try = False
        self.usual: torch.Size | None = None

    def __call__(self, inputs: tuple[Tensor, ...]) -> None:
        """Take one step."""
        self.usual = self.usual or inputs[0].shape
        if self.graph is not None and self.graph.fits(inputs):
            self.graph.replay(inputs)
        else:
            self.take(inputs)
        self.done += 1
        if self.done == self.began + WARM_STEPS:
            self.began_at = self.clock()
        elif self.done == self.began + WARM_STEPS + TIMED_STEPS:
            self._decide((self.clock() - self.began_at) / TIMED_STEPS)
        if self.is_worth_a_try and inputs[0].shape == self.usual:
            self.is_worth_a_try = False
            self._try(inputs)

    def _decide(self, seconds: float) -> None:
        """After plain steps were timed, tell whether to try a graph; after a graph's were, keep it or not."""
        if not self.plain_seconds:
            self.plain_seconds = seconds
            self.is_worth_a_try = (self.n_steps - self.done) * seconds >= LEAST_SECONDS
            return
        if self.graph is not None and seconds * LEAST_GAIN > self.plain_seconds:
            self.graph = None
            told = "which is no faster: steps are launched one kernel after the other again"
        else:
            told = "so all others are taken"
        print(
            f"A step took {1e3 * self.plain_seconds:.3g} ms, as a CUDA graph {1e3 * seconds:.3g} ms, {told}.",
            flush=True,
        )

    def _try(self, inputs: tuple[Tensor, ...]) -> None:
        try:
            self.graph = self.capture(self.take, inputs)
            self.began = self.done
        except Exception as error:  # whatever a network does that cannot be captured, it trains without
            reason = " ".join(str(error).split())[:160]
            print(
                f"The steps cannot be captured as a CUDA graph ({reason}): they are launched as they are.", flush=True
            )


def _synchronised() -> float:
    """The time once the GPU has done all that it was given."""
    torch.cuda.synchronize()
    return time.perf_counter()
