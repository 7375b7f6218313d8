"""The loops of one training: which members train together, how far each loop is, and what all came to."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from basekamp.errors import InputError
from basekamp.training.course import Course, State
from basekamp.training.loop import StackLoop
from basekamp.training.meter import Meter
from basekamp.training.saver import Saver


class Session:
    """Makes loops when they are needed, and keeps of one that is done its results alone.

    groups: the members of each loop, by their places in the training. `memo` is saved beside: plain values. A training
    that was saved goes on where it stood, with the groups that it had then. What `meter` measured goes on as well.
    `after_step` is called after each step; loops that are there already keep theirs. `pruned` members go no further
    than they are, from the next loop on.
    """

    def __init__(
        self,
        make_loop: Callable[[Sequence[int]], StackLoop],
        groups: Sequence[Sequence[int]],
        saver: Saver,
        meter: Meter | None = None,
    ) -> None:
        self.make_loop, self.saver, self.meter = make_loop, saver, meter or Meter()
        self.groups = [list(group) for group in groups]
        self.states: list[State | None] = [None] * len(self.groups)
        self.loops: dict[int, StackLoop] = {}
        self.pruned: frozenset[int] = frozenset()
        self.memo: dict[str, Any] = {}
        self.after_step: Callable[[], None] = saver.after_step

    def resume(self, device: torch.device) -> bool:
        """Go back to where the last checkpoint was taken; False when there is none. From now on all is saved."""
        state = self.saver.restore(device)
        if state is not None:
            self.groups, self.states, self.memo = state["groups"], state["loops"], state["memo"]
            for place, of_loop in enumerate(self.states):
                if of_loop is not None and of_loop["alive"]:
                    self.loop(place)
            _set_random_state(state["random"])
            self.meter.load_state(state["meter"])
        self.saver.snapshot = self.snapshot
        return state is not None

    def loop(self, place: int) -> StackLoop:
        """The loop of a group, made or brought back to where it was."""
        if place not in self.loops:
            loop = self.make_loop(self.groups[place])
            loop.after_step = self.after_step
            state = self.states[place]
            if state is not None:
                _load(loop, state)
            loop.end([k for k in loop.alive if self.groups[place][k] in self.pruned], "pruned")
            self.loops[place] = loop
        return self.loops[place]

    @property
    def running(self) -> StackLoop:
        """The loop that was begun last."""
        return next(reversed(self.loops.values()))

    def is_done(self, place: int) -> bool:
        """Whether every member of a group has ended."""
        state = self.states[place]
        return state is not None and place not in self.loops and not state["alive"]

    def finish(self, place: int) -> None:
        """Keep of a loop what it came to, and give its memory back."""
        self.states[place] = self.loops.pop(place).state()
        self.saver.save()

    def split(self, place: int) -> None:
        """Let the two halves of a group train one after the other instead, from the start."""
        self.loops.pop(place, None)
        self.loops = {other + (other > place): loop for other, loop in self.loops.items()}
        group = self.groups[place]
        half = len(group) // 2
        self.groups[place : place + 1] = [group[:half], group[half:]]
        self.states[place : place + 1] = [None, None]

    def courses(self) -> dict[int, Course]:
        """How each member fared, of the groups that have begun."""
        told: dict[int, Course] = {}
        for place, group in enumerate(self.groups):
            state = self.states[place]
            if place in self.loops:
                told |= dict(zip(group, self.loops[place].courses, strict=True))
            elif state is not None:
                told |= {member: Course(**course) for member, course in zip(group, state["courses"], strict=True)}
        return told

    def seconds(self) -> float:
        """How long all members trained, together."""
        return sum(course.seconds for course in self.courses().values())

    def end_running(self, how: str) -> None:
        """End the members of the loop that runs, between two epochs."""
        self.running.end(list(self.running.alive), how)

    def snapshot(self) -> State:
        """A copy of all that is needed to go on."""
        with self.meter.spending("checkpoint"):
            loops = [
                self.loops[place].state() if place in self.loops else state for place, state in enumerate(self.states)
            ]
            groups = [list(group) for group in self.groups]
            state = {"groups": groups, "loops": loops, "memo": dict(self.memo), "random": _random_state()}
            return state | {"meter": self.meter.state()}


def _load(loop: StackLoop, state: State) -> None:
    try:
        loop.load_state(state)
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        raise InputError(
            f"the checkpoint does not fit the model any more ({error}): remove it and train again."
        ) from error


def _random_state() -> dict[str, Any]:
    """Torch's own random numbers, which a model of the user's own may draw."""
    on_cuda = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state() if on_cuda else None}


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"].cpu())
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"].cpu())
