"""How busy a GPU is and what it draws, read through NVIDIA's management library while the training goes on.

Source: https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html
"""

import threading
from typing import Any

import torch

SECONDS_BETWEEN_READINGS = 1.0
"""NVML's utilisation is the mean over the last sixth of a second to a second, by card."""

State = dict[str, Any]


class CardReader:
    """Reads one card from `start` to `stop` in a thread of its own; what the card does not tell stays None.

    The card is found by its UUID, so CUDA_VISIBLE_DEVICES does not matter. Of a slice of a card (MIG) nothing is known,
    or what the whole card draws.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.utilisations: tuple[float, int] = (0.0, 0)
        self.joules_before: float | None = 0.0
        self.joules: float | None = None
        self.stopped = threading.Event()
        self.thread: threading.Thread | None = None

    @property
    def utilisation(self) -> float | None:
        """Mean over all readings of the % of the time in which a kernel ran."""
        total, number = self.utilisations
        return total / number if number else None

    @property
    def energy_joules(self) -> float | None:
        """What the card drew up to the last reading; None too where an earlier process could not read it."""
        return None if self.joules is None or self.joules_before is None else self.joules_before + self.joules

    def start(self) -> None:
        """Begin to read, where there is a card and NVML knows it."""
        nvml = _initialised() if self.device.type == "cuda" else None
        if nvml is None:
            return
        try:
            uuid = str(torch.cuda.get_device_properties(self.device).uuid).removeprefix("GPU-")
            card = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        except nvml.NVMLError:
            return
        first = _energy(nvml, card)
        self.joules = None if first is None else 0.0
        self.thread = threading.Thread(target=self._read_on, args=(nvml, card, first), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Read once more, and end."""
        self.stopped.set()
        if self.thread is not None:
            self.thread.join()
            self.thread = None

    def state(self) -> State:
        """What was read, as plain values."""
        return {"utilisations": list(self.utilisations), "joules": self.energy_joules}

    def load_state(self, state: State) -> None:
        """Add what an earlier process read."""
        total, number = state["utilisations"]
        self.utilisations = (self.utilisations[0] + total, self.utilisations[1] + number)
        self.joules_before = state["joules"]

    def _read_on(self, nvml: Any, card: Any, first: float | None) -> None:
        is_last = False
        while not is_last:
            is_last = self.stopped.wait(SECONDS_BETWEEN_READINGS)
            now, busy = _energy(nvml, card), _utilisation(nvml, card)
            self.joules = None if first is None or now is None else now - first
            if busy is not None:
                self.utilisations = (self.utilisations[0] + busy, self.utilisations[1] + 1)


def _initialised() -> Any:
    """The library's Python module; None where it, or the driver's library, is missing."""
    try:
        import pynvml  # type: ignore[import-untyped]
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def _energy(nvml: Any, card: Any) -> float | None:
    """Joules since the driver was loaded."""
    try:
        return float(nvml.nvmlDeviceGetTotalEnergyConsumption(card)) / 1000
    except nvml.NVMLError:
        return None


def _utilisation(nvml: Any, card: Any) -> float | None:
    try:
        return float(nvml.nvmlDeviceGetUtilizationRates(card).gpu)
    except nvml.NVMLError:
        return None
