"""Results that wait on this machine for a store that was down, until `basekamp sync` judges and records them.

<work folder>/waiting/<digest>/    dataset, model, evaluation, ladder, checked: what steps before compare-models wrote
                                   waiting.json: what compare-models was asked; written last, with it the result counts
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict

from basekamp.data.dataset import load_dataset
from basekamp.document import load_document
from basekamp.errors import BasekampError, InputError, ResultsWaitError, StoreDownError, StoreError
from basekamp.hyperparameters import Hyperparameters
from basekamp.records.compare import Folders, Question, compare_models
from basekamp.records.record import BASELINE, Record
from basekamp.records.shelf import read_record, read_shelf
from basekamp.storage import open_store
from basekamp.storage.protocol import write_whole
from basekamp.tracking.judged import tell_trackers
from basekamp.training.results import Training
from basekamp.work import WAITING_VARIABLE, work_directory

_FILE = "waiting.json"


class Waiting(BaseModel):
    """What compare-models was asked when the store was down."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: Question
    store: str
    gpus: str
    tracking: str
    since: AwareDatetime


@dataclass(frozen=True)
class Brought:
    """What came of one waiting result: its record's name, empty where none was needed, or why it still waits."""

    store: str
    experiment: str
    attempt: str
    record: str = ""
    left: int = 0
    error: str = ""

    def text(self) -> str:
        """One line for whoever waits."""
        told = f"{self.store}, {self.experiment}/{self.attempt}"
        if self.left:
            return f"{told} still waits: {self.error}"
        return f"{told}: {self.record or 'dropped, the same baseline is there already'}"


def waiting_folder() -> Path:
    """Where results wait on this machine."""
    return work_directory() / "waiting"


def compare_or_keep(
    folders: Folders,
    question: Question,
    *,
    store: str,
    html: Path,
    markdown: Path,
    gpus: str = "0",
    tracking: str = "",
) -> Record:
    """Do what `compare_models` does; where the store is down and $BASEKAMP_WAITING is set, keep what it needs there.

    Raises ResultsWaitError once that is kept, also for an attempt whose baseline waits; else as `compare_models` does.
    """
    kept = os.environ.get(WAITING_VARIABLE)
    try:
        if kept and question.attempt != BASELINE and is_waiting(store, question.experiment, BASELINE):
            raise StoreDownError(f"the baseline of {question.experiment} waits for {store}.")
        return compare_models(folders, question, store=store, html=html, markdown=markdown, gpus=gpus)
    except StoreDownError as error:
        if not kept:
            raise
        waiting = Waiting(question=question, store=store, gpus=gpus, tracking=tracking, since=datetime.now(UTC))
        _keep(Path(kept), folders, waiting)
        raise ResultsWaitError(
            f"{store} is down, so {question.attempt} of {question.experiment} waits in {kept}: `basekamp sync` judges "
            "and records it once the store is up."
        ) from error


def is_waiting(store: str, experiment: str, attempt: str) -> bool:
    """Whether a result of this attempt waits on this machine for this store."""
    named = (store, experiment, attempt)
    return any((one.store, one.question.experiment, one.question.attempt) == named for _, one in _all_waiting())


def bring_up(store: str = "") -> list[Brought]:
    """Judge and record every result that waits, or those for one store, the oldest first; gives what came of each.

    A record keeps the name of its run, so one that was recorded before a kill is found and not recorded again.
    Raises InputError while another process is at it.
    """
    if not waiting_folder().is_dir():
        return []
    with _alone(waiting_folder()):
        return [_bring_up(folder, waiting) for folder, waiting in _all_waiting() if store in ("", waiting.store)]


def _bring_up(folder: Path, waiting: Waiting) -> Brought:
    named = (waiting.store, waiting.question.experiment, waiting.question.attempt)
    try:
        record = None if _is_there_already(folder, waiting) else _record(folder, waiting)
    except BasekampError as error:
        return Brought(*named, left=1, error=str(error))
    _remove(folder)
    return Brought(*named, record=record.name if record else "")


def _record(folder: Path, waiting: Waiting) -> Record:
    paths = {field.name: folder / field.name for field in fields(Folders)}
    folders = Folders(**{name: path for name, path in paths.items() if name != "checked" or path.is_dir()})
    with tempfile.TemporaryDirectory(prefix="basekamp-") as name:
        pages = {"html": Path(name) / "report.html", "markdown": Path(name) / "report.md"}
        record = compare_models(folders, waiting.question, store=waiting.store, gpus=waiting.gpus, **pages)
    tell_trackers(waiting.tracking, folders.model, record, store=waiting.store)
    return record


def _is_there_already(folder: Path, waiting: Waiting) -> bool:
    """Whether this is a baseline, made because nobody could see that the store has the same one pinned."""
    if waiting.question.attempt != BASELINE:
        return False
    store = open_store(waiting.store)
    pinned = read_shelf(store, waiting.question.experiment).baseline
    if pinned is None or waiting.question.is_of(pinned.id):
        return False
    record, training = read_record(store, pinned), Training.read(folder / "model")
    params = Hyperparameters.model_validate(training.hyperparameters).effective()
    same_data = record.data.dataset == load_dataset(folder / "dataset").schema.dataset_fingerprint
    return same_data and (record.params, record.metric) == (params, training.metric)


def _all_waiting() -> list[tuple[Path, Waiting]]:
    """Every result that waits, baselines before attempts; raises InputError for a damaged one."""
    paths = waiting_folder().glob(f"*/{_FILE}")
    found = [(path.parent, load_document(Waiting, path)) for path in paths if not path.parent.name.startswith(".")]
    return sorted(found, key=lambda one: (one[1].question.attempt != BASELINE, one[1].since))


def _keep(place: Path, folders: Folders, waiting: Waiting) -> None:
    """Link or copy the folders beside the place, and rename them into it; the same result is kept once."""
    digest = hashlib.sha256(f"{waiting.store}\n{waiting.question.run}\n{waiting.question.attempt}".encode()).hexdigest()
    folder, staging = place / digest[:24], place / f".{uuid.uuid4().hex}"
    try:
        if folder.exists():
            return
        for name, source in vars(folders).items():
            if source is not None:
                shutil.copytree(source, staging / name, copy_function=_link_or_copy)
        write_whole(staging / _FILE, waiting.model_dump_json(indent=1))
        staging.rename(folder)
    except OSError as error:
        raise StoreError(
            f"the store {waiting.store} is down, and what {waiting.question.attempt} came to cannot be kept in {place} "
            f"({error.strerror or error}): make room there, and run it again when the store is up."
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _link_or_copy(source: str, target: str) -> None:
    """Steps never change what they wrote, so one file may have two names."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _remove(folder: Path) -> None:
    with suppress(OSError):
        (folder / _FILE).unlink()
        shutil.rmtree(folder)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Be the only process that brings results up: two would record one of them twice."""
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"another `basekamp sync` is bringing up {folder}: wait for it to end.") from error
        yield
