"""Every step of the pipelines run twice, and killed at every write and before it reports: the same, and only once."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from basekamp.errors import ResultsWaitError, StoreDownError
from basekamp.hyperparameters import Hyperparameters
from basekamp.records.compare import Folders, Question
from basekamp.records.rebase import rebase
from basekamp.records.record import Record
from basekamp.records.shelf import read_record, read_shelf
from basekamp.records.waiting import bring_up, compare_or_keep
from basekamp.storage import open_store
from basekamp.sweeps.settings import Sweep
from basekamp.sweeps.shelf import SweepShelf
from basekamp.work import WAITING_VARIABLE
from tests.steps import AT_END, Steps, start_steps

KILLS = {"measure_ladder": (), "evaluate_model": (5,), "train_trials": (2,)}
"""At which of many writes slow steps are killed; the others are at each."""
SETTINGS = {"model": "linear", "n_epochs": 3, "batch_size": 64, "lr": 0.01}
SWEEP = Sweep.model_validate({"over": {"lr": [0.01, 0.03, 0.1]}, "method": "grid", "trials": 3})


@pytest.fixture(scope="module")
def steps() -> Iterator[Steps]:
    with start_steps() as started:
        yield started


@dataclass
class Way:
    """One way through the pipelines with a store of its own; a step may be killed at each of its writes."""

    steps: Steps
    source: Path
    folder: Path
    is_killed: bool = False
    kills: Counter[str] = field(default_factory=Counter)

    def store(self) -> str:
        return str(self.folder / "store")

    def output(self, name: str) -> dict[str, str]:
        return {"path": str(self.folder / name)}

    def go(self, component: str, **arguments: Any) -> Any:
        """Run a step until it ends, killed at each of its writes where that is wanted; gives its answer."""
        if self.is_killed:
            for place in KILLS.get(component, count(1)):
                if not self.was_killed(component, place, **arguments):
                    break
            assert self.was_killed(component, AT_END, **arguments)
        assert self.steps.run(component, self.folder, **arguments) == 0, self.log(component)
        return json.loads((self.folder / f"{component}.answer").read_text())

    def was_killed(self, component: str, place: int, **arguments: Any) -> bool:
        """Run a step that is killed there; False where it wrote less and came to its end."""
        status = self.steps.run(component, self.folder, kill_at=place, **arguments)
        assert status in (0, -signal.SIGKILL), self.log(component)
        self.kills[component] += status < 0
        return status < 0

    def log(self, component: str) -> str:
        return (self.folder / f"{component}.log").read_text()

    def train_and_compare(self) -> None:
        data, at = {"dataset": self.output("dataset")}, {"metric": "accuracy"}
        model, checked = {"model_file": self.output("model_file")}, {"checked": self.output("checked")}
        self.go("prepare_data", source=str(self.source), target="kind", drop=["price"])
        self.go("check_data", **data, store=self.store(), experiment="sales", attempt="baseline")
        self.go("measure_ladder", **data, **at)
        self.go("train_model", **data, **at, seeds=2, **SETTINGS)
        self.go("evaluate_model", **data, **model, **at)
        folders = {"evaluation": self.output("evaluation"), "ladder": self.output("ladder"), **checked}
        self.go("compare_models", **data, **model, **folders, store=self.store(), experiment="sales", run_id="one")

    def sweep(self) -> None:
        data, at = {"dataset": self.output("dataset")}, {"experiment": "sales", "store": self.store()}
        settings = Hyperparameters.from_mapping(SETTINGS).model_dump_json()
        block = {"metric": "accuracy", "sweep": SWEEP.model_dump_json(), "settings": settings, "round_number": 0}
        done = self.go("plan_sweep", **data, **at, **block)
        for pack in done:
            self.go("train_trials", **data, **at, pack=pack)
        self.go("conclude_sweep", **at, done=done)

    def outputs(self) -> dict[str, bytes]:
        """What the steps wrote, but for what no two runs share."""
        names = (
            "dataset",
            "checked",
            "ladder/ladder.json",
            "model_file/model.pth",
            "evaluation",
            "scorecard",
            "classification",
        )
        paths = [path for name in names for path in (self.folder / name, *(self.folder / name).rglob("*"))]
        return {str(p.relative_to(self.folder)): p.read_bytes() for p in paths if p.is_file() and p.suffix != ".part"}

    def stored(self) -> dict[str, bytes]:
        store = open_store(self.store())
        return {key: store.get(key) for key in store.keys("")}


@pytest.fixture(scope="module")
def ways(steps: Steps, tables: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Way, Way]:
    """One way that nothing disturbed, and one in which each step was killed at every write."""
    folder, source = tmp_path_factory.mktemp("ways"), tables["classification"].parent / "sales.csv"
    whole, killed = Way(steps, source, folder / "whole"), Way(steps, source, folder / "killed", is_killed=True)
    for way in (whole, killed):
        way.train_and_compare()
        way.sweep()
    return whole, killed


def test_steps_killed_at_every_write_leave_what_undisturbed_ones_do(
    ways: tuple[Way, Way], held: Callable[..., None]
) -> None:
    whole, killed = ways
    assert killed.outputs() == whole.outputs()
    held("step killed by SIGKILL at a write, or before it reported", sum(killed.kills.values()), "same bytes")
    assert set(killed.kills) == {path.stem for path in killed.folder.glob("*.answer")}


def test_killed_steps_leave_each_record_and_trial_once(ways: tuple[Way, Way]) -> None:
    _, killed = ways
    shelf = read_shelf(open_store(killed.store()), "sales")
    assert [row.attempt for row in shelf.every] == ["baseline"] and not shelf.strangers
    baseline = [key for key in killed.stored() if key.startswith("sales/baseline/")]
    assert sorted(Path(key).suffix for key in baseline) == [".html", ".json", ".npz", ".pth"]
    assert len({Path(key).stem for key in baseline}) == 1
    trials = [key for key in killed.stored() if "/trials/" in key]
    (sweep_id,) = {key.split("/")[2] for key in trials}
    assert len(trials) == len(SweepShelf(open_store(killed.store()), "sales", sweep_id).told()) == 3


def test_steps_run_again_change_nothing(ways: tuple[Way, Way], held: Callable[..., None]) -> None:
    whole, _ = ways
    outputs, stored = whole.outputs(), whole.stored()
    whole.train_and_compare()
    whole.sweep()
    assert (whole.outputs(), whole.stored()) == (outputs, stored)
    held("step run a second time", 9, "same bytes, same keys")


@dataclass
class Undisturbed:
    """What an undisturbed way left, asked again under other circumstances."""

    folder: Path

    def compare(self, store: str, *, attempt: str = "baseline", run: str = "one", out: Path | None = None) -> Record:
        names = ("dataset", "model_file", "evaluation", "ladder", "checked")
        folders = Folders(*(self.folder / name for name in names))
        pages = {"html": (out or self.folder) / "page.html", "markdown": (out or self.folder) / "page.md"}
        question = Question("sales", attempt, "", 0.01, run)
        return compare_or_keep(folders, question, store=store, **pages)


@pytest.fixture
def undisturbed(ways: tuple[Way, Way]) -> Undisturbed:
    return Undisturbed(ways[0].folder)


@pytest.fixture
def waiting(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where results may wait, and an S3 service that is down."""
    monkeypatch.setenv(WAITING_VARIABLE, str(home / "waiting"))
    return home / "waiting"


