"""Which device a training runs on."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from basekamp.errors import DeviceError, InputError

ONE_THREAD_BELOW = 1 << 24
"""Multiplications in one step. Measured on 2 cores, digits, mlp: with fewer, 2 threads are no faster than 1."""


def choose_device(gpus: str) -> torch.device:
    """Turn a GPU count ("0" for the CPU, "1" for a GPU) into a device.

    Raises InputError for what is no count, DeviceError when a GPU was asked for and there is none.
    """
    if not gpus.isdecimal():
        raise InputError(f'gpus="{gpus}" is not a count: use "0" for the CPU or "1" for a GPU.')
    if int(gpus) == 0:
        return torch.device("cpu")
    if int(gpus) > 1:
        raise InputError(f'gpus="{gpus}" is not allowed: one training runs on one GPU, use gpus="1".')
    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        raise DeviceError(
            f'gpus="{gpus}" was asked for and this machine shows no CUDA device (torch {torch.__version__}, {built}): '
            'use gpus="0", or a node and an image with a GPU.'
        )
    return torch.device("cuda")


def describe_device(device: torch.device) -> str:
    """Name the device as a person would: the card's name, or the CPU and its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"cpu, {threads} thread{'s' if threads > 1 else ''}"


@contextmanager
def fitting_threads(device: torch.device, *, step_size: int) -> Iterator[None]:
    """Compute on one CPU thread when steps are small; `step_size` counts the multiplications of one.

    Small steps gain nothing from more threads, lose much when others use the machine too, and on one thread
    give the same bytes whatever the number of cores.
    """
    before = torch.get_num_threads()
    if device.type == "cpu" and step_size < ONE_THREAD_BELOW:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
