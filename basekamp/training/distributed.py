"""One process of a training that several share: each computes its part of every batch, rank 0 does the rest.

torchrun starts this module once for each rank. A batch is the same rows as on one device, dealt out to the ranks;
gradients are averaged by their number of rows, so weights equal those of one device but for rounding. What differs
with the number of processes: random numbers of dropout, and, on CPU alone, the statistics of BatchNorm (per rank).
"""

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import SyncBatchNorm
from torch.nn.parallel import DistributedDataParallel

from basekamp.document import load_document
from basekamp.hyperparameters import is_own_model
from basekamp.training.cards import card_names
from basekamp.training.course import State
from basekamp.training.device import choose_device
from basekamp.training.files import replace_file
from basekamp.training.launch import JOB_FILE, PID_FILE, Job, tell_error
from basekamp.training.loop import StackLoop
from basekamp.training.loss import mean_losses
from basekamp.training.progress import VARIABLE as PROGRESS_VARIABLE
from basekamp.training.saver import Saver
from basekamp.training.steps import Step
from basekamp.training.termination import end_with_parent
from basekamp.training.train import Crew, train_share

Answer = TypeVar("Answer")
CPU = torch.device("cpu")
SILENCE = timedelta(minutes=30)
"""How long a rank waits for the others: rank 0 validates alone meanwhile."""


class SharedLoop(StackLoop):
    """A loop of one network whose steps are shared by all ranks and whose judgements are rank 0's."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        if self.optimizer is None:
            return
        on_gpu = self.data.device.type == "cuda"
        self.network = DistributedDataParallel(
            self.stack.network,
            device_ids=[self.data.device] if on_gpu else None,
            find_unused_parameters=is_own_model(self.hyperparameters.model),
        )

    def _built(self, *arguments: Any) -> nn.Module:
        network = super()._built(*arguments)
        if self.data.device.type == "cuda":
            network = SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return network

    def _backward(self, step: Step) -> Tensor:
        """Gradients of the mean loss over all ranks' rows; a rank left without a row lends one of no weight."""
        torch.manual_seed(((self.members[0].seed * 1_000_003 + self.steps_done()) * self.size + self.rank) % (1 << 63))
        mine = step.part(self.rank, self.size)
        number = len(mine.rows)
        x, y = self._batch(mine if number else step.part(0, len(step.rows)))
        with self._mixed_precision():
            loss = mean_losses(self.network(x), y, label_smoothing=self.hyperparameters.label_smoothing)
        (loss * (number * self.size / len(step.rows))).sum().backward()  # type: ignore[no-untyped-call]
        summed = loss.detach() * number
        dist.all_reduce(summed)
        return summed

    def _stepper(self) -> None:
        """No graph: other ranks are waited for in each step."""

    def _judge(self, *arguments: Any) -> list[str]:
        return _as_rank_0(lambda: super(SharedLoop, self)._judge(*arguments))

    def text(self) -> str:
        """What rank 0 has to say; the others keep quiet."""
        return super().text() if self.rank == 0 else ""


class SharedSaver(Saver):
    """Rank 0 keeps the checkpoint for all; SIGTERM reaches it alone."""

    def restore(self, device: torch.device) -> State | None:
        """What rank 0 saved last, on every rank."""
        return _as_rank_0(lambda: super(SharedSaver, self).restore(CPU))

    def after_step(self) -> None:
        """Save when it is time, on rank 0."""
        if dist.get_rank() == 0:
            super().after_step()

    def _save(self) -> None:
        """Only rank 0 knows the curves: what another wrote would be found once rank 0 has removed its own."""
        if dist.get_rank() == 0:
            super()._save()

    def stopping_on_sigterm(self) -> AbstractContextManager[None]:
        """Let SIGTERM save and end rank 0; it ends the others at once."""
        return super().stopping_on_sigterm() if dist.get_rank() == 0 else nullcontext()


def _as_rank_0(ask: Callable[[], Answer]) -> Answer:
    """The answer that rank 0 has, on every rank."""
    answer: list[Any] = [ask() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(answer, src=0)
    told: Answer = answer[0]
    return told


def _all_cards(device: torch.device) -> tuple[str, ...]:
    """The names of all ranks' cards."""
    named: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(named, card_names(device))
    return tuple(card for names in named for card in names)


def _work(folder: Path, rank: int) -> None:
    job = load_document(Job, folder / JOB_FILE)
    device = choose_device(job.gpus)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=SILENCE)
    crew = Crew(SharedLoop, SharedSaver, size=dist.get_world_size(), leads=rank == 0, cards=_all_cards(device))
    train_share(job, device, crew)
    dist.destroy_process_group()


def _be_quiet(rank: int) -> None:
    """Only rank 0 speaks: on the output of the whole training, where torchrun's own log is not seen."""
    if rank == 0:
        os.dup2(1, 2)
    else:
        os.environ.pop(PROGRESS_VARIABLE, None)
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - until the process ends


def main(folder: Path, parent: int) -> None:
    """Be one rank of the training that `folder` holds, as long as `parent`, torchrun, lives."""
    rank = int(os.environ["RANK"])
    end_with_parent(parent)
    _be_quiet(rank)
    if rank == 0:
        replace_file(folder / PID_FILE, str(os.getpid()).encode(), durable=False)
    try:
        _work(folder, rank)
    except Exception as error:
        tell_error(folder, rank, error)
        sys.exit(1)
    # All is written. C++'s own clean-up at exit now and then aborts on a thread of gloo's that still runs.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
