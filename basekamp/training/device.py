"""Which device a training runs on."""

import torch

from basekamp.errors import DeviceError, InputError


def choose_device(gpus: str) -> torch.device:
    """Turn a GPU count ("0" for the CPU, "1" for a GPU) into a device.

    Raises InputError for what is no count, DeviceError when a GPU was asked for and there is none.
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
    if int(gpus) > torch.cuda.device_count():
        raise DeviceError(
            f'gpus="{gpus}" was asked for and this machine has {torch.cuda.device_count()}: ask for fewer.'
        )
    return torch.device("cuda")


def describe_device(device: torch.device) -> str:
    """Name the device as a person would: the card's name, or the CPU and its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} threads"
