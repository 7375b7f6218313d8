"""Checkpoints: a training goes on after every kind of end, and ends with the same bytes."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from basekamp.data.dataset import load_dataset
from basekamp.errors import StoreError
from basekamp.storage import open_store
from basekamp.training.checkpoint import Checkpoints
from basekamp.training.saver import Saver
from tests.trainer import Job, Trainer
from tests.trainings import CPU, results, train, write_own_model

LONG = {"model": "mlp", "width": 24, "dropout": 0.3, "batch_size": 64, "n_epochs": 7, "patience": 0}
IMAGES = {"model": "cnn", "width": 4, "n_layers": 2, "dropout": 0.3, "batch_size": 64, "n_epochs": 12, "patience": 0}
CAREFUL = {"flip": True, "crop": 1, "cutout": 2, "ema": 0.9, "clip_norm": 1.0, "warmup": 0.2, "label_smoothing": 0.1}
ALONE = {"model": "mlp", "width": 2048}  # too large for a stack to pay: one seed after the other

pytestmark = pytest.mark.usefixtures("home")


@pytest.mark.parametrize(
    "settings",
    [
        {**LONG, "n_epochs": 80},
        {**LONG, "n_epochs": 80, "model": "linear", "dropout": 0.0, "schedule": "constant"},
        {**IMAGES, **CAREFUL},
    ],
    ids=["stacked mlp with dropout", "linear", "cnn with everything on"],
)
def test_training_killed_at_random_moments_ends_with_the_bytes_of_one_never_killed(trainer, digits, tmp_path, settings):
    whole = Job(digits, tmp_path / "whole", settings, checkpoint_seconds=60.0)
    assert trainer.run(whole) == 0
    chance, positions, trainings = random.Random(8), [], 0
    while len(positions) < 17:  # a training that ends before it was killed that often is followed by another
        assert (trainings := trainings + 1) < 17, "trainings end before they are killed"
        job, kills = Job(digits, tmp_path / f"killed-{trainings}", settings), 0
        while kill_or_finish(trainer, job, chance, may_kill=len(positions) < 17) == -signal.SIGKILL:
            assert ("Resuming from a checkpoint: " in job.log) == bool(kills)
            if not job.checkpoints:
                break  # it had written its results and was about to end
            positions += newest_positions(job)
            kills += 1
        assert ("Resuming from a checkpoint: " in job.log) == bool(kills)
        assert results(job.model) == results(whole.model)
        assert job.checkpoints == []
        assert sorted(os.listdir(job.model)) == ["model.pth", "training.json"]
    batches = -(-load_dataset(digits).schema.rows["train"] // 64)
    assert sum(0 < step < batches and epoch > 0 for epoch, step in positions) >= 4


def kill_or_finish(trainer: Trainer, job: Job, chance: random.Random, *, may_kill: bool) -> int:
    if not may_kill:
        return trainer.run(job)
    checkpoints, seconds = chance.randint(2, 8), chance.uniform(0, 0.01)
    return trainer.signal_after(signal.SIGKILL, job, checkpoints=checkpoints, then_seconds=seconds)


def newest_positions(job: Job) -> list[tuple[int, int]]:
    """Epoch and step of the loop that runs in the newest checkpoint of a killed job."""
    (folder,) = (job.folder / "home" / "checkpoints").iterdir()
    state = Checkpoints(folder.name, home=job.folder / "home").read(CPU)
    assert state is not None
    running = [loop for loop in state["loops"] if loop is not None and loop["alive"]]
    return [(loop["epoch"], loop["step"]) for loop in running][:1] or [(0, 0)]


def test_no_kill_while_saving_leaves_an_unreadable_checkpoint(tmp_path):
    """300 processes that do nothing but save 1 MB are killed at random moments."""
    saving = (
        "import os, sys, time, torch\n"
        "from basekamp.training.checkpoint import Checkpoints\n"
        "for line in sys.stdin:\n"
        "    if os.fork():\n"
        "        print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)\n"
        "        continue\n"
        "    checkpoints = Checkpoints('key')\n"
        "    before = checkpoints.read(torch.device('cpu')) or {'number': 0}\n"
        "    print(os.getpid(), flush=True)\n"
        "    for number in range(before['number'] + 1, 1 << 30):\n"
        "        checkpoints.write({'number': number, 'filled': torch.full((250_000,), float(number))})\n"
    )
    environment = {**os.environ, "BASEKAMP_HOME": str(tmp_path)}
    folder, chance, reached, most_strays = tmp_path / "checkpoints" / "key", random.Random(3), 0, 0
    longest_seconds = 0.02
    with subprocess.Popen(
        [sys.executable, "-c", saving], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as server:
        for _ in range(300):
            server.stdin.write("go\n")
            server.stdin.flush()
            pid = int(server.stdout.readline())
            time.sleep(chance.uniform(0, longest_seconds))
            os.kill(pid, signal.SIGKILL)
            assert int(server.stdout.readline()) == -signal.SIGKILL
            most_strays = max(most_strays, len(list(folder.glob(".*"))))
            newest = sorted(folder.glob("*.pt"))[-1:]
            state = Checkpoints("key", home=tmp_path).read(CPU)
            assert list(folder.glob(".*")) == list(folder.glob("*.damaged")) == []
            if not newest:
                longest_seconds *= 1.1  # a slow disk, or a busy machine
            else:
                assert state["number"] == int(newest[0].stem) >= reached
                assert bool((state["filled"] == state["number"]).all())
                reached = state["number"]
            assert len(list(folder.glob("*.pt"))) <= 3
        server.stdin.close()
    assert most_strays == 1
    assert reached > 20


@pytest.mark.parametrize("phase", ["preparation", "step", "evaluation", "upload"])
def test_sigterm_in_any_phase_saves_and_exits_with_143_and_the_next_run_ends_with_the_same_bytes(
    trainer, digits, tmp_path, s3_env, phase
):
    settings = {**LONG, "n_epochs": 60}
    whole = Job(digits, tmp_path / "whole", settings, checkpoint_seconds=60.0)
    assert trainer.run(whole) == 0
    job = Job(digits, tmp_path / "stopped", settings, checkpoint_seconds=60.0, pauses_in=phase)
    if phase == "upload":
        job.store, job.checkpoint_seconds = s3_env, 0.0
    for _ in range(5):
        trainer.start(job)
        wait_for(job.folder / "paused")
        before = time.monotonic()
        os.kill(trainer.pid, signal.SIGTERM)
        assert trainer.wait() == 143, job.log
        assert time.monotonic() - before < 10
        (job.folder / "paused").unlink()
        assert not (job.model / "training.json").exists()
    job.pauses_in = ""
    assert trainer.run(job) == 0
    assert ("Resuming from a checkpoint: " in job.log) == (phase != "preparation")
    assert results(job.model) == results(whole.model)


def test_sigterm_while_the_results_are_written_lets_them_be_written(trainer, digits, tmp_path):
    whole, job = (Job(digits, tmp_path / name, LONG) for name in ("whole", "stopped"))
    assert trainer.run(whole) == 0
    job.pauses_in = "writing"
    trainer.start(job)
    wait_for(job.folder / "paused")
    os.kill(trainer.pid, signal.SIGTERM)
    assert trainer.wait() == 0
    assert results(job.model) == results(whole.model)


def wait_for(path: Path) -> None:
    give_up = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < give_up, f"{path} never came"
        time.sleep(0.001)


def flip_a_bit(data: bytes) -> bytes:
    return data[:1000] + bytes([data[1000] ^ 4]) + data[1001:]


DAMAGES = pytest.mark.parametrize(
    "damage",
    [flip_a_bit, lambda data: data[: len(data) // 2], lambda data: b"", lambda data: data[:32]],
    ids=["a bit flipped", "half", "empty", "only the digest"],
)


@DAMAGES
def test_damaged_checkpoint_is_set_aside_and_the_one_before_it_is_used(tmp_path, damage, capsys):
    checkpoints = Checkpoints("key")
    for number in range(4):
        newest = checkpoints.write({"number": number, "filled": torch.zeros(1000)})
    assert [path.name for path in sorted(newest.parent.iterdir())] == ["00000003.pt", "00000004.pt"]
    newest.write_bytes(damage(newest.read_bytes()))
    again = Checkpoints("key")
    assert again.read(CPU)["number"] == 2
    aside = newest.with_suffix(".damaged")
    assert f"The checkpoint {aside} cannot be used (it is damaged): the one before it is" in capsys.readouterr().out
    assert again.write({"number": 5}).name == "00000005.pt"


def test_training_whose_checkpoints_are_all_damaged_starts_afresh(trainer, digits, tmp_path):
    job = Job(digits, tmp_path / "job", {**LONG, "n_epochs": 20}, seeds=1)
    assert trainer.signal_after(signal.SIGKILL, job, checkpoints=4) == -signal.SIGKILL
    for checkpoint in job.checkpoints:
        checkpoint.write_bytes(flip_a_bit(checkpoint.read_bytes()))
    job.checkpoint_seconds = 60.0
    assert trainer.run(job) == 0
    assert job.log.count("cannot be used (it is damaged)") >= 2
    assert "Resuming" not in job.log
    assert "Traceback" not in job.log


def test_checkpoint_that_cannot_be_read_is_told(capsys, tmp_path):
    (tmp_path / "checkpoints" / "key" / "00000001.pt").mkdir(parents=True)
    assert Checkpoints("key", home=tmp_path).read(CPU) is None
    assert "cannot be used ([Errno 21] Is a directory" in capsys.readouterr().out


def test_training_goes_on_in_another_pod_from_the_store(trainer, digits, tmp_path, s3_env):
    settings = {**LONG, "n_epochs": 40}
    whole = Job(digits, tmp_path / "whole", settings, seeds=1, checkpoint_seconds=60.0)
    assert trainer.run(whole) == 0
    store = open_store(f"{s3_env}/team")
    first = Job(digits, tmp_path / "first", settings, seeds=1, store=store.url)
    trainer.start(first)
    while len(list(store.entries(".checkpoints/"))) < 2:
        assert not trainer.has_ended(), first.log
    os.kill(trainer.pid, signal.SIGTERM)
    assert trainer.wait() == 143
    sent = [entry.key.rpartition("/")[2] for entry in store.entries(".checkpoints/")]
    assert len(sent) == 2
    assert sent[-1] == first.checkpoints[-1].name, "what SIGTERM saved was not sent"
    second = Job(digits, tmp_path / "second", settings, seeds=1, store=store.url, checkpoint_seconds=60.0)
    assert trainer.run(second) == 0
    assert "Resuming from a checkpoint: " in second.log
    assert results(second.model) == results(whole.model)
    assert list(store.entries(".checkpoints/")) == []


def test_store_that_is_down_does_not_stop_the_training(tables, tmp_path, s3_env, monkeypatch, capsys):
    monkeypatch.setenv("BASEKAMP_S3_ENDPOINT", "http://127.0.0.1:9")
    train(tables["classification"], tmp_path / "model", store=f"{s3_env}/team", checkpoint_seconds=0.0)
    printed = capsys.readouterr().out
    assert printed.count("Checkpoints in the store cannot be read (") == 1
    assert printed.count("cannot be sent (") == 1
    assert (tmp_path / "model" / "model.pth").exists()


def test_damaged_checkpoint_in_the_store_is_passed_over(s3_env, s3_client, tmp_path, capsys):
    store = open_store(s3_env)
    writer = Checkpoints("key", store, home=tmp_path / "one")
    for number in range(2):
        writer.upload(writer.write({"number": number}))
    bucket = s3_env.removeprefix("s3://")
    path = tmp_path / "damaged"
    path.write_bytes(b"no checkpoint")
    s3_client.fput_object(bucket, ".checkpoints/key/00000002.pt", str(path))
    assert Checkpoints("key", store, home=tmp_path / "two").read(CPU)["number"] == 0
    assert "cannot be used (" in capsys.readouterr().out


@pytest.mark.parametrize(
    "other",
    [{"settings": {**LONG, "n_epochs": 20, "lr": 0.002}}, {"seeds": 3}, {"metric": "loss"}, {}],
    ids=["lr", "seeds", "metric", "none"],
)
def test_checkpoint_of_other_settings_is_not_used(trainer, digits, tmp_path, other):
    job = Job(digits, tmp_path / "job", {**LONG, "n_epochs": 20})
    assert trainer.signal_after(signal.SIGKILL, job, checkpoints=2) == -signal.SIGKILL
    changed = Job(**{**vars(job), "checkpoint_seconds": 60.0, **other})
    assert trainer.run(changed) == 0
    assert ("Resuming" in changed.log) == (not other)
    assert bool(job.checkpoints) == bool(other)


def test_checkpoint_of_an_own_model_is_not_used_after_its_code_changed(tables, tmp_path, monkeypatch, capsys):
    options = {"model": "resumed_models:build", "n_epochs": 2}
    write_own_model(monkeypatch, tmp_path, "resumed_models", "nn.Linear(input_shape[0], n_outputs)")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Saver, "after_step", stopping_after(1))
        train(tables["classification"], tmp_path / "model", **options)
    write_own_model(monkeypatch, tmp_path, "resumed_models", "nn.Linear(input_shape[0], n_outputs, bias=False)")
    train(tables["classification"], tmp_path / "model", **options)
    assert "Resuming" not in capsys.readouterr().out


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("steps", [1, 5, 8, 9, 10, 17, 25], ids="step {}".format)
def test_training_stopped_after_any_step_ends_with_the_same_bytes(tables, tmp_path, monkeypatch, capsys, steps, seeds):
    """Eight steps to an epoch, and `after_step` is called once more in each validation."""
    data = tables["regression"]
    settings = {"model": "mlp", "width": 8, "dropout": 0.5, "batch_size": 32, "seeds": seeds}
    assert -(-load_dataset(data).schema.rows["train"] // 32) == 8
    train(data, tmp_path / "whole", metric="rmse", **settings)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Saver, "after_step", stopping_after(steps))
        train(data, tmp_path / "stopped", metric="rmse", **settings)
    capsys.readouterr()
    train(data, tmp_path / "stopped", metric="rmse", **settings)
    epoch, step = divmod(max(steps - 2, 0), 9)
    who = "seed 0" if seeds == 1 else "seeds 0 to 2"
    expected = f"{who} at {epoch} epochs and {min(step + (steps > 1), 8)} steps."
    assert expected in capsys.readouterr().out
    assert results(tmp_path / "stopped") == results(tmp_path / "whole")


def stopping_after(calls: int) -> Callable[[Saver], None]:
    """What a saver does after each step when it is to save and be interrupted at that call."""
    left = iter(range(calls - 1, -1, -1))

    def after_step(saver: Saver) -> None:
        if next(left) == 0:
            saver.save()
            saver.writing.wait()
            raise KeyboardInterrupt

    return after_step


def test_training_stopped_between_two_seeds_ends_with_the_same_bytes(tables, tmp_path, monkeypatch, capsys):
    from basekamp.training.session import Session

    data, settings = tables["classification"], {**ALONE, "seeds": 2}
    train(data, tmp_path / "whole", **settings)
    loop = Session.loop

    def first_alone(session, place):
        if place == 1:
            session.saver.writing.wait()
            raise KeyboardInterrupt
        return loop(session, place)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Session, "loop", first_alone)
        train(data, tmp_path / "stopped", **settings)
    capsys.readouterr()
    train(data, tmp_path / "stopped", **settings)
    assert "Resuming from a checkpoint: 1 of 2 seeds are trained.\n" in capsys.readouterr().out
    assert results(tmp_path / "stopped") == results(tmp_path / "whole")


def test_checkpoint_folder_that_cannot_be_written_does_not_stop_the_training(tables, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("BASEKAMP_HOME", str(tmp_path / "file" / "home"))
    train(tables["classification"], tmp_path / "model", seeds=2, checkpoint_seconds=0.0)
    printed = capsys.readouterr().out
    assert printed.count("cannot be written (Not a directory): the training goes on, and a kill could lose it.") == 1
    assert (tmp_path / "model" / "model.pth").exists()


def test_saver_tells_a_failing_store_once(tmp_path, capsys):
    class Failing(Checkpoints):
        def upload(self, path: Path) -> None:
            raise StoreError("the bucket is gone")

    saver = Saver(Failing("key"), every_seconds=0.0)
    saver.snapshot = lambda: {"number": 1}
    for _ in range(3):
        saver.after_step()
        saver.writing.wait()
        saver.sending.wait()
    assert capsys.readouterr().out.count("cannot be sent (the bucket is gone)") == 1
