"""Training on several processes: the weights of one, and what happens when one of them is lost."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from basekamp.data.dataset import load_dataset
from basekamp.data.prepare import prepare_data
from basekamp.errors import BasekampError, DeviceError, InputError
from basekamp.experiment import DataSettings
from basekamp.hyperparameters import Hyperparameters
from basekamp.training import launch
from basekamp.training.checkpoint import Checkpoints
from basekamp.training.device import choose_device, count_processes, describe_device
from basekamp.training.distributed import SharedSaver
from basekamp.training.results import Training
from basekamp.training.train import train_model
from tests.trainings import results

ENDLESS = {"model": "mlp", "n_epochs": 100_000, "patience": 0, "dropout": 0.2}
PATIENCE_SECONDS = 90


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "digits"
    prepare_data(DataSettings(source="sklearn:digits", target="digit"), folder)
    return folder


@pytest.fixture(scope="module")
def prices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 rows of two numbers and a colour, with a price that depends on them."""
    folder, rng = tmp_path_factory.mktemp("prices"), np.random.default_rng(5)
    a, b, color = rng.normal(size=200), rng.normal(size=200), rng.integers(3, size=200)
    price = 900 + 30 * a - 12 * b + 20 * color + rng.normal(size=200)
    lines = [f"{a[i]},{b[i]},{'rgb'[color[i]]},{price[i]}" for i in range(200)]
    (folder / "prices.csv").write_text("\n".join(["a,b,color,price", *lines]))
    prepare_data(DataSettings(source=str(folder / "prices.csv"), target="price"), folder / "prepared")
    return folder / "prepared"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BASEKAMP_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BASEKAMP_PROGRESS", raising=False)
    return tmp_path / "home"


def train(dataset: Path, directory: Path, *, metric: str = "accuracy", seeds: int = 1, **settings: object) -> Training:
    more = {key: settings.pop(key) for key in ("processes", "checkpoint_seconds") if key in settings}
    hyperparameters = Hyperparameters.from_mapping(settings)
    return train_model(dataset, directory, hyperparameters, metric=metric, seeds=seeds, **more)


def weights(directory: Path) -> dict[str, torch.Tensor]:
    saved = torch.load(directory / "model.pth", weights_only=True)["state_dicts"]
    return {f"{seed}.{name}": tensor for seed, state in enumerate(saved) for name, tensor in state.items()}


def assert_same_training(dataset: Path, folder: Path, *, processes: int, **settings: object) -> None:
    one = train(dataset, folder / "one", **settings)
    shared = train(dataset, folder / "shared", processes=processes, **settings)
    assert shared.device == f"{processes} x {one.device}"
    assert_measured_alike(shared, one, processes=processes)
    ours, theirs = weights(folder / "shared"), weights(folder / "one")
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        np.testing.assert_allclose(ours[name], tensor, rtol=0, atol=1e-5, err_msg=name)
    for mine, alone in zip(shared.replicates, one.replicates, strict=True):
        assert (mine.n_epochs, mine.best_epoch, mine.ended) == (alone.n_epochs, alone.best_epoch, alone.ended)
        for curve, values in alone.curves:
            assert getattr(mine.curves, curve) == pytest.approx(values, abs=1e-4, rel=1e-4)


def assert_measured_alike(shared: Training, one: Training, *, processes: int) -> None:
    """The rows of all processes together are those of one."""
    told, alone = shared.performance, one.performance
    assert (told.processes, alone.processes) == (processes, 1)
    if alone.samples_per_second is None:
        assert told.samples_per_second is None
        return
    rows = [each.samples_per_second * each.seconds.compute for each in (told, alone)]
    assert rows[0] == pytest.approx(rows[1], rel=0.02)
    assert told.flops_per_second * told.seconds.compute == pytest.approx(
        alone.flops_per_second * alone.seconds.compute, rel=0.02
    )


def test_two_processes_give_the_weights_of_one(digits, tmp_path, capfd):
    settings = {"model": "mlp", "n_layers": 2, "width": 32, "n_epochs": 3, "batch_size": 100, "seeds": 2}
    assert_same_training(digits, tmp_path, processes=2, **settings)
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("6/6 epochs, seeds 0 to 1, accuracy 0.")
    assert lines[1].startswith("6/6 epochs, seed 1, accuracy 0.")


def test_last_batch_with_fewer_rows_than_processes_and_early_stop_are_those_of_one(prices, tmp_path):
    rows = load_dataset(prices).schema.rows["train"]
    batch_size = next(size for size in range(8, 32) if rows % size == 2)
    settings = {"model": "linear", "lr": 0.3, "schedule": "constant", "patience": 2, "n_epochs": 60, "metric": "rmse"}
    assert_same_training(prices, tmp_path, processes=3, batch_size=batch_size, **settings)
    assert Training.read(tmp_path / "shared").replicates[0].ended == "early"


