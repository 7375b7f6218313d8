"""Checkpoints that a kill cannot break: written whole or not at all, and checked when read."""

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import torch

DIGEST_BYTES = 32


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values under `path`: temporary file, fsync, rename; a SHA-256 comes first."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(hashlib.sha256(buffer.getbuffer()).digest())
        file.write(buffer.getbuffer())
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_checkpoint(path: Path, *, device: torch.device) -> dict[str, Any] | None:
    """Read a checkpoint, or None when there is none or it is damaged (then training starts afresh)."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    if hashlib.sha256(data[DIGEST_BYTES:]).digest() != data[:DIGEST_BYTES]:
        print(f"The checkpoint {path} is damaged and is left aside: training starts afresh.", flush=True)
        return None
    state: dict[str, Any] = torch.load(io.BytesIO(data[DIGEST_BYTES:]), map_location=device, weights_only=True)
    return state
