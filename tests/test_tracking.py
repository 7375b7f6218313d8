"""Trackers: what a training spools, that none can stop it, and that everything arrives once, whoever is killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from basekamp.cluster.plan import pipeline_values, sweep_values
from basekamp.errors import InputError
from basekamp.experiment import load_experiment
from basekamp.storage import open_store
from basekamp.tracking import sender as sending
from basekamp.tracking.sender import Sender
from basekamp.tracking.settings import Tracking, check_usable, chosen_trackers, read_tracking
from basekamp.tracking.spool import Sent, Spool, spool_of, spools
from basekamp.tracking.stored import put_spools
from basekamp.tracking.sync import sync
from basekamp.tracking.training import TrainingTracker, begin_event, tracked_training
from tests.mlflow_server import MlflowServer, can_serve
from tests.trainings import results, train

TRACKING = Tracking(("mlflow",), "digits", "wider")
PATIENCE_SECONDS = 120
needs_wandb = pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is not installed")


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that says nothing about trackers."""
    for name in list(os.environ):
        if name.startswith(("MLFLOW_TRACKING", "WANDB_")) or name == "BASEKAMP_TRACKING":
            monkeypatch.delenv(name)


@contextmanager
def silence() -> Iterator[str]:
    """The address of a server that accepts and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def wait_for(condition) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def events(spool: Spool) -> list[dict]:
    return [line.event for line in spool.lines()]


# -- settings


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", Tracking()),
        ("mlflow", Tracking(("mlflow",))),
        ("mlflow,wandb:digits/wider", Tracking(("mlflow", "wandb"), "digits", "wider")),
        ("wandb, mlflow,wandb:a/b", Tracking(("wandb", "mlflow"), "a", "b")),
    ],
)
def test_tracking_is_read_from_its_text(text, told):
    assert read_tracking(text) == told == read_tracking(told.text() or "")


@pytest.mark.parametrize("text", ["mlfow", "mlflow:digits", "mlflow:Digits/wider", "mlflow:a/b/c"])
def test_tracking_that_is_none_is_refused_in_one_sentence(text):
    with pytest.raises(InputError, match=r"^tracking='[^\n]+ is not allowed: [^\n]+\.$"):
        read_tracking(text)


def test_environment_comes_before_the_experiment_file(monkeypatch):
    assert chosen_trackers(("wandb",)) == ("wandb",)
    monkeypatch.setenv("BASEKAMP_TRACKING", "mlflow")
    assert chosen_trackers(("wandb",)) == ("mlflow",)
    monkeypatch.setenv("BASEKAMP_TRACKING", "none")
    assert chosen_trackers(("wandb",)) == ()


def test_experiment_file_names_trackers_and_the_pipeline_is_told(tmp_path):
    text = Path("examples/digits.yaml").read_text()
    (tmp_path / "one.yaml").write_text(f"tracking: mlflow\n{text}")
    (tmp_path / "two.yaml").write_text(f"tracking: [mlflow, wandb]\n{text}")
    (tmp_path / "bad.yaml").write_text(f"tracking: mlfow\n{text}")
    one, two = (load_experiment(tmp_path / f"{name}.yaml") for name in ("one", "two"))
    place = {"store": "s3://bucket", "data_fingerprint": ""}
    assert pipeline_values(one, "baseline", **place)["tracking"] == "mlflow:digits/baseline"
    assert pipeline_values(two, "convolution", **place)["tracking"] == "mlflow,wandb:digits/convolution"
    assert sweep_values(two, **place)["tracking"] == "mlflow,wandb:digits/sweep"
    assert pipeline_values(load_experiment("examples/digits.yaml"), "baseline", **place)["tracking"] == ""
    with pytest.raises(InputError, match=r"line 1: tracking.*use mlflow, wandb, or a list of both"):
        load_experiment(tmp_path / "bad.yaml")


def test_missing_package_or_address_is_told_before_anything_runs(monkeypatch):
    monkeypatch.setattr("basekamp.tracking.settings.importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"^tracking: wandb needs .*: pip install 'basekamp\[wandb\]'\.$"):
        check_usable(("wandb",))
    monkeypatch.setattr("basekamp.tracking.settings.importlib.util.find_spec", lambda name: name)
    check_usable(("wandb",))
    with pytest.raises(InputError, match="set MLFLOW_TRACKING_URI"):
        check_usable(("mlflow",))


# -- the spool


def test_torn_line_is_removed_before_the_next_one_is_written(tmp_path):
    spool = spool_of("run", "train", tmp_path)
    spool.append({"kind": "begin"}, {"kind": "points"})
    whole = spool.path.read_bytes()
    spool.path.write_bytes(whole + b'{"kind": "po')
    assert [event["kind"] for event in events(spool)] == ["begin", "points"]
    spool.mend()
    assert spool.path.read_bytes() == whole
    spool.append({"kind": "end"})
    assert [event["kind"] for event in events(spool)] == ["begin", "points", "end"]


def curves(n: int, offset: float = 0.0) -> dict[str, list[float]]:
    return {
        "train_loss": [offset + k for k in range(1, n + 1)],
        "validation_loss": [offset + k for k in range(n + 1)],
        "validation_metric": [offset + k for k in range(n + 1)],
        "lr": [0.1] * n,
    }


def test_points_are_the_same_however_often_the_training_was_killed(tmp_path):
    told = []
    for kills in ([], [(2, 0)], [(0, 0), (3, 0), (3, 1), (3, 2)]):
        spool = spool_of(f"run{len(kills)}", "train", tmp_path)
        for first, second in [*kills, (3, 2)]:
            tracker = TrainingTracker(spool, "accuracy")
            tracker.begin(begin_event(TRACKING, spool.run, {}, {}))
            groups = [[(0, curves(first)), (1, curves(first, 0.5))], [(2, curves(second))]]
            tracker.write(groups[: 2 if second else 1])
        told.append([{**event, "time": 0, "run": ""} for event in events(spool)])
    assert told[0] == told[1] == told[2]
    points = [event for event in told[0] if event["kind"] == "points"]
    assert [(event["index"], event["epoch"]) for event in points] == [*enumerate([0, 1, 2, 3, 0, 1, 2], 1)]
    assert points[1]["values"] == {
        "train_loss/seed-0": 1,
        "validation_loss/seed-0": 1,
        "validation_accuracy/seed-0": 1,
        "lr/seed-0": 0.1,
        "train_loss/seed-1": 1.5,
        "validation_loss/seed-1": 1.5,
        "validation_accuracy/seed-1": 1.5,
        "lr/seed-1": 0.1,
    }
    assert set(points[0]["values"]) == {
        f"validation_{name}/seed-{seed}" for name in ("loss", "accuracy") for seed in (0, 1)
    }


def test_spool_that_cannot_be_written_is_told_and_stops_nothing(tmp_path, capsys):
    (tmp_path / "file").touch()
    tracker = TrainingTracker(spool_of("run", "train", tmp_path / "file"), "accuracy")
    tracker.begin(begin_event(TRACKING, "run", {}, {}))
    tracker.write([[(0, curves(2))]])
    tracker.end("FINISHED")
    assert capsys.readouterr().out.count("Trackers are told no more") == 1


def test_what_was_sent_of_an_earlier_spool_counts_for_nothing(tmp_path):
    spool = spool_of("run", "train", tmp_path)
    spool.append(begin_event(TRACKING, "run", {}, {}) | {"time": 1})
    assert Sender(lambda: Fake([]), "mlflow", "run", tmp_path).try_once(closing=True) and not spool.left("mlflow")
    spool.path.unlink()
    spool.append(begin_event(TRACKING, "run", {}, {}) | {"time": 2})
    assert spool.left("mlflow") == 1


# -- sending


class Fake:
    """A tracker in memory; fails when told so."""

    def __init__(self, told: list, *, confirms: bool = True, fails: bool = False) -> None:
        self.told, self.confirms, self.fails = told, confirms, fails

    def open(self, begin):
        if self.fails:
            raise ConnectionError("nobody\nis there")

    def send(self, sent):
        self.told += sent

    def close(self):
        self.told.append("closed")


def test_sender_tells_training_before_judgement_and_each_line_once(tmp_path):
    begin = begin_event(TRACKING, "run", {}, {})
    judged, trained = (spool_of("run", part, tmp_path) for part in ("judge-r1", "train"))
    judged.append(begin, {"kind": "result"}, {"kind": "end"})
    trained.append(begin, {"kind": "points"}, {"kind": "end"})
    told: list = []
    for _ in range(2):
        assert Sender(lambda: Fake(told), "mlflow", "run", tmp_path).try_once(closing=True)
    kinds = [event if event == "closed" else event["kind"] for event in told]
    assert kinds == ["begin", "points", "end", "begin", "result", "end", "closed"]
    assert trained.is_settled and judged.sent("mlflow") == Sent(judged.path.stat().st_size, 3, of=begin["time"])


def test_tracker_that_confirms_at_its_end_has_nothing_before(tmp_path):
    spool = spool_of("run", "train", tmp_path)
    spool.append(begin_event(TRACKING, "run", {}, {}), {"kind": "points"})
    one = Sender(lambda: Fake([], confirms=False), "mlflow", "run", tmp_path)
    assert one.try_once(closing=False) and spool.left("mlflow") == 2
    assert one.try_once(closing=True) and spool.left("mlflow") == 0


def test_failed_try_is_written_down_and_the_next_one_begins_anew(tmp_path):
    spool = spool_of("run", "train", tmp_path)
    spool.append(begin_event(TRACKING, "run", {}, {}), {"kind": "end"})
    assert not Sender(lambda: Fake([], fails=True), "mlflow", "run", tmp_path).try_once(closing=True)
    assert (spool.sent("mlflow").bytes, spool.sent("mlflow").error) == (0, "ConnectionError: nobody is there")
    assert Sender(lambda: Fake([]), "mlflow", "run", tmp_path).try_once(closing=True)
    assert spool.sent("mlflow").error == "" and spool.is_settled


def test_follower_ends_when_the_training_has_ended_or_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(sending, "SECONDS_BETWEEN_LOOKS", 0.01)
    spool = spool_of("run", "train", tmp_path)
    spool.append(begin_event(TRACKING, "run", {}, {}))
    told: list = []
    one = Sender(lambda: Fake(told), "mlflow", "run", tmp_path)
    assert sending.follow(one, os.getppid() + 1) == 0 and told[-1] == "closed"
    later = threading.Timer(0.1, lambda: spool.append({"kind": "points"}, {"kind": "end"}))
    later.start()
    assert sending.follow(one, os.getppid()) == 0
    later.join()
    assert [event["kind"] for event in told if event != "closed"] == ["begin", "points", "end"]


def test_two_senders_of_one_run_do_not_meet(tmp_path, home, monkeypatch):
    monkeypatch.setattr(sending, "LOCK_SECONDS", 0.0)
    spool_of("run", "train").append(begin_event(TRACKING, "run", {}, {}))
    with sending._alone(home / "tracking", "run", "mlflow", seconds=0) as is_alone:
        assert is_alone and sending.main(["run", "mlflow"]) == sending.BUSY


# -- trainings


@pytest.fixture
def sending_at_once(monkeypatch):
    monkeypatch.setattr("basekamp.tracking.training.SECONDS_BEFORE_SENDING", 0.0)


def test_training_starts_a_sender_only_after_a_while_or_when_it_fails(tmp_path, home, monkeypatch):
    started = []
    monkeypatch.setattr("basekamp.tracking.training._spawn", lambda command, _: started.append(command[3:5]))
    for seconds, number in ((60.0, 0), (0.0, 1)):
        monkeypatch.setattr("basekamp.tracking.training.SECONDS_BEFORE_SENDING", seconds)
        with tracked_training(TRACKING, tmp_path, f"key-{seconds}", metric="accuracy", params={}, tags={}) as tracker:
            tracker.note(list)
            tracker.note(list)
        assert len(started) == number
    monkeypatch.setattr("basekamp.tracking.training.SECONDS_BEFORE_SENDING", 60.0)
    with (
        pytest.raises(InputError),
        tracked_training(TRACKING, tmp_path, "fails", metric="accuracy", params={}, tags={}),
    ):
        raise InputError("no")
    assert len(started) == 2 and started[1][1] == "mlflow"


def test_training_without_tracking_leaves_no_trace(tables, tmp_path, home):
    train(tables["classification"], tmp_path / "model")
    assert not (home / "tracking").exists() and not (tmp_path / "model" / "tracking.json").exists()


def test_training_refuses_an_unknown_tracker_before_it_begins(tables, tmp_path, home):
    with pytest.raises(InputError, match="did you mean mlflow"):
        train(tables["classification"], tmp_path / "model", tracking="mlfow")


@pytest.mark.parametrize("model", ["mlp", "boosting", "majority"])
def test_training_with_a_tracker_that_is_down_ends_the_same_and_spools_every_epoch(
    tables, tmp_path, home, monkeypatch, model, sending_at_once
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    settings = {"model": model, "seeds": 2, "width": 8, "n_trees": 5} | {"n_epochs": 4}
    train(tables["classification"], tmp_path / "plain", **settings)
    training = train(tables["classification"], tmp_path / "told", tracking=TRACKING.text(), **settings)
    assert results(tmp_path / "plain") == results(tmp_path / "told")
    run = json.loads((tmp_path / "told" / "tracking.json").read_bytes())["run"]
    told = events(spool_of(run, "train"))
    assert (told[0]["experiment"], told[0]["attempt"], told[0]["params"]["model"]) == ("digits", "wider", model)
    assert told[-1]["status"] == "FINISHED"
    for replicate in training.replicates:
        for name, values in replicate.curves.model_dump().items():
            key = f"{name.replace('metric', 'accuracy')}/seed-{replicate.seed}"
            assert [event["values"][key] for event in told[1:-1] if key in event["values"]] == values


def test_training_with_a_tracker_that_never_answers_ends(tables, tmp_path, home, monkeypatch, sending_at_once):
    with silence() as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        train(tables["classification"], tmp_path / "model", tracking=TRACKING.text(), n_epochs=30)
    (spool,) = spools()
    assert spool.has_ended and spool.left("mlflow") == len(events(spool))


def test_training_that_fails_is_told_as_failed_and_one_that_is_stopped_is_not(tables, tmp_path, home, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    place = "basekamp.training.train._performance"
    for error, last in ((RuntimeError("lost"), "end"), (SystemExit(143), "points")):
        monkeypatch.setattr(place, lambda *_, error=error: (_ for _ in ()).throw(error))
        with pytest.raises(type(error)):
            train(tables["classification"], tmp_path / last, tracking=f"mlflow:digits/{last}")
        (spool,) = [spool for spool in spools() if spool.begin()["attempt"] == last]
        assert events(spool)[-1]["kind"] == last
        assert events(spool)[-1].get("status") in ("FAILED", None)


# -- a real MLflow server


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory) -> Iterator[MlflowServer]:
    if find_spec("mlflow") is None or not can_serve():
        pytest.skip("no MLflow server: pip install mlflow, or let MLFLOW_PYTHON name an interpreter that has it")
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    try:
        yield server.start()
    finally:
        server.kill()


@pytest.fixture
def mlflow(mlflow_server, monkeypatch):
    """The server, up, as the environment names it, and a client."""
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.url)
    if mlflow_server.process is None:
        mlflow_server.start()
    return MlflowClient(mlflow_server.url)


def the_run(client, experiment: str):
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id]) if found else []
    assert len(runs) <= 1
    return runs[0] if runs else None


def history(client, run, key: str) -> list[tuple[int, float]]:
    points = client.get_metric_history(run.info.run_id, key)
    return sorted((point.step, point.value) for point in points)


def assert_has_all(client, experiment: str, training) -> None:
    """Each point of each curve exactly once."""
    run = the_run(client, experiment)
    assert run.info.status == "FINISHED"
    for replicate in training.replicates:
        for name, first in (("validation_metric", 0), ("validation_loss", 0), ("train_loss", 1), ("lr", 1)):
            key = f"{name.replace('metric', 'accuracy')}/seed-{replicate.seed}"
            values = getattr(replicate.curves, name)
            told = history(client, run, key)
            assert [step for step, _ in told] == [*range(first, first + len(values))]
            assert [value for _, value in told] == pytest.approx(values)


LONG = {"n_epochs": 600, "patience": 0, "seeds": 2, "batch_size": 32}


@pytest.mark.slow
def test_server_killed_in_mid_training_gets_every_point_by_sync(
    digits, tmp_path, home, mlflow, mlflow_server, sending_at_once
):
    killed = threading.Event()

    def kill_when_it_has_points() -> None:
        wait_for(lambda: (run := the_run(mlflow, "killed")) and run.data.metrics)
        mlflow_server.kill()
        killed.set()

    threading.Thread(target=kill_when_it_has_points, daemon=True).start()
    training = train(digits, tmp_path / "model", tracking="mlflow:killed/wider", **LONG)
    assert killed.wait(PATIENCE_SECONDS) and training.replicates[0].ended == "finished"
    (down,) = sync()
    assert down.left > 0 and down.sent == 0 and down.error
    mlflow_server.start()
    (up,) = sync()
    assert (up.sent, up.left) == (down.left, 0)
    assert_has_all(mlflow, "killed", training)
    assert sync() == [] and spools() == []


@pytest.mark.slow
def test_sender_killed_again_and_again_sends_each_point_once(digits, tmp_path, home, mlflow, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    training = train(digits, tmp_path / "model", tracking="mlflow:stubborn/wider", n_epochs=400, patience=0, seeds=2)
    (spool,) = spools()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.tracking_uri)
    for seconds in (1.0, 1.5, 2.0, 2.2, 2.4, 2.6, 2.8, 3.0):
        process = subprocess.Popen([sys.executable, "-m", "basekamp.tracking.sender", spool.run, "mlflow"])
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
    spool._sent_path("mlflow").unlink(missing_ok=True)  # what was confirmed is forgotten too
    assert [delivery.left for delivery in sync()] == [0]
    assert_has_all(mlflow, "stubborn", training)


@pytest.mark.slow
def test_run_tells_params_epochs_verdict_and_artifacts(tmp_path, mlflow, mlflow_server):
    from tests.test_cli import EXPERIMENT, basekamp

    (tmp_path / "small.yaml").write_text(
        "tracking: mlflow\n" + EXPERIMENT.replace("experiment: small", "experiment: told")
    )
    done = basekamp("run", "small.yaml", "--attempt", "faster", cwd=tmp_path, MLFLOW_TRACKING_URI=mlflow_server.url)
    assert done.returncode == 0, done.stdout + done.stderr
    experiment = mlflow.get_experiment_by_name("told")
    runs = {run.info.run_name: run for run in mlflow.search_runs([experiment.experiment_id])}
    assert set(runs) == {"baseline", "faster"}
    faster, record = runs["faster"], json.loads(basekamp("runs", "small.yaml", "--json", cwd=tmp_path).stdout)[1]
    assert faster.data.tags["verdict"] == record["verdict"] and runs["baseline"].data.tags["verdict"] == "baseline"
    assert faster.data.params["lr"] == "0.01" and faster.data.params["seeds"] == "3"
    assert faster.data.metrics["accuracy"] == pytest.approx(record["metrics"]["accuracy"], rel=1e-4)
    assert len(history(mlflow, faster, "validation_accuracy/seed-2")) == 5
    assert sorted(entry.path for entry in mlflow.list_artifacts(faster.info.run_id)) == ["model.pth", "report.html"]
    assert "Ten times the learning rate" in faster.data.tags["mlflow.note.content"]
    synced = basekamp("sync", cwd=tmp_path, MLFLOW_TRACKING_URI=mlflow_server.url)
    assert (synced.returncode, synced.stdout) == (0, "No result waits, and trackers have all there is.\n")


@pytest.mark.slow
def test_spool_of_a_lost_pod_is_sent_from_the_store(digits, tmp_path, home, mlflow, monkeypatch, s3_env):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    training = train(digits, tmp_path / "model", tracking="mlflow:pod/wider", store=s3_env)
    store = open_store(s3_env)
    (entry,) = store.entries(".tracking/")
    monkeypatch.setenv("BASEKAMP_HOME", str(tmp_path / "elsewhere"))
    assert sync(store)[0].error and [each.key for each in store.entries(".tracking/")] == [entry.key]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.tracking_uri)
    assert [delivery.left for delivery in sync(store)] == [0]
    assert_has_all(mlflow, "pod", training)
    assert list(store.entries(".tracking/")) == [] and spools() == []


def test_spool_is_put_into_a_bucket_once_and_never_into_a_folder(tmp_path, home, s3_env):
    spool = spool_of("run", "train")
    spool.append(begin_event(TRACKING, "run", {}, {}), {"kind": "end"})
    for _ in range(2):
        put_spools([spool], s3_env)
        put_spools([spool], str(tmp_path / "store"))
    assert len(list(open_store(s3_env).entries(".tracking/run/train-"))) == 1
    assert not (tmp_path / "store").exists()


# -- Weights & Biases, offline


@needs_wandb
@pytest.mark.slow
def test_wandb_offline_has_params_epochs_and_verdict_in_one_run(tmp_path):
    from basekamp.imports.sources import read_wandb
    from tests.test_cli import EXPERIMENT, basekamp

    (tmp_path / "small.yaml").write_text(f"tracking: wandb\n{EXPERIMENT}")
    done = basekamp("run", "small.yaml", "--attempt", "faster", cwd=tmp_path, WANDB_MODE="offline", WANDB_SILENT="true")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {one.attempt: one for one in read_wandb(tmp_path / ".basekamp")}
    record = json.loads(basekamp("runs", "small.yaml", "--json", cwd=tmp_path).stdout)[1]
    assert set(found) == {"baseline", "faster"}
    values = {**found["faster"].values, **found["faster"].results}
    assert (values["lr"], values["seeds"], values["verdict"]) == (0.01, 3, record["verdict"])
    assert values["accuracy"] == pytest.approx(record["metrics"]["accuracy"], rel=1e-4)
    assert values["epoch"] == 4 and "validation_accuracy/seed-2" in values
    synced = basekamp("sync", cwd=tmp_path, WANDB_MODE="offline")
    assert synced.stdout == "No result waits, and trackers have all there is.\n"
