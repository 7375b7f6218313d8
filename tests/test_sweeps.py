"""Sweeps: what is proposed, how rounds follow each other, what a kill leaves, and what the end says."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from basekamp.data.dataset import load_dataset
from basekamp.errors import InputError
from basekamp.evaluation.evaluate import evaluate_model
from basekamp.evaluation.ladder import measure_ladder
from basekamp.hyperparameters import Hyperparameters
from basekamp.records.compare import Folders, Question, compare_models
from basekamp.records.shelf import read_record, read_shelf
from basekamp.storage import open_store
from basekamp.sweeps.conclude import conclude_sweep
from basekamp.sweeps.outcome import Outcome, read_outcome
from basekamp.sweeps.rounds import MOST_PACKS, ROUNDS, SweepRun, plan_round, rungs_of
from basekamp.sweeps.settings import Sweep
from basekamp.sweeps.shelf import SweepShelf, Told, latest
from basekamp.sweeps.space import Result, importance, propose
from basekamp.sweeps.trials import train_trials
from basekamp.training.train import train_model
from tests.trainings import write_own_model

SETTINGS = Hyperparameters(model="mlp", n_layers=1, width=8, n_epochs=9, batch_size=32, lr=3e-3, patience=0)
OVER = {"lr": [1e-3, 1e-1, "log"], "width": [4, 8, 16]}

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture(scope="module")
def based(tmp_path_factory, tables):
    """A store with the baseline of the experiment `sales`."""
    folder, data = tmp_path_factory.mktemp("based"), tables["classification"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BASEKAMP_HOME", str(folder / "home"))
        settings = Hyperparameters(model="linear", n_epochs=6, batch_size=32, lr=1e-3)
        train_model(data, folder / "model", settings, metric="accuracy", seeds=2)
        evaluate_model(data, folder / "model" / "model.pth", folder / "told", metric="accuracy")
        measure_ladder(data, folder / "ladder", metric="accuracy")
        compare_models(
            Folders(data, folder / "model", folder / "told", folder / "ladder"),
            Question("sales", "baseline", "", 0.0, "run"),
            store=str(folder / "store"),
            html=folder / "report.html",
            markdown=folder / "report.md",
        )
    return folder / "store"


@dataclass
class Camp:
    """A store of a test's own, where sweeps of the table of sales are run."""

    data: Path
    url: str

    def run(self, method: str = "random", *, settings: Hyperparameters = SETTINGS, **block: object) -> SweepRun:
        sweep = Sweep.model_validate({"over": OVER, "trials": 8, "method": method, **block})
        return SweepRun("sales", "accuracy", self.url, sweep, settings)

    def shelf(self, run: SweepRun) -> SweepShelf:
        return SweepShelf(open_store(self.url), "sales", run.id(load_dataset(self.data).schema.dataset_fingerprint))

    def take(self, run: SweepRun, number: int, *, packs: int = 1) -> list[str]:
        """Plan one round and train it."""
        names = plan_round(self.data, run, number=number, packs=packs)
        for name in names:
            train_trials(self.data, name, experiment="sales", store=self.url)
        return names

    def sweep(self, run: SweepRun, *, packs: int = 1) -> Outcome:
        """All rounds."""
        for number in range(ROUNDS):
            self.take(run, number, packs=packs)
        return self.outcome(run)

    def outcome(self, run: SweepRun) -> Outcome:
        store, shelf = open_store(self.url), self.shelf(run)
        baseline = read_shelf(store, "sales").baseline
        assert baseline is not None
        return read_outcome(shelf, shelf.rounds(), read_record(store, baseline))


@pytest.fixture
def camp(tmp_path, tables, based):
    shutil.copytree(based, tmp_path / "store")
    return Camp(tables["classification"], str(tmp_path / "store"))


def timeless(told: list[Told]) -> list[Told]:
    return [replace(one, seconds=0.0) for one in told]


# -- what is proposed


def a_sweep(method: str, **block: object) -> Sweep:
    return Sweep.model_validate({"over": OVER, "trials": 100, "method": method, **block})


