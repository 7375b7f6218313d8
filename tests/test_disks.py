"""Disks that are full or read-only, at every place that writes: one sentence, nothing half written or lost."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from basekamp.cluster.campaign import run_experiment
from basekamp.data.prepare import prepare_data
from basekamp.errors import BasekampError, ResultsWaitError, StoreError
from basekamp.evaluation.evaluate import evaluate_model
from basekamp.evaluation.ladder import measure_ladder
from basekamp.experiment import DataSettings
from basekamp.records.compare import Folders, Question, compare_models
from basekamp.records.shelf import read_shelf
from basekamp.records.waiting import compare_or_keep
from basekamp.storage import open_store
from basekamp.tracking.spool import spools
from basekamp.work import WAITING_VARIABLE
from tests.test_campaign import EXPERIMENT, Display
from tests.trainings import results, train

SIZE_KIB = 2048


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE_KIB}k", "none", place], capture_output=True, text=True
    )
    if mounted.returncode:
        (pytest.fail if os.environ.get("BASEKAMP_REQUIRE_CONTAINERS") else pytest.skip)(
            f"no file system can be mounted here: {mounted.stderr.strip()}"
        )
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(disk: Path, *, left_kib: int = 0) -> None:
    """Leave so little room on the disk."""
    (disk / "filler").write_bytes(bytes((shutil.disk_usage(disk).free // 1024 - left_kib) * 1024))


def make_read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)


def make_writable(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    (disk / "filler").unlink(missing_ok=True)


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "full": (fill, "No space left on device"),
    "read-only": (make_read_only, "Read-only file system"),
}


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "filler"
    }


@pytest.fixture(scope="module")
def trained(tables: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with its evaluation and its ladder; nobody writes here afterwards."""
    folder, data = tmp_path_factory.mktemp("trained"), tables["classification"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BASEKAMP_HOME", str(folder / "home"))
        train(data, folder / "model", seeds=2, model="linear")
        evaluate_model(data, folder / "model" / "model.pth", folder / "told", metric="accuracy", examine=True)
        measure_ladder(data, folder / "ladder", metric="accuracy")
    return folder


def compare(trained: Path, data: Path, store: Path, pages: Path, *, run: int = 0) -> None:
    question = Question("sales", "baseline", "", 0.01, f"run-{run}")
    folders = Folders(data, trained / "model", trained / "told", trained / "ladder")
    compare_models(folders, question, store=str(store), html=pages / "page.html", markdown=pages / "page.md")


def wait(trained: Path, data: Path, place: Path) -> None:
    question = Question("sales", "baseline", "", 0.01, "run")
    folders, pages = Folders(data, trained / "model", trained / "told", trained / "ladder"), place.parent
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ResultsWaitError):
        patch.setenv(WAITING_VARIABLE, str(place))
        compare_or_keep(folders, question, store="s3://down", html=pages / "page.html", markdown=pages / "page.md")


def writers(trained: Path, data: Path, disk: Path) -> dict[str, Callable[[], object]]:
    """What each step writes, to the disk; what else it writes goes elsewhere."""
    source, beside = data.parent / "sales.csv", disk.parent
    names = count()
    return {
        "dataset": lambda: prepare_data(DataSettings(source=str(source), target="kind"), disk / "dataset"),
        "model": lambda: train(data, disk / "model", model="linear"),
        "evaluation": lambda: evaluate_model(data, trained / "model/model.pth", disk / "told", metric="accuracy"),
        "ladder": lambda: measure_ladder(data, disk / "ladder", metric="accuracy"),
        "record": lambda: compare(trained, data, disk / "store", beside, run=next(names)),
        "report": lambda: compare(trained, data, beside / "store", disk),
        "waiting result": lambda: wait(trained, data, disk / f"waiting-{next(names)}"),
    }


@pytest.fixture(autouse=True)
def s3_down(monkeypatch: pytest.MonkeyPatch, no_s3_env: None, home: Path) -> None:
    """An S3 service that is down."""
    monkeypatch.setenv("BASEKAMP_S3_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")


@pytest.mark.parametrize("state", BROKEN)
@pytest.mark.parametrize("what", ["dataset", "model", "evaluation", "ladder", "record", "report", "waiting result"])
def test_a_disk_that_refuses_is_told_in_one_sentence_and_keeps_what_it_has(
    trained: Path, tables: dict[str, Path], disk: Path, what: str, state: str, held: Callable[..., None]
) -> None:
    act = writers(trained, tables["classification"], disk)[what]
    act()
    before = content(disk)
    assert before
    refuse, reason = BROKEN[state]
    refuse(disk)
    with pytest.raises(BasekampError, match=reason) as caught:
        act()
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    assert content(disk) == before
    make_writable(disk)
    act()
    held(f"disk that is {state} at the writing of: {what}", 1, "one sentence, nothing half written, done later")


@pytest.mark.parametrize("state", BROKEN)
def test_a_training_goes_on_without_checkpoints_and_trackers_on_a_disk_that_refuses(
    tables: dict[str, Path],
    disk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    state: str,
    capsys: pytest.CaptureFixture[str],
    held: Callable[..., None],
) -> None:
    monkeypatch.setenv("BASEKAMP_HOME", str(disk))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    how = {"model": "linear", "checkpoint_seconds": 0.0, "tracking": "mlflow:sales/baseline"}
    train(tables["classification"], tmp_path / "whole", **how)
    (spool,) = spools()
    spool.remove()
    BROKEN[state][0](disk)
    train(tables["classification"], tmp_path / "model", **how)
    assert results(tmp_path / "model") == results(tmp_path / "whole")
    said = capsys.readouterr().out
    assert said.count("the training goes on, and a kill could lose it") == 1
    assert said.count("Trackers are told no more") == 1
    assert [line for spool in spools() for line in spool.lines()] == []
    held(f"disk that is {state} under checkpoints and spool", 2, "the training ended with the same bytes")


def test_a_record_is_whole_or_not_there_however_little_room_there_is(
    trained: Path, tables: dict[str, Path], disk: Path, held: Callable[..., None]
) -> None:
    refused = 0
    for left_kib in range(0, 512, 12):
        fill(disk, left_kib=left_kib)
        try:
            compare(trained, tables["classification"], disk / "store", disk.parent, run=left_kib)
            break
        except StoreError:
            refused += 1
        assert read_shelf(open_store(str(disk / "store")), "sales").every == ()
        shutil.rmtree(disk / "store")
        (disk / "filler").unlink()
    (row,) = read_shelf(open_store(str(disk / "store")), "sales").every
    assert refused > 3 and row.attempt == "baseline"
    held("disk that fills up somewhere within a record", refused, "no record, then a whole one")


@pytest.mark.parametrize("state", BROKEN)
@pytest.mark.parametrize("what", ["store", "work folder"])
def test_a_run_is_refused_before_anything_is_trained_on_a_disk_that_refuses(
    disk: Path, home: Path, monkeypatch: pytest.MonkeyPatch, what: str, state: str, held: Callable[..., None]
) -> None:
    (disk / "folder").mkdir()
    refuse, reason = BROKEN[state]
    refuse(disk)
    if what == "work folder":
        monkeypatch.setenv("BASEKAMP_HOME", str(disk / "folder"))
    store = disk / "folder" if what == "store" else home / "store"
    with pytest.raises(BasekampError, match=f"{what}.*{reason}"):
        run_experiment(EXPERIMENT, store=str(store), attempts=[], gpus="0", display=Display())
    assert not list(home.glob("*/*")) and not content(disk)
    held(f"{what} on a disk that is {state}, at the start of a run", 1, "refused before the first epoch")