@contextmanager
def s3_down() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BASEKAMP_S3_ENDPOINT", "http://127.0.0.1:9")
        yield


def kept_while_down(undisturbed: Undisturbed, store: str, **asked: str) -> None:
    with s3_down(), pytest.raises(ResultsWaitError, match="`basekamp sync` judges and records it once the store is up"):
        undisturbed.compare(store, **asked)


def test_results_wait_while_the_store_is_down_and_are_recorded_once(
    undisturbed: Undisturbed, s3_env: str, waiting: Path, held: Callable[..., None]
) -> None:
    for asked in ({}, {"attempt": "wider", "run": "two"}, {"attempt": "wider", "run": "two"}):
        kept_while_down(undisturbed, s3_env, **asked)
    with s3_down():
        assert [brought.left for brought in bring_up()] == [1, 1]
    told = bring_up()
    assert [(brought.attempt, brought.left) for brought in told] == [("baseline", 0), ("wider", 0)]
    store = open_store(s3_env)
    rows = read_shelf(store, "sales").rows
    assert [row.name for row in rows] == [brought.record for brought in told]
    assert read_record(store, rows[0]).contract is not None
    assert bring_up() == [] and list(waiting.glob("*/")) == []
    held("store down at the end of a training", 3, "results waited, recorded once")


def test_an_attempt_waits_behind_its_baseline_also_where_the_store_is_up_again(
    undisturbed: Undisturbed, s3_env: str, waiting: Path
) -> None:
    kept_while_down(undisturbed, s3_env)
    with pytest.raises(ResultsWaitError):
        undisturbed.compare(s3_env, attempt="wider", run="two")
    assert [brought.attempt for brought in bring_up()] == ["baseline", "wider"]