def test_model_without_parameters_needs_no_gradients(prices, tmp_path):
    assert_same_training(prices, tmp_path, processes=2, model="mean", metric="rmse")


def descendants(pid: int) -> dict[int, str]:
    """Every process of a training below `pid`, with its environment and command line."""
    parents, told = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            told[int(entry.name)] = (entry / "environ").read_text() + (entry / "cmdline").read_text()
        except OSError:
            continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {child: told[child] for child in found - {pid} if "basekamp.training" in told.get(child, "")}


def pid_of_rank(rank: int, launcher: int) -> int:
    return next(pid for pid, text in descendants(launcher).items() if re.search(rf"(^|\0)RANK={rank}\0", text))


def wait_until(true: Callable[[], object]) -> None:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < give_up, "it never came"
        time.sleep(0.01)


def after_checkpoint(home: Path, act: Callable[[], object]) -> threading.Thread:
    """Do something to a training once it has written a checkpoint."""

    def watch() -> None:
        wait_until(lambda: list(home.glob("checkpoints/*/*.pt")))
        act()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


@pytest.mark.slow
def test_killed_rank_ends_the_training_in_one_sentence_and_the_next_goes_on(digits, tmp_path, home, capfd):
    settings = {**ENDLESS, "n_epochs": 10, "batch_size": 64, "processes": 2}
    killer = after_checkpoint(home, lambda: os.kill(pid_of_rank(1, os.getpid()), signal.SIGKILL))
    with pytest.raises(BasekampError) as failure:
        train(digits, tmp_path / "killed", checkpoint_seconds=0.0, **settings)
    killer.join()
    goes_on = "train again, and it goes on from its last checkpoint."
    assert str(failure.value) == f"rank 1 was killed by SIGKILL: see that memory suffices; {goes_on}"
    assert descendants(os.getpid()) == {}
    assert not (tmp_path / "killed").exists()
    capfd.readouterr()
    train(digits, tmp_path / "killed", **settings)
    assert "Resuming from a checkpoint: 0 of 1 seeds are trained, seed 0 at " in capfd.readouterr().out
    train(digits, tmp_path / "whole", **settings)
    assert results(tmp_path / "killed") == results(tmp_path / "whole")


def test_sigterm_saves_and_exits_with_143(digits, tmp_path, home):
    script = (
        "import sys; from pathlib import Path; from basekamp.hyperparameters import Hyperparameters\n"
        "from basekamp.training.train import train_model\n"
        f"settings = Hyperparameters.from_mapping({ENDLESS})\n"
        "train_model(Path(sys.argv[1]), Path(sys.argv[2]), settings, metric='accuracy', processes=2)"
    )
    told = tmp_path / "progress.json"
    environment = {**os.environ, "BASEKAMP_PROGRESS": str(told)}
    with subprocess.Popen([sys.executable, "-c", script, digits, tmp_path / "model"], env=environment) as process:
        wait_until(told.exists)
        assert list(home.glob("checkpoints/*/*.pt")) == []
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 143
    assert len(list(home.glob("checkpoints/*/*.pt"))) == 1
    assert not (tmp_path / "model").exists()


