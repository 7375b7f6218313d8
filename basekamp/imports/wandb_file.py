"""One run of W&B's, from the `.wandb` file that it leaves whether or not it is ever synchronised.

A file is a header of 7 bytes and blocks of 32 KiB; in these lie records in fragments, each with a checksum, as in
LevelDB's log. A record is a protocol buffer, which W&B's own package reads.
"""

import json
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from basekamp.imports.result import Found, UnreadableError

MAGIC = b":W&B\xe1\xbe"
BLOCK_BYTES, HEADER_BYTES = 32768, 7
WHOLE, FIRST, LAST = 1, 2, 4

NANOSECONDS = 1_000_000_000
_INTERNAL = "_"


def read_wandb_file(path: Path, place: str) -> Found:
    """The run's name, its settings and its summary; raises UnreadableError for a file that is damaged or no run."""
    from wandb.proto.wandb_internal_pb2 import Record

    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    run: Any = None
    for data in _records(path.read_bytes()):
        record = Record.FromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            _update(config, run.config.update)
            _update(summary, run.summary.update)
        elif kind == "config":
            _update(config, record.config.update)
        elif kind == "summary":
            _update(summary, record.summary.update)
        elif kind == "history":
            _update(summary, record.history.item)
    if run is None:
        raise UnreadableError("it holds no run.")
    return _found(run, place, config, summary)


def _records(content: bytes) -> Iterator[bytes]:
    """The whole records; what a killed process left of the last one is not there."""
    if content[: len(MAGIC)] != MAGIC:
        raise UnreadableError("its .wandb file is damaged: the header is missing.")
    at, record = HEADER_BYTES, b""
    while at + HEADER_BYTES <= len(content):
        left = BLOCK_BYTES - at % BLOCK_BYTES
        if left < HEADER_BYTES:
            at += left
            continue
        checksum, size = (int.from_bytes(content[at + a : at + b], "little") for a, b in ((0, 4), (4, 6)))
        kind, data = content[at + 6], content[at + HEADER_BYTES : at + HEADER_BYTES + size]
        if len(data) < size:
            return
        if zlib.crc32(data, zlib.crc32(bytes([kind]))) != checksum:
            raise UnreadableError(f"its .wandb file is damaged: a checksum is wrong at byte {at}.")
        at += HEADER_BYTES + size
        record = data if kind in (WHOLE, FIRST) else record + data
        if kind in (WHOLE, LAST):
            yield record


def _update(values: dict[str, Any], items: Any) -> None:
    for item in items:
        values[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)


def _found(run: Any, place: str, config: dict[str, Any], summary: dict[str, Any]) -> Found:
    started = run.start_time.seconds + run.start_time.nanos / NANOSECONDS
    created = datetime.fromtimestamp(started, UTC) if started else None
    named, told = (place, run.run_id), {"project": run.project}
    return Found(*named, _plain(config), run.display_name, created, told, _plain(summary))


def _plain(values: dict[str, Any]) -> dict[str, bool | int | float | str]:
    """The user's own single values; W&B's begin with an underscore."""
    kept = {key: value for key, value in values.items() if not key.startswith(_INTERNAL)}
    return {key: value for key, value in kept.items() if isinstance(value, bool | int | float | str)}
