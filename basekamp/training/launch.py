"""Start one training on several processes of this node: torchrun under our eyes, one sentence when it fails.

    train_model ─ launch ─┬─ agent (torchrun) ─┬─ rank 0   validates, keeps, writes   (basekamp.training.distributed)
                          │                    └─ rank 1…  only compute
                          └─ a folder: job.json, rank-0.pid, error-<rank>.json, failures.json, agent.log

Each dies soon after the one to its left. SIGTERM reaches rank 0 alone, which saves; torchrun then ends the others.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from basekamp import errors
from basekamp.hyperparameters import Hyperparameters
from basekamp.training.termination import EXIT_STATUS, end_with_parent, on_sigterm

JOB_FILE, PID_FILE, FAILURES_FILE, LOG_FILE = "job.json", "rank-0.pid", "failures.json", "agent.log"
STOP_SECONDS = 25.0
"""How long rank 0 may take to save: Kubernetes kills a pod 30 s after its SIGTERM."""

_WORKER = "basekamp.training.distributed"
_NOT_ITS_OWN_FAULT = (-signal.SIGTERM, -signal.SIGABRT)


class Job(BaseModel):
    """One training, as every process that takes part in it is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: Path
    directory: Path
    hyperparameters: Hyperparameters
    metric: str
    seeds: int
    gpus: str = "0"
    store: str = ""
    checkpoint_seconds: float = 30.0
    first_seed: int = 0
    profile: bool = False
    tracking: str = ""


def launch(job: Job, n_processes: int, *, on_this_node_alone: bool = True) -> None:
    """Train on `n_processes` of this node; rank 0 writes into `job.directory`.

    With other nodes, torchrun reads from PET_NNODES, PET_NODE_RANK, PET_MASTER_ADDR and PET_MASTER_PORT where they
    are. On SIGTERM rank 0 saves a checkpoint, and this process exits with 143.

    Raises the error that a process met, with its own sentence, when it is one of basekamp's; else BasekampError.
    """
    with tempfile.TemporaryDirectory(prefix="basekamp-") as name:
        folder = Path(name)
        (folder / JOB_FILE).write_text(job.model_dump_json())
        options = ["--standalone", "--local-addr=127.0.0.1"] if on_this_node_alone else []
        options += [f"--nproc-per-node={n_processes}", f"--log-dir={name}"]
        command = [sys.executable, "-m", "basekamp.training.launch", name, str(os.getpid()), *options]
        with (folder / LOG_FILE).open("wb") as log:
            agent = subprocess.Popen(command, env=_environment(n_processes), stderr=log, start_new_session=True)
        try:
            _wait(agent, folder)
        finally:
            agent.kill()
            agent.wait()
        if agent.returncode:
            raise _failure(folder)


def tell_error(folder: Path, rank: int, error: Exception) -> None:
    """Leave the error of one process where `launch` finds it."""
    kind = type(error).__name__
    told = {"at": time.time(), "kind": kind, "is_ours": isinstance(error, errors.BasekampError), "text": str(error)}
    told["traceback"] = "".join(traceback.format_exception(error))
    (folder / f"error-{rank}.json").write_text(json.dumps(told))


def _environment(n_processes: int) -> dict[str, str]:
    """Let the processes import what this one can, and share its cores."""
    threads = max(1, (os.cpu_count() or 1) // n_processes)
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return {"OMP_NUM_THREADS": str(threads), **os.environ, "PYTHONPATH": path}


def _wait(agent: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait for the agent's end; exits with 143 when SIGTERM was its cause."""
    asked: list[float] = []
    told = False
    with on_sigterm(lambda: asked.append(time.monotonic())):
        while agent.poll() is None:
            time.sleep(0.05)
            if asked and not told:
                told = _terminate_rank_0(folder)
            if asked and time.monotonic() - asked[0] > STOP_SECONDS:
                agent.kill()
    if agent.returncode and (asked or EXIT_STATUS in _exit_codes(folder).values()):
        sys.exit(EXIT_STATUS)


def _terminate_rank_0(folder: Path) -> bool:
    """Whether rank 0 is there, on this node, to be asked."""
    with suppress(OSError, ValueError):
        os.kill(int((folder / PID_FILE).read_text()), signal.SIGTERM)
        return True
    return False


def _exit_codes(folder: Path) -> dict[int, int]:
    """Exit code of each process that failed, by rank; a signal's number below zero."""
    try:
        return {int(rank): code for rank, code in json.loads((folder / FAILURES_FILE).read_text()).items()}
    except FileNotFoundError:
        return {}


def _failure(folder: Path) -> errors.BasekampError:
    """What went wrong first: the failures that follow from it, such as a lost connection, are left out."""
    told = {path: json.loads(path.read_text()) for path in folder.glob("error-*.json")}
    first: list[dict[str, Any]] = sorted(told.values(), key=lambda error: (not error["is_ours"], error["at"]))
    if first and first[0]["is_ours"]:
        kind: type[errors.BasekampError] = getattr(errors, first[0]["kind"], errors.BasekampError)
        return kind(first[0]["text"])
    again = "train again, and it goes on from its last checkpoint"
    for rank, code in sorted(_exit_codes(folder).items()):
        if code < 0 and code not in _NOT_ITS_OWN_FAULT:
            name = signal.Signals(-code).name
            return errors.BasekampError(f"rank {rank} was killed by {name}: see that memory suffices; {again}.")
    if first:
        print(first[0]["traceback"], flush=True)
        said = " ".join(f"{first[0]['kind']}: {first[0]['text']}".split())[:500]
        return errors.BasekampError(f"a process of the training failed ({said}): mend that; {again}.")
    lines = (folder / LOG_FILE).read_text(errors="replace").splitlines()
    print("\n".join(lines[-30:]), flush=True)
    last = next((line for line in reversed(lines) if line.strip()), "it said nothing")
    return errors.BasekampError(f"torchrun ended before the training did ({last.strip()[:300]}): {again}.")


def _run_agent(folder: str, parent: str, *options: str) -> None:
    """Be torchrun, and leave each process's exit code."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    end_with_parent(int(parent))
    try:
        arguments = parse_args([*options, "-m", _WORKER, folder, str(os.getpid())])  # type: ignore[no-untyped-call]
        run(arguments)  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        (Path(folder) / FAILURES_FILE).write_text(json.dumps(codes))
        sys.exit(1)


if __name__ == "__main__":
    _run_agent(*sys.argv[1:])