def test_killed_launcher_leaves_no_process_behind(digits, tmp_path, home):
    script = (
        "import sys; from pathlib import Path; from basekamp.hyperparameters import Hyperparameters\n"
        "from basekamp.training.launch import Job, launch\n"
        f"settings = Hyperparameters.from_mapping({ENDLESS})\n"
        "paths = {'dataset': sys.argv[1], 'directory': sys.argv[2]}\n"
        "launch(Job(hyperparameters=settings, metric='accuracy', seeds=1, checkpoint_seconds=0.0, **paths), 2)"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", script, digits, tmp_path / "model"], env=environment) as process:
        wait_until(lambda: list(home.glob("checkpoints/*/*.pt")))
        orphans = descendants(process.pid)
        assert len(orphans) == 3
        process.kill()
    wait_until(lambda: not any(Path(f"/proc/{pid}/fd").exists() and is_alive(pid) for pid in orphans))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_error_of_ours_in_a_process_keeps_its_kind_and_sentence(prices, tmp_path, capfd):
    with pytest.raises(InputError, match=r"^model: cnn needs images, and .*prices\.csv holds a table: use model: mlp"):
        train(prices, tmp_path / "model", model="cnn", metric="rmse", processes=2)
    printed = capfd.readouterr()
    assert "Traceback" not in printed.out + printed.err


def test_error_of_an_own_model_is_one_sentence_after_its_traceback(prices, tmp_path, monkeypatch, capfd):
    source = (
        "import os\nfrom torch import nn\n\nclass Breaks(nn.Linear):\n    def forward(self, x):\n"
        "        if self.training and os.environ['RANK'] == '1':\n            raise RuntimeError('no luck')\n"
        "        return super().forward(x)\n\n"
        "def build(input_shape, n_outputs):\n    return Breaks(input_shape[0], n_outputs)\n"
    )
    (tmp_path / "broken_models.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        BasekampError, match=r"^a process of the training failed \(RuntimeError: no luck\): mend that; "
    ):
        train(prices, tmp_path / "model", model="broken_models:build", metric="rmse", processes=2)
    printed = capfd.readouterr()
    assert printed.out.count("Traceback") == 1
    assert 'broken_models.py", line 7, in forward' in printed.out
    assert printed.err == ""


def failure(folder: Path, *, codes: dict[int, int], **told: tuple[float, Exception]) -> BasekampError:
    (folder / launch.FAILURES_FILE).write_text(json.dumps(codes))
    for rank, (at, error) in enumerate(told.values()):
        launch.tell_error(folder, rank, error)
        path = folder / f"error-{rank}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "at": at}))
    return launch._failure(folder)


def test_first_failure_is_told_and_not_those_that_follow_from_it(tmp_path):
    lost, cause = (2.0, RuntimeError("Connection closed by peer")), (1.0, ValueError("the\ncause"))
    assert "(ValueError: the cause)" in str(failure(tmp_path, codes={0: 1, 1: 1}, rank_0=lost, rank_1=cause))
    assert "rank 1 was killed by SIGKILL" in str(failure(tmp_path, codes={0: 1, 1: -9}, rank_0=lost))
    ours = failure(tmp_path, codes={0: 1, 1: -6}, rank_0=lost, rank_1=(3.0, InputError("use another.")))
    assert (type(ours), str(ours)) == (InputError, "use another.")


def test_torchrun_that_fails_itself_is_told_with_its_last_line(tmp_path, capsys):
    (tmp_path / launch.LOG_FILE).write_text("Traceback\nRuntimeError: no port is free\n\n")
    error = launch._failure(tmp_path)
    assert str(error).startswith("torchrun ended before the training did (RuntimeError: no port is free): train again")
    assert capsys.readouterr().out.startswith("Traceback\n")


@pytest.mark.parametrize(
    ("gpus", "processes", "message"),
    [
        ("0", 0, "processes=0 is not allowed: use 1 or more."),
        ("2", 3, 'processes=3 is not allowed with gpus="2": each GPU has one of its own.'),
    ],
)
def test_processes_that_do_not_fit_are_refused(gpus, processes, message):
    with pytest.raises(InputError) as refusal:
        count_processes(gpus, processes)
    assert str(refusal.value) == message


@pytest.mark.parametrize(
    ("gpus", "processes", "expected"), [("0", 1, 1), ("0", 2, 2), ("1", 1, 1), ("4", 1, 4), ("4", 4, 4)]
)
def test_each_gpu_has_a_process(gpus, processes, expected):
    assert count_processes(gpus, processes) == expected


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")


def test_gpus_up_to_those_there_are_are_allowed(two_gpus):
    assert choose_device("1") == choose_device("2") == torch.device("cuda")
    assert describe_device(choose_device("2"), n_processes=2) == "2 x NVIDIA H200"


def test_more_gpus_than_there_are_are_refused_with_their_number(two_gpus, digits, tmp_path):
    with pytest.raises(DeviceError) as refusal:
        train_model(digits, tmp_path / "model", Hyperparameters(), metric="accuracy", gpus="3")
    expected = 'gpus="3" was asked for and this machine shows 2: use gpus="2", or a node with 3 GPUs.'
    assert str(refusal.value) == expected


def test_settings_that_do_not_fit_are_refused_before_any_process_starts(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(launch.subprocess, "Popen", None)
    with pytest.raises(InputError, match="metric: rmse does not fit a classification target"):
        train(digits, tmp_path / "model", metric="rmse", processes=2)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="this machine has fewer than two CUDA devices")
def test_two_gpus_reach_what_one_reaches(digits, tmp_path):
    settings = Hyperparameters.from_mapping({"model": "cnn", "width": 16, "n_epochs": 8, "lr": 0.01})
    reached = []
    for gpus in ("1", "2"):
        training = train_model(digits, tmp_path / gpus, settings, metric="accuracy", seeds=1, gpus=gpus)
        reached.append(max(training.replicates[0].curves.validation_metric))
    assert abs(reached[1] - reached[0]) < 0.03
    assert min(reached) > 0.9


@pytest.mark.parametrize("rank", [0, 1])
def test_rank_0_alone_writes_checkpoints(tmp_path, monkeypatch, rank):
    """What another rank wrote at its end lacked the curves, and could outlive the removal by rank 0."""
    monkeypatch.setattr(dist, "get_rank", lambda: rank)
    saver = SharedSaver(Checkpoints("key", home=tmp_path), every_seconds=0.0)
    saver.snapshot = lambda: {"number": 1}
    saver.save()
    saver.after_step()
    saver.writing.wait()
    assert bool(list(tmp_path.rglob("*.pt"))) == (rank == 0)