def test_grid_proposes_every_combination_once():
    sweep = a_sweep("grid", over={"lr": [0.1, 0.01], "width": [4, 8, 16]})
    first = propose(sweep, 4, results=[], seed=0)
    rest = propose(sweep, 9, results=[Result(choice, 0.5) for choice in first], seed=0)
    assert sorted((choice["lr"], choice["width"]) for choice in first + rest) == sorted(
        (lr, width) for lr in (0.1, 0.01) for width in (4, 8, 16)
    )


@pytest.mark.parametrize("method", ["random", "halving", "tpe"])
def test_proposals_are_new_in_range_and_the_same_again(method):
    sweep = a_sweep(method, over={"lr": [1e-3, 1e-1, "log"], "width": [2, 500, "linear"], "act": ["relu", "tanh"]})
    known = [Result({"lr": 0.01, "width": 8, "act": "relu"}, 0.5)]
    proposed = propose(sweep, 40, results=known, seed=5)
    assert proposed == propose(sweep, 40, results=known, seed=5) != propose(sweep, 40, results=known, seed=6)
    assert len({repr(choice) for choice in proposed}) == 40
    assert all(1e-3 <= choice["lr"] <= 1e-1 and float(f"{choice['lr']:.4g}") == choice["lr"] for choice in proposed)
    assert all(isinstance(choice["width"], int) and 2 <= choice["width"] <= 500 for choice in proposed)
    assert {choice["act"] for choice in proposed} == {"relu", "tanh"}


def test_random_stops_when_there_is_nothing_new():
    assert len(propose(a_sweep("random", over={"width": [4, 8, 16]}), 20, results=[], seed=1)) == 3


def test_log_ranges_are_drawn_evenly_in_their_logarithm():
    drawn = propose(a_sweep("random", over={"lr": [1e-4, 1.0, "log"]}), 400, results=[], seed=2)
    assert 170 < sum(choice["lr"] < 1e-2 for choice in drawn) < 230


def test_tpe_proposes_near_what_was_good_and_random_does_not():
    def near(method: str) -> int:
        sweep = a_sweep(method, over={"lr": [1e-4, 1.0, "log"]})
        choices = propose(a_sweep("random", over=sweep.over), 30, results=[], seed=3)
        results = [Result(choice, None if choice["lr"] > 0.3 else -abs(choice["lr"] - 0.01)) for choice in choices]
        return sum(0.002 < choice["lr"] < 0.05 for choice in propose(sweep, 30, results=results, seed=4))

    assert near("tpe") > 1.5 * near("random")


def test_importance_names_the_setting_that_matters():
    sweep = a_sweep("random", over={"lr": [0.001, 0.1, "log"], "width": [2, 99, "linear"], "act": ["relu", "tanh"]})
    choices = propose(sweep, 60, results=[], seed=7)
    told = importance(sweep, [Result(choice, choice["width"] + 0.01 * choice["lr"]) for choice in choices])
    assert told["width"] > 0.9 and sum(told.values()) == pytest.approx(1)
    assert importance(sweep, [Result(choice, 0.5) for choice in choices]) == {}


# -- rounds


def test_sweep_without_a_baseline_is_refused_with_the_command_that_makes_one(camp, tmp_path):
    run = replace(camp.run(), store=str(tmp_path / "empty"))
    with pytest.raises(InputError, match="sales has no baseline in .*: make it first with `basekamp run FILE"):
        plan_round(camp.data, run, number=0, packs=1)


@pytest.mark.parametrize("packs", [0, MOST_PACKS + 1])
def test_number_of_packs_is_checked(camp, packs):
    with pytest.raises(InputError, match=f"packs={packs} is not allowed: use 1 to 12"):
        plan_round(camp.data, camp.run(), number=0, packs=packs)


def test_round_is_planned_once_whatever_comes_after(camp):
    run = camp.run("tpe", trials=20)
    first = camp.take(run, 0, packs=2)
    again = plan_round(camp.data, run, number=0, packs=3)
    assert first == again and len(first) == 2
    assert len(camp.shelf(run).rounds()) == 1


