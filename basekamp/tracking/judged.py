"""What compare-models tells trackers: the verdict as tags, the means as metrics, the model and the report."""

import json
from collections.abc import Iterator
from pathlib import Path

from basekamp.errors import BasekampError
from basekamp.records.record import Record
from basekamp.records.shelf import MODEL, REPORT, stem
from basekamp.storage import open_store
from basekamp.tracking.settings import Tracking, is_wandb_offline, read_tracking
from basekamp.tracking.spool import JUDGE, Event, spool_folder, spool_of, spools
from basekamp.tracking.stored import fetch_spools, put_spools
from basekamp.tracking.sync import remove_settled, send_runs
from basekamp.tracking.training import RUN_FILE, begin_event, milliseconds, run_of

SECONDS = 120.0
"""How long the step waits for one tracker."""


def tell_trackers(tracking: str, model: Path, record: Record, *, store: str) -> None:
    """Tell the trackers what became of a training, with all of it that they do not know yet.

    `model` is the folder that `train_model` wrote. What cannot be sent is told, stays in the spool, and with an s3://
    or minio:// store is put there for `basekamp sync`. Never raises for it.
    """
    told = read_tracking(tracking)
    if not told.trackers:
        return
    try:
        named = Tracking(told.trackers, record.experiment, record.attempt)
        run = _run_of_training(model) or run_of(named, record.id)
        spool = spool_of(run, f"{JUDGE}-{record.id}")
        if spool.begin() is None:
            spool.append(*_events(named, run, record, store))
        _send(run, store)
    except (OSError, BasekampError, ValueError) as error:
        print(f"Trackers could not be told of {record.name} ({error}): the record is complete without.", flush=True)


def _send(run: str, store: str) -> None:
    """Send all of a run, with what its training left in the store; what only a disk of this pod would get is not."""
    is_remote = store.startswith(("s3://", "minio://"))
    opened = open_store(store)
    in_store = fetch_spools(opened, spool_folder(), run) if is_remote else {}
    left_out = ("wandb",) if is_remote and is_wandb_offline() else ()
    for delivery in send_runs([run], seconds=SECONDS, left_out=left_out):
        print(delivery.text() + (": `basekamp sync` sends them." if delivery.left else "."), flush=True)
    for key, spool in in_store.items():
        if spool.is_settled:
            opened.delete(key)
    put_spools([spool for spool in spools(run=run) if spool not in in_store.values()], store)
    remove_settled(spools(run=run))


def _run_of_training(model: Path) -> str:
    """The run that the training was, empty for one that was not tracked."""
    try:
        return str(json.loads((model / RUN_FILE).read_bytes())["run"])
    except FileNotFoundError:
        return ""


def _events(tracking: Tracking, run: str, record: Record, store: str) -> Iterator[Event]:
    settings = {**record.params, "seeds": len(record.training.replicates)}
    yield begin_event(tracking, run, settings, {"data": record.data.source})
    comparison = record.comparison
    verdict = comparison.verdict if comparison else record.role
    sentences = [record.hypothesis, comparison.sentence if comparison else ""]
    yield {
        "kind": "result",
        "metrics": record.evaluation.metrics,
        "tags": _tags(record, verdict),
        "labels": [verdict],
        "note": "\n\n".join(sentence for sentence in sentences if sentence),
        "time": milliseconds(),
    }
    for name, extension in (("report.html", REPORT), ("model.pth", MODEL)):
        yield {"kind": "artifact", "name": name, "store": store, "key": stem(record.key) + extension}
    yield {"kind": "end", "status": "FINISHED", "time": milliseconds()}


def _tags(record: Record, verdict: str) -> dict[str, str]:
    """The verdict and what led to it, as texts."""
    tags = {"verdict": verdict, "record": record.name, "record_id": record.id, "device": record.training.device}
    if record.comparison:
        low, high = record.comparison.interval
        tags |= {"difference": f"{record.comparison.difference.value:.6g}", "interval": f"{low:.6g} … {high:.6g}"}
    if record.opening:
        tags["gate"] = "passed" if record.opening.passed else "not passed"
    return tags
