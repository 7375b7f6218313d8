"""One run of W&B's, from the `.wandb` file that it leaves whether or not it is ever synchronised."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from basekamp.imports.result import Found, UnreadableError

NANOSECONDS = 1_000_000_000
_INTERNAL = "_"


def read_wandb_file(path: Path, place: str) -> Found:
    """The run's name, its settings and its summary; raises UnreadableError for a file that is damaged or no run."""
    from wandb.proto.wandb_internal_pb2 import Record
    from wandb.sdk.internal.datastore import DataStore

    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    run: Any = None
    try:
        store = DataStore()
        store.open_for_scan(str(path))
        while (data := store.scan_data()) is not None:
            record = Record()
            record.ParseFromString(data)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                run = record.run
                _update(config, run.config)
                _update(summary, run.summary)
            elif kind in ("config", "summary"):
                _update(config if kind == "config" else summary, getattr(record, kind))
            elif kind == "history":
                summary |= {
                    item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
                }
    except Exception as error:  # W&B's reader raises assertions as well
        raise UnreadableError(f"{path.name} is damaged ({' '.join(str(error).split())[:100]})") from error
    if run is None:
        raise UnreadableError(f"{path.name} holds no run")
    return _found(run, place, config, summary)


def _update(values: dict[str, Any], change: Any) -> None:
    for item in change.update:
        values[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)


def _found(run: Any, place: str, config: dict[str, Any], summary: dict[str, Any]) -> Found:
    started = run.start_time.seconds + run.start_time.nanos / NANOSECONDS
    plain = {key: value for key, value in {**config, **summary}.items() if _is_plain(key, value)}
    created = datetime.fromtimestamp(started, UTC) if started else None
    return Found(place, run.run_id, plain, run.display_name, created, {"project": run.project})


def _is_plain(key: str, value: object) -> bool:
    """Whether it is one value of the user's own; W&B's begin with an underscore."""
    return not key.startswith(_INTERNAL) and isinstance(value, bool | int | float | str)