def test_every_trial_is_told_by_its_name_alone(camp):
    run = camp.run("grid", over={"lr": [0.01, 0.1], "width": [4, 8]})
    outcome = camp.sweep(run)
    assert [(one.params["lr"], one.params["width"]) for one in outcome.told] == [
        (0.01, 4), (0.01, 8), (0.1, 4), (0.1, 8)
    ]  # fmt: skip
    for one in outcome.told:
        assert one.params["model"] == "mlp" and one.n_epochs == 9 and one.ended == "finished"
    best = max(outcome.told, key=lambda one: (one.value, -one.loss))
    assert outcome.winner == best


def test_trial_comes_to_what_a_training_of_its_own_does(camp, tmp_path):
    run = camp.run("grid", over={"lr": [0.01, 0.03], "width": [4, 8], "dropout": [0.0, 0.3]})
    for one in camp.sweep(run).told:
        settings = run.settings.model_copy(update={key: one.params[key] for key in run.sweep.over})
        alone = train_model(camp.data, tmp_path / "alone", settings, metric="accuracy", seeds=1)
        curves = alone.replicates[0].curves
        at = alone.replicates[0].best_epoch
        assert one.value == pytest.approx(curves.validation_metric[at], abs=1e-4)
        assert one.loss == pytest.approx(curves.validation_loss[at], rel=1e-3)


def test_packs_do_not_change_what_trials_come_to(camp, tmp_path, based):
    other = replace(camp, url=str(tmp_path / "other"))
    shutil.copytree(based, tmp_path / "other")
    alone, parted = camp.sweep(camp.run()), other.sweep(other.run(), packs=3)
    assert [one.number for one in alone.told] == list(range(8)) == [one.number for one in parted.told]
    for one, same in zip(alone.told, parted.told, strict=True):
        assert one.params == same.params
        assert one.loss == pytest.approx(same.loss, rel=1e-3)


def test_tpe_proposes_a_share_in_each_round(camp):
    run = camp.run("tpe", trials=10)
    camp.sweep(run)
    assert [len(one.choices) for one in camp.shelf(run).rounds()] == [2, 2, 2, 2, 2]
    assert sorted(latest(camp.shelf(run).told())) == list(range(10))


@pytest.mark.parametrize("packs", [1, 3])
def test_halving_lets_the_best_third_go_on(camp, packs):
    run = camp.run("halving", trials=18)
    assert rungs_of(run) == [1, 3, 9]
    outcome = camp.sweep(run, packs=packs)
    rounds = [[one for one in outcome.told if one.round == number] for number in range(ROUNDS)]
    assert [len(told) for told in rounds] == [18, 6, 2, 0, 0]
    for before, after in ((rounds[0], rounds[1]), (rounds[1], rounds[2])):
        best = sorted(before, key=lambda one: one.rank, reverse=True)[: len(after)]
        assert {one.number for one in after} == {one.number for one in best}
    assert [{one.n_epochs for one in told} for told in rounds[:3]] == [{1}, {3}, {9}]
    assert {one.ended for one in rounds[2]} == {"finished"}
    assert outcome.spent.trials == 18 * 1 + 6 * 2 + 2 * 6


def test_halving_goes_on_where_a_round_ended(camp, tmp_path, monkeypatch):
    """The rounds of one training, each in a process of its own, come to what one training does."""
    run = camp.run("halving", trials=9, over={"lr": [0.001, 0.1, "log"]})
    outcome = camp.sweep(run)
    assert outcome.winner.n_epochs == 9
    settings = run.settings.model_copy(update=outcome.choices[outcome.winner.number])
    alone = train_model(camp.data, tmp_path / "alone", settings, metric="accuracy", seeds=1).replicates[0]
    assert outcome.winner.loss == pytest.approx(alone.curves.validation_loss[alone.best_epoch], rel=1e-3)
    assert list((Path(os.environ["BASEKAMP_HOME"]) / "checkpoints").iterdir()) == []


def test_halving_goes_on_in_another_pod_from_the_store(tables, based, s3_env, tmp_path, monkeypatch, capsys):
    store = open_store(s3_env)
    for path in based.rglob("*.*"):
        if path.is_file() and not path.relative_to(based).parts[0].startswith("."):
            store.put(str(path.relative_to(based)), path)
    camp = Camp(tables["classification"], s3_env)
    run = camp.run("halving", trials=6)
    for number in range(3):
        monkeypatch.setenv("BASEKAMP_HOME", str(tmp_path / f"pod-{number}"))
        camp.take(run, number)
    assert capsys.readouterr().out.count("Resuming from a checkpoint: pack ") == 2
    assert camp.outcome(run).winner.n_epochs == 9
    assert list(store.entries(".checkpoints/")) == []


