"""Where a training's rows come from: the device's own memory, or, when they do not fit, the disk, ahead of need.

Shapes: n rows, b rows of a batch; row numbers are int64 [b], or [K, b] for stacked networks that see different rows.
"""

import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from basekamp.data.dataset import Dataset, Schema

LARGEST_SHARE = 0.5
"""How much of a GPU's free memory the rows may take; the rest is for the training itself."""


class Feed(Protocol):
    """Gives rows of the training split as the data set holds them, on the device."""

    is_resident: bool

    def begin(self, batches: Sequence[Tensor]) -> None:
        """Tell which batches will be taken, in order."""

    def take(self, rows: Tensor) -> Tensor:
        """Give the next batch [b, …] or [K, b, …]."""

    def end(self) -> None:
        """Forget the batches that were not taken."""


@dataclass(frozen=True)
class TrainingData:
    """The two splits that training sees. y int64 [n] or standardised float32 [n], on the device."""

    schema: Schema
    feed: Feed
    y: Tensor
    x_validation: Tensor
    targets_validation: NDArray[Any]

    @property
    def device(self) -> torch.device:
        """Where the training computes."""
        return self.y.device


def as_trained(schema: Schema, targets: NDArray[Any]) -> NDArray[Any]:
    """Targets as a network learns them: class indices as they are, numbers standardised, float32."""
    if schema.task == "classification":
        return targets
    standardised: NDArray[Any] = (targets.astype(np.float64) - schema.target_mean) / schema.target_std
    return standardised.astype(np.float32)


class ResidentFeed:
    """All rows [n, …] on the device; on the CPU they stay in the mapped file, which the system reads as needed."""

    is_resident = True

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def begin(self, batches: Sequence[Tensor]) -> None:
        """Nothing is to be done."""

    def take(self, rows: Tensor) -> Tensor:
        """Gather rows on the device."""
        return self.x.index_select(0, rows.flatten()).view(*rows.shape, *self.x.shape[1:])

    def end(self) -> None:
        """Nothing is to be done."""


class StreamedFeed:
    """Rows of a mapped file: a thread gathers the batch after next into one of two buffers, and sends it ahead.

    On CUDA the buffers are pinned and the copies run beside the computation.
    """

    is_resident = False

    def __init__(self, x: NDArray[Any], device: torch.device) -> None:
        self.x, self.device = x, device
        self.thread: threading.Thread | None = None
        self.stream: Any = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def begin(self, batches: Sequence[Tensor]) -> None:
        """Start to read ahead."""
        self.end()
        numbers = [rows.cpu().numpy() for rows in batches]
        self.stopped = threading.Event()
        self.ready: queue.Queue[Any] = queue.Queue()
        self.free: queue.Queue[Any] = queue.Queue()
        self.held: Any = None
        if numbers:
            largest = max(rows.size for rows in numbers)
            pinned = self.stream is not None
            for _ in range(2):
                like = torch.from_numpy(self.x[:1])
                buffer = torch.empty((largest, *like.shape[1:]), dtype=like.dtype, pin_memory=pinned)
                self.free.put((buffer, None))
        self.thread = threading.Thread(target=self._read, args=(numbers, self.stopped), daemon=True)
        self.thread.start()

    def take(self, rows: Tensor) -> Tensor:
        """Give the next batch; what the batch before lay in may be overwritten from now on."""
        if self.held is not None:
            self.free.put(self.held)
        batch, self.held = self.ready.get()
        if isinstance(batch, Exception):
            raise batch
        event = self.held[1]
        if event is not None:
            torch.cuda.current_stream(self.device).wait_event(event)
            batch.record_stream(torch.cuda.current_stream(self.device))
        given: Tensor = batch.view(*rows.shape, *batch.shape[1:])
        return given

    def end(self) -> None:
        """Stop to read ahead."""
        if self.thread is not None:
            self.stopped.set()
            self.free.put((None, None))
            self.thread.join()
            self.thread = None

    def _read(self, batches: list[NDArray[np.int64]], stopped: threading.Event) -> None:
        try:
            for rows in batches:
                buffer, event = self.free.get()
                if stopped.is_set():
                    return
                if event is not None:
                    event.synchronize()
                filled = buffer[: rows.size]
                np.take(self.x, rows.ravel(), axis=0, out=filled.numpy(), mode="clip")
                self.ready.put(self._sent(filled, buffer))
        except Exception as error:  # it belongs to whoever waits for the batch
            self.ready.put((error, None))

    def _sent(self, filled: Tensor, buffer: Tensor) -> tuple[Tensor, Any]:
        if self.stream is None:
            return filled, (buffer, None)
        with torch.cuda.stream(self.stream):
            batch = filled.to(self.device, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(self.stream)
        return batch, (buffer, event)


def load_training_data(data: Dataset, device: torch.device, *, streams: bool | None = None) -> TrainingData:
    """Bring the training and validation splits to the device.

    streams: whether rows are read from the disk as they are needed; by default when they do not fit the GPU.
    """
    train, validation, schema = data.split("train"), data.split("validation"), data.schema
    if streams is None:
        streams = not _fits(train.x.nbytes + validation.x.nbytes, device)
    x_validation = torch.from_numpy(validation.x)
    return TrainingData(
        schema=schema,
        feed=StreamedFeed(train.x, device) if streams else ResidentFeed(torch.from_numpy(train.x).to(device)),
        y=torch.tensor(as_trained(schema, np.asarray(train.y)), device=device),
        x_validation=x_validation if streams else x_validation.to(device),
        targets_validation=np.asarray(validation.y),
    )


def _fits(size_bytes: int, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return size_bytes <= LARGEST_SHARE * free_bytes
