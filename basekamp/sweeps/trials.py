"""Train the trials of one pack, as many at once as pays, and write down what each came to."""

import hashlib
import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from basekamp.data.dataset import Dataset, load_dataset
from basekamp.errors import InputError
from basekamp.storage import open_store
from basekamp.sweeps.rounds import Pack
from basekamp.sweeps.shelf import End, Round, SweepShelf, Trial
from basekamp.training.boosting import fit_boosting
from basekamp.training.checkpoint import Checkpoints
from basekamp.training.cohort import Cohort
from basekamp.training.course import Course, Member
from basekamp.training.device import choose_device
from basekamp.training.progress import Progress, show_progress
from basekamp.training.results import Curves
from basekamp.training.saver import Saver
from basekamp.training.train import remote_store

TRIAL_SEED = 0
CHECKPOINT_SECONDS = 30.0


class _PackRun:
    """One pack of one round. Trials that have a result of this round are not trained again."""

    def __init__(self, data: Dataset, shelf: SweepShelf, rounds: Sequence[Round], pack: Pack) -> None:
        self.data, self.shelf, self.pack = data, shelf, pack
        self.round = rounds[pack.round]
        self.numbers = self.round.packs[pack.number]
        choices = {number: choice for one in rounds for number, choice in one.choices.items()}
        is_halving = self.round.sweep.method == "halving"
        self.founders = rounds[0].packs[pack.number] if is_halving else self.numbers
        self.settings = {number: self.round.hyperparameters(choices[number]) for number in self.founders}
        done = {one.number for one in shelf.told() if one.round == pack.round}
        self.missing = [number for number in self.numbers if number not in done]
        self.seconds = math.inf if self.round.seconds is None else self.round.seconds[pack.number]

    def boost(self, progress: Progress) -> None:
        """Grow the trees of each trial of boosting, one trial after the other."""
        begun = time.monotonic()
        grown = [number for number in self.missing if self.settings[number].model == "boosting"]
        for done, number in enumerate(grown, 1):
            if time.monotonic() - begun >= self.seconds:
                return
            course = fit_boosting(self.data, self.settings[number], seed=TRIAL_SEED, metric=self.round.metric)
            self.write(number, course)
            progress(done, len(grown), f"trial {number}")

    def train(self, device: torch.device, saver: Saver, progress: Progress) -> None:
        """Train all networks; the state stays in the checkpoints while a later round may need it."""
        numbers = [number for number in self.founders if self.settings[number].model != "boosting"]
        if not set(numbers) & set(self.missing):
            return
        members = [Member(TRIAL_SEED, self.settings[number]) for number in numbers]
        cohort = Cohort(members, self.data, device, metric=self.round.metric, saver=saver, keeps_weights=False)
        session = cohort.session
        if session.resume(device):
            print(f"Resuming from a checkpoint: pack {self.pack}.", flush=True)
        session.pruned = frozenset(place for place, number in enumerate(numbers) if number not in self.numbers)

        def after_epoch() -> None:
            progress(*cohort.epochs(), session.running.text())
            if session.seconds() >= self.seconds:
                session.end_running("stopped")

        cohort.run(after_epoch=after_epoch, until=self.round.until, may_begin=lambda: session.seconds() < self.seconds)
        for place, course in sorted(session.courses().items()):
            if numbers[place] in self.missing:
                self.write(numbers[place], course)
        if not self.round.is_last:
            saver.save_and_wait()

    def write(self, number: int, course: Course) -> None:
        """Put what a trial came to into the store."""
        settings, metric = self.settings[number], self.round.metric
        if not course.curves["validation_metric"]:
            return  # its turn never came
        trial = Trial(
            number=number,
            round=self.round.number,
            params=settings.effective(),
            metric=metric,
            value=course.value(metric),
            loss=-course.best_score[1],
            n_epochs=course.n_epochs,
            best_epoch=course.best_epoch,
            seconds=round(course.seconds, 3),
            ended=_end(course),
            curves=Curves(**course.curves),
        )
        self.shelf.put_trial(trial, first=tuple(self.round.sweep.over))


def train_trials(dataset: Path, name: str, *, experiment: str, store: str, gpus: str = "0") -> None:
    """Train what is missing of the pack of this name; a killed training goes on from its last checkpoint.

    Every trial has the same seed, so that those of one shape see the same batches. Raises InputError for settings that
    do not fit the data, DeviceError for GPUs that are not there or too small.
    """
    if gpus not in ("0", "1"):
        raise InputError(f'gpus="{gpus}" is not allowed: use "0" or "1", a pack of trials has one GPU at most.')
    pack = Pack.named(name)
    shelf = SweepShelf(open_store(store), experiment, pack.sweep_id)
    rounds = shelf.rounds()
    this = rounds[pack.round]
    if not this.packs[pack.number] and this.until is None:
        return
    device = choose_device(gpus)
    run = _PackRun(load_dataset(dataset), shelf, rounds, pack)
    saver = Saver(Checkpoints(_key(pack, run, device), remote_store(store)), every_seconds=CHECKPOINT_SECONDS)
    with saver.stopping_on_sigterm(), show_progress() as progress:
        run.boost(progress)
        run.train(device, saver, progress)
        if run.round.is_last:
            saver.remove()


def _key(pack: Pack, run: _PackRun, device: torch.device) -> str:
    """Where a pack's checkpoints lie: those of halving are one training through all rounds."""
    first = 0 if run.round.sweep.method == "halving" else pack.round
    parts = (run.shelf.prefix, first, pack.number, run.founders, device.type, torch.__version__)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def _end(course: Course) -> End:
    ended: End = course.ended or "paused"  # type: ignore[assignment]
    return ended