def test_a_baseline_that_waited_is_dropped_where_the_same_is_pinned(
    undisturbed: Undisturbed, s3_env: str, waiting: Path
) -> None:
    kept_while_down(undisturbed, s3_env, run="unseen")
    record = undisturbed.compare(s3_env)
    assert [(brought.record, brought.left) for brought in bring_up()] == [("", 0)]
    assert [row.id for row in read_shelf(open_store(s3_env), "sales").every] == [record.id]


def test_sync_killed_at_any_write_records_each_result_once(
    undisturbed: Undisturbed,
    s3_env: str,
    waiting: Path,
    home: Path,
    tmp_path: Path,
    steps: Steps,
    held: Callable[..., None],
) -> None:
    kept_while_down(undisturbed, s3_env)
    store, killed = tmp_path / "store", 0
    assert home == tmp_path / "home"  # where a step looks
    (told,) = waiting.glob("*/waiting.json")
    told.write_text(told.read_text().replace(s3_env, str(store)))  # of a folder every write can be watched
    for place in (1, 2, 3, 5, 8, 12):
        if steps.run("bring_up", tmp_path, kill_at=place) == -signal.SIGKILL:
            killed += 1
    assert killed > 3
    bring_up()
    assert not bring_up()
    shelf = read_shelf(open_store(str(store)), "sales")
    assert len(shelf.every) == 1 and len(open_store(str(store)).keys("sales/")) == 4
    held("sync killed by SIGKILL at one of its first writes", killed, "one record")


def test_without_a_place_to_wait_a_store_that_is_down_is_an_error(
    undisturbed: Undisturbed, s3_env: str, home: Path
) -> None:
    with s3_down(), pytest.raises(StoreDownError, match="start the service") as caught:
        undisturbed.compare(s3_env)
    assert not isinstance(caught.value, ResultsWaitError)


EXPERIMENT = """
experiment: sales
data: {{source: {source}, target: kind, drop: [price]}}
metric: {{name: accuracy}}
seeds: 2
baseline: {{model: linear, n_epochs: 2, batch_size: 64}}
attempts: {{slow: {{hypothesis: Slower is better., expect: 0.01, lr: 1e-4}}}}
"""


def test_a_run_without_its_store_exits_with_3_and_sync_records_all_of_it(
    tables: dict[str, Path], s3_env: str, tmp_path: Path
) -> None:
    (tmp_path / "sales.yaml").write_text(EXPERIMENT.format(source=tables["classification"].parent / "sales.csv"))
    with s3_down():
        done = basekamp("run", "sales.yaml", "--store", s3_env, cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr
        assert "wait on this machine: baseline, slow; `basekamp sync` judges and records them" in done.stderr
        assert basekamp("sync", cwd=tmp_path).returncode == 1
    synced = basekamp("sync", cwd=tmp_path)
    assert (synced.returncode, synced.stdout.count(f"{s3_env}, sales/")) == (0, 2), synced.stdout
    attempts = [row.attempt for row in read_shelf(open_store(s3_env), "sales").every]
    assert basekamp("sync", cwd=tmp_path).stdout == "No result waits, and trackers have all there is.\n"
    assert attempts == ["baseline", "slow"]


def basekamp(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("basekamp"), *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "BASEKAMP_HOME"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=200)


class _Clock(datetime):
    """A clock years off."""

    years = 0

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        real = datetime.now(tz)
        return real.replace(year=real.year + cls.years, day=min(real.day, 28))


@pytest.mark.parametrize("jumps", [(5, 0, -3), (-6, 3, -1)])
def test_ids_keep_the_order_of_what_was_done_by_a_clock_that_jumps(
    undisturbed: Undisturbed,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    jumps: tuple[int, ...],
    held: Callable[..., None],
) -> None:
    store, made = str(tmp_path / "store"), []
    monkeypatch.setattr("basekamp.records.shelf.datetime", _Clock)
    for number, years in enumerate(jumps):
        monkeypatch.setattr(_Clock, "years", years)
        attempt = f"attempt-{number}" if number else "baseline"
        made.append(undisturbed.compare(store, attempt=attempt, run=str(number), out=tmp_path).id)
        assert undisturbed.compare(store, attempt=attempt, run=str(number), out=tmp_path).id == made[-1]
    rebase(
        open_store(store), read_shelf(open_store(store), "sales"), undisturbed.compare(store, run="anew", out=tmp_path)
    )
    after = undisturbed.compare(store, attempt="after", run="after", out=tmp_path)
    shelf = read_shelf(open_store(store), "sales")
    assert [row.id for row in shelf.earlier] == made and [row.attempt for row in shelf.rows] == ["baseline", "after"]
    assert shelf.rows[-1].id == after.id
    held("clock that jumps by years between records", len(jumps), "order, lineage and baseline as made")