def test_lost_checkpoints_of_halving_cost_time_alone(camp, tmp_path, monkeypatch, based):
    other = replace(camp, url=str(tmp_path / "other"))
    shutil.copytree(based, tmp_path / "other")
    for number in range(3):
        camp.take(camp.run("halving"), number)
        monkeypatch.setenv("BASEKAMP_HOME", str(tmp_path / f"home-{number}"))
        other.take(other.run("halving"), number)
        monkeypatch.setenv("BASEKAMP_HOME", str(tmp_path / "home"))
    assert timeless(camp.outcome(camp.run("halving")).told) == timeless(other.outcome(other.run("halving")).told)


def test_epochs_of_a_budget_are_not_exceeded(camp):
    outcome = camp.sweep(camp.run(trials=50, budget={"epochs": 50}))
    assert len(outcome.choices) == 5 and outcome.spent.trials == 45


def test_epochs_of_a_halving_budget_are_not_exceeded(camp):
    outcome = camp.sweep(camp.run("halving", trials=50, budget={"epochs": 40}))
    assert len(outcome.choices) == 16
    assert outcome.spent.trials == 16 * 1 + 6 * 2 + 2 * 6


def test_budget_below_one_trial_is_refused(camp):
    with pytest.raises(InputError, match=r"budget\.epochs=5 is less than one trial's 9: use 9 or more"):
        plan_round(camp.data, camp.run(budget={"epochs": 5}), number=0, packs=1)


def test_minutes_of_a_budget_stop_the_trials(camp):
    settings = SETTINGS.model_copy(update={"n_epochs": 100_000})
    run = camp.run("tpe", trials=20, settings=settings, budget={"minutes": 0.02})
    outcome = camp.sweep(run)
    assert {one.ended for one in outcome.told} == {"stopped"}
    assert sum(one.seconds for one in outcome.told) < 3 * 0.02 * 60
    assert len(outcome.told) < 20, "what is planned after the budget is spent"


def test_what_diverged_never_wins(camp):
    outcome = camp.sweep(camp.run("grid", over={"lr": [1e-3, 1e30]}))
    assert [one.ended for one in outcome.told] == ["finished", "diverged"]
    assert outcome.winner.number == 0
    assert [one.number for one in outcome.trials] == [0, 1]


def test_sweep_in_which_all_diverged_says_so(camp):
    with pytest.raises(InputError, match="not one of the 2 trials of the sweep came to a finite result"):
        camp.sweep(camp.run("grid", over={"lr": [1e29, 1e30]}))


def test_models_of_several_kinds_are_searched_together(camp, monkeypatch, tmp_path, capsys):
    write_own_model(monkeypatch, tmp_path, "swept_models", "nn.Linear(input_shape[0], n_outputs)")
    over = {"model": ["linear", "mlp", "boosting", "tabular", "swept_models:build"], "lr": [0.01, 0.03]}
    outcome = camp.sweep(camp.run("grid", over=over, trials=10))
    assert [one.params["model"] for one in outcome.told[::2]] == over["model"]
    boosted = [one for one in outcome.told if one.params["model"] == "boosting"]
    assert all(one.value > 0.7 for one in outcome.told)
    assert "lr" not in boosted[0].params


def test_gpus_of_a_pack_are_none_or_one(camp):
    (name,) = plan_round(camp.data, camp.run(), number=0, packs=1)
    with pytest.raises(InputError, match='gpus="2" is not allowed: use "0" or "1"'):
        train_trials(camp.data, name, experiment="sales", store=camp.url, gpus="2")


# -- kills

