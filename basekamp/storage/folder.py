"""A store in a folder: every key is a file, its SHA-256 is a line in a file beside it.

<root>/<key>            the bytes, made visible in one step by a hard link
<root>/.sha256/<key>    one line per digest ever announced for the key: the digest, two spaces, the key
<root>/.tmp/            files being written; a writer that was killed leaves its file here for a day

A writer announces the digest first and links the file after it, so a file that a store wrote is never
without its checksum, and a link fails where a file exists, so of two writers one wins. `delete` keeps the
announced digests: another writer may be between its announcement and its link.
"""

import errno
import os
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO

from basekamp.errors import ChecksumError, KeyExistsError, KeyMissingError, StoreError
from basekamp.storage.protocol import (
    MAX_PART_BYTES,
    PROBE_BYTES,
    BoundedBuffer,
    Entry,
    check_key,
    check_prefix,
    copy_stream,
    flush_to_disk,
    is_key,
    opened,
    sync_folder,
    whole_file,
    write_probe,
)

_STRAY_SECONDS = 24 * 3600
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


Folders = dict[str, tuple[int, int]]
"""Folders of a store, by what keys in them begin with: when a name last came or went there (ns), and the inode."""


class FolderStore:
    """A store below the folder `root`, which appears at the first write."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self.url = str(self._root)
        self._sweep()

    def put(self, key: str, source: bytes | Path) -> None:
        """Create `key`; the same bytes already there are fine, other bytes are a `KeyExistsError`."""
        check_key(key)
        with opened(source) as stream, self._writing(repr(key)), self._temporary() as temporary:
            with temporary.open("xb") as target:
                digest = copy_stream(stream, target)
                flush_to_disk(target)
            if not self._link(temporary, key, digest):
                self._require_same(key, digest)

    def get(self, key: str, *, most_bytes: int | None = None) -> bytes:
        """Read all bytes of `key`, verified; more than `most_bytes` are an `InputError`."""
        content = BoundedBuffer(key, most_bytes)
        with self._open(key) as stream:
            self._require_announced(key, copy_stream(stream, content))
        return content.getvalue()

    def fetch(self, key: str, path: Path, *, durable: bool = True) -> None:
        """Stream `key` to the file `path`, which appears whole and verified or not at all."""
        with self._open(key) as stream, whole_file(path, durable=durable) as target:
            self._require_announced(key, copy_stream(stream, target))

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """List keys that start with the string `prefix`, sorted, also those without a checksum."""
        folder, slash, _ = check_prefix(prefix).rpartition("/")
        return self._scan(folder + slash, prefix)

    def keys(self, prefix: str = "", suffix: str = "") -> list[str]:
        """The keys alone that start and end so, sorted: no file is looked at, only the names in their folders."""
        folder, slash, _ = check_prefix(prefix).rpartition("/")
        return sorted(self._names(folder + slash, prefix, suffix))

    def keys_and_folders(self, prefix: str, suffix: str) -> tuple[list[str], Folders]:
        """What `keys` gives, and the state that each folder was in before it was read."""
        folder, slash, _ = check_prefix(prefix).rpartition("/")
        folders: Folders = {}
        return sorted(self._names(folder + slash, prefix, suffix, folders)), folders

    def is_unchanged(self, folders: Folders) -> bool:
        """Whether each folder is in that state still: no name came or went."""
        try:
            return all(self._state(folder) == tuple(state) for folder, state in folders.items())
        except OSError:
            return False

    def delete(self, key: str) -> None:
        """Remove `key`; nothing there is fine."""
        path = self._root / check_key(key)
        with self._writing(repr(key)), suppress(*_ABSENT):
            path.unlink()
            sync_folder(path.parent)

    def check(self) -> None:
        """List, write, read back and delete a hidden probe of 8 MiB; creates the folder if it is missing."""
        next(self.entries(), None)
        with self._writing("a probe"), self._temporary() as one, self._temporary() as two:
            write_probe(one)
            self._hard_link(one, two)
            if two.read_bytes() != bytes(PROBE_BYTES):
                raise StoreError(f"store {self.url} does not read back what was written: use another folder.")

    def _link(self, temporary: Path, key: str, digest: str) -> bool:
        """Announce the digest and make the file visible; False when the key was there before."""
        path = self._root / key
        if os.path.lexists(path):
            return False
        self._announce(key, digest)
        _make_folders(path.parent)
        try:
            self._hard_link(temporary, path)
        except FileExistsError:
            return False
        sync_folder(path.parent)
        return True

    def _hard_link(self, source: Path, target: Path) -> None:
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            raise StoreError(
                f"the file system of store {self.url} has no hard links, which keep two writers apart: "
                "use a folder on a local disk or NFS, or an s3:// store."
            ) from error

    def _require_same(self, key: str, digest: str) -> None:
        path = self._root / key
        if path.is_dir():
            raise StoreError(f"key {key!r} is a folder in store {self.url}: choose another key.")
        with path.open("rb") as stream:
            held = copy_stream(stream)
        announced = self._announced(key)
        if held == digest:
            if digest not in announced:
                self._announce(key, digest)
            return
        if announced and held not in announced:
            raise ChecksumError(self._damaged(key))
        raise KeyExistsError(
            f"key {key!r} in store {self.url} already holds other bytes and is never overwritten: choose another key."
        )

    def _announce(self, key: str, digest: str) -> None:
        path = self._root / ".sha256" / key
        _make_folders(path.parent)
        with path.open("ab") as stream:
            # A line torn by a power cut is ended first, so that it cannot spoil this one.
            stream.write(b"\n" * (not self._ends_with_newline(path)) + f"{digest}  {key}\n".encode())
            flush_to_disk(stream)
        sync_folder(path.parent)

    @staticmethod
    def _ends_with_newline(path: Path) -> bool:
        return path.read_bytes()[-1:] in (b"", b"\n")

    def _announced(self, key: str) -> set[str]:
        try:
            lines = (self._root / ".sha256" / key).read_bytes().splitlines()
        except _ABSENT:
            return set()
        return {line.partition(b" ")[0].decode("ascii", "replace") for line in lines}

    def _require_announced(self, key: str, digest: str) -> None:
        announced = self._announced(key)
        if not announced:
            raise ChecksumError(
                f"key {key!r} in store {self.url} has no checksum, so basekamp did not write it: "
                "put the same bytes again to vouch for them."
            )
        if digest not in announced:
            raise ChecksumError(self._damaged(key))

    def _damaged(self, key: str) -> str:
        return (
            f"key {key!r} in store {self.url} is damaged: its SHA-256 is not the one that was written; "
            "delete it and put it again from a good copy."
        )

    @contextmanager
    def _open(self, key: str) -> Iterator[BinaryIO]:
        try:
            stream = (self._root / check_key(key)).open("rb")
        except _ABSENT as error:
            raise KeyMissingError(
                f"nothing lies under key {key!r} in store {self.url}: list the store to see its keys."
            ) from error
        except OSError as error:
            raise self._refused("read", repr(key), error) from error
        with stream:
            yield stream

    def _scan(self, folder: str, prefix: str) -> Iterator[Entry]:
        """Walk `folder` ('' or ending with '/') in key order: a folder sorts as its name and a '/'."""
        found = self._children(folder)
        named = [(each.name + "/" if each.is_dir(follow_symlinks=False) else each.name, each) for each in found]
        for name, child in sorted(named, key=itemgetter(0)):
            key = folder + name
            if name[-1] == "/":
                if is_key(key[:-1]) and (key.startswith(prefix) or prefix.startswith(key)):
                    yield from self._scan(key, prefix)
            elif key.startswith(prefix) and is_key(key):
                try:
                    status = child.stat(follow_symlinks=False)
                except FileNotFoundError:  # deleted since
                    continue
                if stat.S_ISREG(status.st_mode):
                    yield Entry(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))

    def _state(self, folder: str) -> tuple[int, int]:
        status = os.stat(self._root / folder)
        return max(status.st_mtime_ns, status.st_ctime_ns), status.st_ino  # the former can be set back

    def _names(self, folder: str, prefix: str, suffix: str, folders: Folders | None = None) -> Iterator[str]:
        """What `_scan` finds, in any order."""
        below = []
        if folders is not None:
            with suppress(OSError):
                folders[folder] = self._state(folder)
        for child in self._children(folder):
            name = child.name
            key = folder + name
            if child.is_dir(follow_symlinks=False):
                if is_key(key) and (f"{key}/".startswith(prefix) or prefix.startswith(f"{key}/")):
                    below.append(f"{key}/")
            elif key.endswith(suffix) and key.startswith(prefix) and child.is_file(follow_symlinks=False):
                # Below a folder that is a key, most names need no closer look to be one.
                plain = folder and len(key) <= MAX_PART_BYTES and name.isascii() and name.isprintable()
                if (plain and "\\" not in name) or is_key(key):
                    yield key
        for key in below:
            yield from self._names(key, prefix, suffix, folders)

    def _children(self, folder: str) -> "list[os.DirEntry[str]]":
        """What lies in a folder; nothing when it is gone, or is a file, below which no key lies."""
        try:
            with os.scandir(self._root / folder) as found:
                return list(found)
        except FileNotFoundError:
            return []
        except OSError as error:
            if folder and isinstance(error, NotADirectoryError):
                return []
            raise self._refused("list", repr(folder), error) from error

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        try:
            yield
        except (FileExistsError, NotADirectoryError) as error:
            raise StoreError(
                f"cannot write {what} in store {self.url}: the file {error.filename} is in the way; "
                "choose another folder or key, or move the file."
            ) from error
        except OSError as error:
            raise self._refused("write", what, error) from error

    def _refused(self, verb: str, what: str, error: OSError) -> StoreError:
        where = f" at {error.filename}" if error.filename else ""
        return StoreError(
            f"cannot {verb} {what} in store {self.url} ({error.strerror}{where}): "
            "choose a folder with free space that can be read and written, or an s3:// store."
        )

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        path = self._root / ".tmp" / uuid.uuid4().hex
        _make_folders(path.parent)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what killed writers left more than a day ago; never fails."""
        oldest = time.time() - _STRAY_SECONDS
        with suppress(OSError), os.scandir(self._root / ".tmp") as found:
            for each in found:
                if each.stat().st_mtime < oldest:
                    os.unlink(each)


def _make_folders(folder: Path) -> None:
    """Create `folder` and what is missing above it, so that the names survive a power cut."""
    if not folder.is_dir():
        _make_folders(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)
