"""Which device a training runs on."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from basekamp.errors import DeviceError, InputError

ONE_THREAD_BELOW = 1 << 24
"""Multiplications in one step. Measured on 2 cores, digits, mlp: with fewer, 2 threads are no faster than 1."""


def choose_device(gpus: str) -> torch.device:
    """Turn a GPU count ("0" for the CPU, "1" or more for GPUs) into a device, the first one.

    Raises InputError for what is no count, DeviceError when more GPUs were asked for than there are.
    """
    if not gpus.isdecimal():
        raise InputError(f'gpus="{gpus}" is not a count: use "0" for the CPU or "1" for a GPU.')
    if int(gpus) == 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        raise DeviceError(
            f'gpus="{gpus}" was asked for and this machine shows no CUDA device (torch {torch.__version__}, {built}): '
            'use gpus="0", or a node and an image with a GPU.'
        )
    there_are = torch.cuda.device_count()
    if int(gpus) > there_are:
        raise DeviceError(
            f'gpus="{gpus}" was asked for and this machine shows {there_are}: '
            f'use gpus="{there_are}", or a node with {gpus} GPUs.'
        )
    return torch.device("cuda")


def count_processes(gpus: str, processes: int) -> int:
    """How many processes share each batch: one for each GPU, or on the CPU as many as were asked for.

    Raises InputError for what is no count, and for processes that are asked for beside GPUs.
    """
    if processes < 1:
        raise InputError(f"processes={processes} is not allowed: use 1 or more.")
    n_gpus = int(gpus) if gpus.isdecimal() else 0
    if n_gpus and processes not in (1, n_gpus):
        raise InputError(f'processes={processes} is not allowed with gpus="{gpus}": each GPU has one of its own.')
    return max(n_gpus, processes)


def is_mixed_precision(precision: str, device: torch.device) -> bool:
    """Whether a training computes in bfloat16: on a GPU, or where it is asked for."""
    return precision == "bfloat16" or (precision == "auto" and device.type == "cuda")


def describe_device(device: torch.device, *, n_processes: int = 1) -> str:
    """Name the device as a person would: how many of what, the card's name, or the CPU and its threads."""
    number = f"{n_processes} x " if n_processes > 1 else ""
    if device.type == "cuda":
        return number + torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{number}cpu, {threads} thread{'s' if threads > 1 else ''}"


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