SERVER = """
import os, sys
from pathlib import Path
import torch._dynamo
from basekamp.sweeps import trials
trials.CHECKPOINT_SECONDS = 0.0
for line in sys.stdin:
    data, name, store = line.split()
    pid = os.fork()
    if not pid:
        trials.train_trials(Path(data), name, experiment="sales", store=store)
        sys.exit()
    print(pid, flush=True)
    sys.stdin.readline()  # the child is there to be killed, dead or alive, until then
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@pytest.mark.parametrize("method", ["random", "halving"])
def test_sweep_killed_at_random_moments_comes_to_what_one_never_killed_does(camp, tmp_path, based, method):
    settings = SETTINGS.model_copy(update={"n_epochs": 81, "dropout": 0.2})
    run = camp.run(method, trials=12, settings=settings)
    whole = timeless(camp.sweep(run).told)
    shutil.copytree(based, tmp_path / "killed")
    killed = replace(camp, url=str(tmp_path / "killed"))
    run, chance, kills = replace(run, store=killed.url), random.Random(4), 0
    environment = {**os.environ, "BASEKAMP_HOME": str(tmp_path / "killed-home")}
    command = [sys.executable, "-c", SERVER]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        ) as server,
    ):
        for number in range(ROUNDS):
            for name in plan_round(killed.data, run, number=number, packs=2):
                while True:
                    server.stdin.write(f"{killed.data} {name} {killed.url}\n")
                    server.stdin.flush()
                    pid = int(next(line for line in server.stdout if line.strip().isdecimal()))
                    time.sleep(chance.uniform(0.1, 0.8))
                    if kills < 12:
                        os.kill(pid, signal.SIGKILL)
                    server.stdin.write("\n")
                    server.stdin.flush()
                    status = int(next(line for line in server.stdout if line.strip().lstrip("-").isdecimal()))
                    if status == 0:
                        break
                    assert status == -signal.SIGKILL, (tmp_path / "log").read_text()
                    kills += 1
        server.stdin.close()
    assert kills >= 5
    told = timeless(killed.shelf(run).told())
    assert [(one.number, one.round, one.n_epochs, one.ended) for one in told] == [
        (one.number, one.round, one.n_epochs, one.ended) for one in whole
    ]
    assert [one.value for one in told] == [one.value for one in whole]
    assert [one.loss for one in told] == pytest.approx([one.loss for one in whole], rel=1e-3)


def test_finished_round_is_not_trained_again(camp):
    run = camp.run()
    camp.take(run, 0)
    before = [entry.key for entry in open_store(camp.url).entries("sales/sweeps/")]
    camp.take(run, 0)
    assert [entry.key for entry in open_store(camp.url).entries("sales/sweeps/")] == before


# -- the end


def test_end_gives_every_setting_of_the_winner_and_a_report(camp, tmp_path):
    run = camp.run(trials=12, hypothesis="Wider <script>alert(1)</script> is better.")
    names = [camp.take(run, number) for number in range(ROUNDS)][-1]
    told = conclude_sweep(names, experiment="sales", store=camp.url, html=tmp_path / "report.html")
    outcome = camp.outcome(run)
    expected = run.settings.model_copy(update=outcome.choices[outcome.winner.number])
    assert Hyperparameters.from_mapping(json.loads(told)) == expected
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page and "Wider &lt;script&gt;" in page
    assert page.count("<polyline") == 12 + 1
    assert "at equal budget" in page.lower() and f"given {outcome.spent.trials} epochs" in page
    assert (
        len([entry for entry in open_store(camp.url).entries("sales/sweeps/") if entry.key.endswith("report.html")])
        == 1
    )
    conclude_sweep(names, experiment="sales", store=camp.url, html=tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == page


def test_equal_budget_counts_the_epochs_of_the_baseline(camp):
    outcome = camp.sweep(camp.run("grid", over={"lr": [1e-5, 1e-1]}, trials=2))
    spent = outcome.spent
    assert (spent.baseline, spent.trials, spent.ratio) == (12, 18, 1.5)
    assert spent.at_equal is not None and spent.at_equal.number == 0
    assert outcome.winner.number == 1


def test_trials_are_no_strangers_to_the_leaderboard(camp):
    camp.take(camp.run(), 0)
    shelf = read_shelf(open_store(camp.url), "sales")
    assert shelf.strangers == () and len(shelf.rows) == 1
