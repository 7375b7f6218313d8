"""Checkpoints that a kill cannot break: written whole or not at all, checked when read, the newest two kept.

<work folder>/checkpoints/<key>/<number>.pt     SHA-256 of the rest, then tensors and plain values
<store>/.checkpoints/<key>/<number>.pt          the same, where a store is given, for a pod on another node
"""

import hashlib
import io
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from basekamp.errors import StoreError
from basekamp.storage import Store
from basekamp.training.archive import load_archive
from basekamp.training.files import replace_file
from basekamp.work import work_directory

KEPT = 2
_DIGEST_BYTES = 32

State = dict[str, Any]


class Checkpoints:
    """The checkpoints of one training: the same `key` finds them again, in whichever process or pod.

    home: the work folder; by default the process's own.
    """

    def __init__(self, key: str, store: Store | None = None, *, home: Path | None = None) -> None:
        self.folder = (home or work_directory()) / "checkpoints" / key
        self.store, self.prefix = store, f".checkpoints/{key}/"
        self.number = 0

    def read(self, device: torch.device) -> State | None:
        """Read the newest one that is whole; None when there is none, and the training starts afresh.

        A damaged one is told, kept beside the others under the extension `.damaged`, and the one before it is used.
        Raises StoreError when the store cannot be listed.
        """
        self._sweep()
        here, there = self._local_numbers(), self._stored_numbers()
        self.number = max([*here, *there], default=0)
        for number in sorted({*here, *there}, reverse=True):
            try:
                return self._loaded(number, device, is_here=number in here)
            except (OSError, ValueError, StoreError) as error:
                path = self._path(number)
                if number in here and path.is_file():
                    path = path.replace(path.with_suffix(".damaged"))
                print(f"The checkpoint {path} cannot be used ({error}): the one before it is tried.", flush=True)
        return None

    def write(self, state: State) -> Path:
        """Write the next one on this disk, then remove those before the last two. Raises OSError."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.number += 1
        path = self._path(self.number)
        replace_file(path, hashlib.sha256(buffer.getbuffer()).digest(), buffer.getbuffer())
        for number in self._local_numbers()[:-KEPT]:
            self._path(number).unlink(missing_ok=True)
        return path

    def upload(self, path: Path) -> None:
        """Bring one that was written to the store, then remove those before the last two. Raises StoreError."""
        if self.store is None:
            return
        self.store.put(f"{self.prefix}{path.name}", path)
        for number in self._stored_numbers()[:-KEPT]:
            self._delete_stored(number)

    def remove(self) -> None:
        """Remove all of them, once the results are written. Raises OSError, StoreError."""
        for number in self._local_numbers():
            self._path(number).unlink(missing_ok=True)
        self._sweep()
        with suppress(OSError):  # a damaged one stays there
            self.folder.rmdir()
        for number in self._stored_numbers():
            self._delete_stored(number)

    def _loaded(self, number: int, device: torch.device, *, is_here: bool) -> State:
        """Raises OSError, StoreError, or ValueError for one that is damaged."""
        path = self._path(number)
        data = memoryview(path.read_bytes() if is_here or self.store is None else self.store.get(self._key(number)))
        if hashlib.sha256(data[_DIGEST_BYTES:]).digest() != data[:_DIGEST_BYTES]:
            raise ValueError("it is damaged")
        state: State = load_archive(io.BytesIO(data[_DIGEST_BYTES:]), device)
        return state

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.pt"

    def _key(self, number: int) -> str:
        return f"{self.prefix}{number:08d}.pt"

    def _local_numbers(self) -> list[int]:
        return sorted(int(path.stem) for path in self.folder.glob("*.pt") if path.stem.isdecimal())

    def _stored_numbers(self) -> list[int]:
        if self.store is None:
            return []
        names = (entry.key.removeprefix(self.prefix).removesuffix(".pt") for entry in self.store.entries(self.prefix))
        return sorted(int(name) for name in names if name.isdecimal())

    def _delete_stored(self, number: int) -> None:
        if self.store is not None:
            self.store.delete(self._key(number))

    def _sweep(self) -> None:
        """Remove what a kill left half written."""
        for leftover in self.folder.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)
