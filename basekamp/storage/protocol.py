"""What a store is, and what every kind of store shares: the rules for keys, checksums and whole files."""

import hashlib
import io
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from basekamp.errors import InputError, StoreError
from basekamp.threads import in_threads

BLOCK_BYTES = 1 << 20
BLOCKS_UNHASHED = 4
MAX_KEY_BYTES = 1024  # the limit of S3
MAX_PART_BYTES = 255  # the limit of file systems
PROBE_BYTES = 8 << 20  # less room than this is none

# A part is not empty, '.' or '..' and holds no '/', '\', control character or lone surrogate.
_PART = r"(?!\.{1,2}(?:/|\Z))[^/\\\x00-\x1f\x7f-\x9f\ud800-\udfff]+"
_KEY = re.compile(rf"(?!\.sha256|\.tmp){_PART}(?:/{_PART})*\Z")


class Entry(NamedTuple):
    """One line of a listing; `modified` is in UTC and knows it."""

    key: str
    size_bytes: int
    modified: datetime


class Store(Protocol):
    """Bytes under keys that are written once, checked on every read, and listed in order."""

    url: str

    def put(self, key: str, source: bytes | Path) -> None:
        """Create `key`; the same bytes already there are fine, other bytes are a `KeyExistsError`."""

    def get(self, key: str, *, most_bytes: int | None = None) -> bytes:
        """Read all bytes of `key`, verified.

        Raises:
            InputError: there are more than `most_bytes`; no more than these are read.
            KeyMissingError: nothing lies under the key.
            ChecksumError: the bytes are damaged, or were not written through a store.
        """

    def fetch(self, key: str, path: Path, *, durable: bool = True) -> None:
        """Stream `key` to the file `path`, which appears whole and verified or not at all.

        With `durable=False` this holds until a power cut: nothing waits for the disk. It is for a copy that a
        restart would fetch again.
        """

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """List keys that start with the string `prefix`, sorted by code point; nothing there is no error."""

    def keys(self, prefix: str = "", suffix: str = "") -> list[str]:
        """List the keys alone that start and end so, sorted by code point; of a folder far quicker than `entries`."""

    def delete(self, key: str) -> None:
        """Remove `key`; nothing there is fine."""

    def check(self) -> None:
        """List, write, read back and delete a hidden probe; a `StoreError` says in 5 s what is wrong."""


class BoundedBuffer(io.BytesIO):
    """Bytes in memory that refuse to become more than `most_bytes`."""

    def __init__(self, key: str, most_bytes: int | None) -> None:
        super().__init__()
        self._key, self._most_bytes = key, most_bytes

    def write(self, block: Any, /) -> int:
        """Take a block, or raise InputError."""
        written = super().write(block)
        if self._most_bytes is not None and self.tell() > self._most_bytes:
            raise InputError(f"key {self._key!r} holds more than {self._most_bytes:,} bytes: move the file away.")
        return written


def is_key(text: str) -> bool:
    """Tell whether `text` can be a key in every kind of store."""
    if _KEY.match(text) is None:
        return False
    if len(text) <= MAX_PART_BYTES and text.isascii():  # most keys; a listing asks for each
        return True
    encoded = text.encode()
    return len(encoded) <= MAX_KEY_BYTES and max(map(len, encoded.split(b"/"))) <= MAX_PART_BYTES


def check_key(key: str) -> str:
    """Return `key` when it can be a key in every kind of store, else raise an `InputError`."""
    if not is_key(key):
        raise _not_allowed("key", key)
    return key


def check_prefix(prefix: str) -> str:
    """Return `prefix` when some key could start with it, else raise an `InputError`."""
    if prefix and not is_key(prefix) and not is_key(prefix + "x"):
        raise _not_allowed("prefix", prefix)
    return prefix


def _not_allowed(kind: str, text: str) -> InputError:
    shown = repr(text if len(text) <= 100 else text[:99] + "…")
    return InputError(
        f"{kind} {shown} is not allowed: use parts of 1 to {MAX_PART_BYTES} bytes joined by '/', "
        f"{MAX_KEY_BYTES} bytes in all, without '.' or '..' as a part, backslashes or control characters, "
        "and not starting with '.sha256' or '.tmp'."
    )


@contextmanager
def opened(source: bytes | Path) -> Iterator[BinaryIO]:
    """Open bytes or a regular file for reading; a path that is no readable file is an `InputError`."""
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    if source.exists() and not source.is_file():
        raise InputError(f"{source} is not a regular file: give the path of a file, or bytes.")
    try:
        stream = source.open("rb")
    except OSError as error:
        raise InputError(f"{source} cannot be read ({error.strerror}): give the path of a readable file.") from error
    with stream:
        yield stream


def copy_stream(source: BinaryIO, target: BinaryIO | None = None) -> str:
    """Read `source` to its end, into `target` if there is one; return the SHA-256 as 64 hex digits."""
    return copy_blocks(iter(partial(source.read, BLOCK_BYTES), b""), target)


def copy_blocks(blocks: Iterable[bytes], target: BinaryIO | None = None) -> str:
    """Write `blocks` to `target` if there is one; return their SHA-256 as 64 hex digits.

    The hash, which takes longest, is computed in a thread while the next blocks come.
    """
    digest, blocks = hashlib.sha256(), iter(blocks)

    def written() -> Iterator[Callable[[], None]]:
        for block in blocks:
            if target is not None:
                target.write(block)
            yield partial(digest.update, block)

    for update in islice(written(), 1):  # what is small needs no thread
        update()
    for _ in in_threads(written(), 1, waiting=BLOCKS_UNHASHED):
        pass
    return digest.hexdigest()


def flush_to_disk(stream: BinaryIO) -> None:
    """Return once what was written to an open file survives a power cut."""
    stream.flush()
    os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Return once names that appeared or vanished in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_probe(path: Path) -> None:
    """Write a new file of `PROBE_BYTES`; raises OSError where there is no room for it."""
    with path.open("xb") as stream:
        stream.write(bytes(PROBE_BYTES))
        flush_to_disk(stream)


@contextmanager
def whole_file(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` at the end of a block without an error, never in part.

    With `durable` also after a power cut; that takes as long as the disk does.

    Raises:
        StoreError: the file system refuses; the message names the path.
    """
    hidden = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with hidden.open("xb") as stream:
            yield stream
            if durable:
                flush_to_disk(stream)
        os.replace(hidden, path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written ({error.strerror or error}): "
            "choose a path below a folder with free space that can be written."
        ) from error
    finally:
        with suppress(OSError):
            hidden.unlink()


def write_whole(path: Path, text: str) -> None:
    """Write `text` as UTF-8 in place of `path`, whole or not at all; raises StoreError, which names the path."""
    with whole_file(path) as stream:
        stream.write(text.encode())
