"""What a listing of a store holds, split into columns; that of a large folder is kept.

Kept below `BASEKAMP_HOME`, and used as long as no folder of the store had a name come or go. It is never more than a
copy: what is damaged, of another release or cannot be written is passed over. A file begins with the SHA-256 of the
rest, then come a line of JSON with the folders, and the columns as Arrow.
"""

import hashlib
import io
import json
import time
from contextlib import suppress
from pathlib import Path

import polars as pl

from basekamp import __version__
from basekamp.errors import BasekampError
from basekamp.records.row import RECORD
from basekamp.records.table import split_keys
from basekamp.storage import Store
from basekamp.storage.folder import Folders, FolderStore
from basekamp.storage.protocol import whole_file
from basekamp.work import work_directory

FEWEST_KEPT = 2000
"""Fewer keys are listed as quickly as they are read."""

SETTLED_NS = 5_000_000_000
"""A folder changed more recently may change again within one tick of its clock, which nobody would see."""

_DIGEST_BYTES = hashlib.sha256().digest_size


def read_listing(store: Store, experiment: str | None = None) -> pl.DataFrame:
    """The JSON documents of a store's experiments, or of one, as `split_keys` gives them."""
    wanted = f"{experiment}/" if experiment else "", RECORD
    if not isinstance(store, FolderStore):
        return split_keys([key for key in store.keys(*wanted) if _is_record(key)])
    told = "\n".join([__version__, pl.__version__, store.url, experiment or ""])
    name = hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    kept = _recall(work_directory(make=False) / "listings" / name, store)
    if kept is not None:
        return kept
    begin = time.time_ns()
    keys, folders = store.keys_and_folders(*wanted)
    listing = split_keys([key for key in keys if _is_record(key)])
    if len(keys) >= FEWEST_KEPT and all(changed < begin - SETTLED_NS for changed, _ in folders.values()):
        _keep(work_directory() / "listings" / name, listing, folders)
    return listing


def _is_record(key: str) -> bool:
    return key[0] != "." and key.count("/") > 1


def _keep(path: Path, listing: pl.DataFrame, folders: Folders) -> None:
    arrow = io.BytesIO()
    listing.write_ipc(arrow, compression="zstd", record_batch_size=10_000)  # batches are read at once
    content = json.dumps(folders).encode() + b"\n" + arrow.getvalue()
    with suppress(BasekampError, OSError), whole_file(path, durable=False) as file:
        file.write(hashlib.sha256(content).digest() + content)


def _recall(path: Path, store: FolderStore) -> pl.DataFrame | None:
    """What was kept, where it still holds."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(memoryview(content)[_DIGEST_BYTES:]).digest() != content[:_DIGEST_BYTES]:
        return None
    begin = content.index(b"\n", _DIGEST_BYTES)
    if not store.is_unchanged(json.loads(content[_DIGEST_BYTES:begin])):
        return None
    return pl.read_ipc(content[begin + 1 :])
