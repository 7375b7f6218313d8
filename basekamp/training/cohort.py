"""Members of any settings on one data set: those of one shape train together where that pays, the others in turn."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from basekamp.data.dataset import Dataset, Schema
from basekamp.hyperparameters import Hyperparameters, is_own_model
from basekamp.models.build import build_model, count_multiplications, count_parameters, fit_model
from basekamp.training.course import Member
from basekamp.training.device import describe_device, fitting_threads
from basekamp.training.feed import load_training_data
from basekamp.training.grouping import in_groups, most_at_once, shape_of
from basekamp.training.loop import StackLoop
from basekamp.training.memory import too_large
from basekamp.training.meter import Meter
from basekamp.training.saver import Saver
from basekamp.training.session import Session
from basekamp.training.stack import why_not_stacked

ROWS_TRIED = 2


@dataclass(frozen=True)
class _Shape:
    """What members of one shape have in common; step_size counts the multiplications of one network's step."""

    build: Callable[[Hyperparameters], nn.Module]
    n_parameters: int
    step_size: int
    most_at_once: int


class Cohort:
    """Trains members on one device, with `n_processes` sharing each batch; the results are in `session`.

    at_once: how many of one shape train together; None for as many as pays.

    Raises InputError for settings that do not fit the data.
    """

    def __init__(
        self,
        members: Sequence[Member],
        data: Dataset,
        device: torch.device,
        *,
        metric: str,
        saver: Saver,
        meter: Meter | None = None,
        loop: type[StackLoop] = StackLoop,
        n_processes: int = 1,
        keeps_weights: bool = True,
        at_once: int | None = None,
    ) -> None:
        self.members, self.device, self.metric = tuple(members), device, metric
        self.kind, self.n_processes, self.keeps_weights = loop, n_processes, keeps_weights
        self.meter = meter or Meter()
        with self.meter.spending("data"):
            self.rows = load_training_data(data, device)
        places: dict[str, list[int]] = {}
        for place, member in enumerate(self.members):
            places.setdefault(shape_of(member.hyperparameters), []).append(place)
        self.shapes = {shape: self._shape(self.members[some[0]], data) for shape, some in places.items()}
        groups = [
            group
            for shape, some in places.items()
            for group in in_groups(some, at_once or self.shapes[shape].most_at_once)
        ]
        self.session = Session(self._loop, groups, saver, self.meter)

    def run(
        self, *, after_epoch: Callable[[], None], until: int | None = None, may_begin: Callable[[], bool] = lambda: True
    ) -> None:
        """Train each group that is not done to its end, or `until` that epoch; what does not fit the GPU is split.

        A group begins only when `may_begin` says so. Raises DeviceError when a single network does not fit.
        """
        session, place = self.session, 0
        while place < len(session.groups):
            if not session.is_done(place) and may_begin():
                try:
                    with self.threads(place):
                        session.loop(place).run(after_epoch=after_epoch, until=until)
                except torch.OutOfMemoryError as error:
                    self._split(place, error)
                    continue
                session.finish(place)
            place += 1

    def describe_device(self) -> str:
        """Name what it trains on."""
        with self.threads(0):
            return describe_device(self.device, n_processes=self.n_processes)

    def threads(self, place: int) -> AbstractContextManager[None]:
        """As many CPU threads as the steps of a group are worth."""
        group = self.session.groups[place]
        step_size = self._of(self.members[group[0]]).step_size
        return fitting_threads(self.device, step_size=step_size * len(group))

    def epochs(self) -> tuple[int, int]:
        """Epochs done and epochs in all; a member that ended early has done all of its."""
        told = self.session.courses()
        each = [member.hyperparameters.n_epochs for member in self.members]
        done = (each[place] if course.ended else course.n_epochs for place, course in told.items())
        return sum(done), sum(each)

    def n_parameters(self) -> int:
        """How many parameters the first member has."""
        return self._of(self.members[0]).n_parameters

    def build(self, member: Member) -> nn.Module:
        """A member's network, untrained."""
        return self._of(member).build(member.hyperparameters)

    def _of(self, member: Member) -> _Shape:
        return self.shapes[shape_of(member.hyperparameters)]

    def _loop(self, places: Sequence[int]) -> StackLoop:
        members = [self.members[place] for place in places]
        build = self._of(members[0]).build
        return self.kind(
            build, self.rows, members, metric=self.metric, keeps_weights=self.keeps_weights, meter=self.meter
        )

    def _shape(self, member: Member, data: Dataset) -> _Shape:
        settings, schema = member.hyperparameters, data.schema
        with self.meter.spending("data"):
            build = partial(build_model, schema=schema, fitted=fit_model(settings, data))
        untrained = build(settings)
        step_size = count_multiplications(untrained, schema) * settings.batch_size // self.n_processes
        return _Shape(build, count_parameters(untrained), step_size, self._most(build, untrained, settings, schema))

    def _most(
        self,
        build: Callable[[Hyperparameters], nn.Module],
        untrained: nn.Module,
        settings: Hyperparameters,
        schema: Schema,
    ) -> int:
        """How many of this shape train at once: 1, with a note, where a network of the user's own cannot be stacked."""
        most = most_at_once(untrained, settings, schema, self.device) if self.n_processes == 1 else 1
        if most == 1 or not is_own_model(settings.model):
            return most
        reason = why_not_stacked([build(settings), build(settings)], self.rows.x_validation[:ROWS_TRIED].cpu())
        if not reason:
            return most
        print(
            f"model: {settings.model} trains one seed after the other, for it cannot be stacked ({reason}).", flush=True
        )
        return 1

    def _split(self, place: int, error: torch.OutOfMemoryError) -> None:
        """Let the halves of a group train one after the other."""
        number = len(self.session.groups[place])
        if number == 1:
            raise too_large(self.session.loop(place), error) from error
        self.session.split(place)
        torch.cuda.empty_cache()
        print(f"{number} networks at once do not fit the GPU: half as many train at once.", flush=True)
