"""Measures a training while it runs: where its time goes, how many rows it takes, what its device does.

It costs the training nothing: clocks are read where the training waits anyway, and a GPU is never waited for.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from basekamp.training.cards import Precision, peak_flops
from basekamp.training.nvml import CardReader
from basekamp.training.results import Performance, Seconds

Phase = Literal["data", "compute", "validation", "checkpoint", "other"]
State = dict[str, Any]


class Meter:
    """Adds up the seconds of each phase from its making on, and the rows that steps took.

    A phase within another stops the other's clock, so they add up to the total. On CUDA steps only begin when they are
    called: what runs behind is counted where the training next waits for it, computing at an epoch's end. Used as a
    context it reads the card meanwhile. `state` and `load_state` carry it over to the process that goes on.
    """

    def __init__(self, device: torch.device = torch.device("cpu")) -> None:  # noqa: B008 - a constant
        self.device, self.card = device, CardReader(device)
        self.seconds: dict[Phase, float] = {"data": 0.0, "compute": 0.0, "validation": 0.0, "checkpoint": 0.0}
        self.seconds["other"] = 0.0
        self.rows = 0
        self.earlier_peak_bytes: int | None = 0
        self.phase: Phase = "other"
        self.since = time.perf_counter()

    def __enter__(self) -> "Meter":
        if self.device.type == "cuda":
            torch.cuda.init()  # type: ignore[no-untyped-call]  # before it, a reset is refused
            torch.cuda.reset_peak_memory_stats(self.device)
        self.card.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.card.stop()

    @contextmanager
    def spending(self, phase: Phase) -> Iterator[None]:
        """Count the time within as this phase's."""
        outer = self.turn_to(phase)
        try:
            yield
        finally:
            self.turn_to(outer)

    def turn_to(self, phase: Phase) -> Phase:
        """Count the time from now on as this phase's; gives the one before."""
        now, before = time.perf_counter(), self.phase
        self.seconds[before] += now - self.since
        self.phase, self.since = phase, now
        return before

    def state(self) -> State:
        """All that was measured so far, as plain values."""
        self.turn_to(self.phase)
        return {
            "seconds": dict(self.seconds),
            "rows": self.rows,
            "peak_bytes": self._peak_bytes(),
            "card": self.card.state(),
        }

    def load_state(self, state: State) -> None:
        """Add what an earlier process measured."""
        for phase, seconds in state["seconds"].items():
            self.seconds[phase] += seconds
        self.rows += state["rows"]
        self.earlier_peak_bytes = state["peak_bytes"]
        self.card.load_state(state["card"])

    def performance(
        self, cards: Sequence[str], *, processes: int, flops_per_row: float | None, precision: Precision
    ) -> Performance:
        """Sum up: `cards` are the names of all that take part, `flops_per_row` those of one row in one step."""
        self.turn_to(self.phase)
        computing = self.seconds["compute"]
        rate = self.rows / computing if self.rows and computing else None
        flops = rate * flops_per_row if rate and flops_per_row else None
        peak = peak_flops(cards, precision)
        told = {phase: round(seconds, 4) for phase, seconds in self.seconds.items() if phase != "other"}
        return Performance(
            device=", ".join(dict.fromkeys(cards)) or self.device.type,
            processes=processes,
            seconds=Seconds(total=round(sum(self.seconds.values()), 4), **told),
            samples_per_second=rate,
            memory_peak_bytes=self._peak_bytes(),
            gpu_utilisation=self.card.utilisation,
            energy_joules=self.card.energy_joules,
            flops_per_second=flops,
            peak_share=flops / peak if flops and peak else None,
            peak_precision=precision if flops and peak else None,
        )

    def _peak_bytes(self) -> int | None:
        now = peak_memory_bytes(self.device)
        return None if now is None or self.earlier_peak_bytes is None else max(now, self.earlier_peak_bytes)


def peak_memory_bytes(device: torch.device) -> int | None:
    """Most that PyTorch has held on the card, or this process of the machine's memory, mapped files included.

    None for the CPU of systems without /proc.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
