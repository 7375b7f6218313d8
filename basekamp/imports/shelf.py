"""Where old results lie in a store, and how they come there: all of an import at once, or none of it.

<experiment>/imported/<batch>/<name>.json      one result each; its name alone puts it on the leaderboard
<experiment>/imported/<batch>/complete.json    written last: without it the batch is not there

A name holds the settings, then `from` (what the source calls it), then the metrics, the deciding one last.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from basekamp.attempt import is_name
from basekamp.document import Strict
from basekamp.errors import InputError
from basekamp.evaluation.goals import METRICS
from basekamp.imports.result import Found, Reading, Result, read_result
from basekamp.naming import MAX_BYTES, Name, Value, format_name, new_id, parse_name
from basekamp.records.record import significant
from basekamp.records.shelf import COMPLETE, FROM, IMPORTED, read_shelf
from basekamp.storage import Store

LONGEST_ATTEMPT = 60
NO_TIME = datetime(2020, 1, 1, tzinfo=UTC)
"""What an id says of a result whose source tells no time, or one that no id can hold."""


class Imported(Strict):
    """One old result, whole: what the source told, and where it told it. It has no replicates and no verdict."""

    version: Literal[1] = 1
    role: Literal["imported"] = "imported"
    id: str
    name: str
    experiment: str
    attempt: str
    source: str
    original: str
    created: datetime | None
    metric: str
    params: dict[str, Value]
    metrics: dict[str, float]
    told: dict[str, str]


@dataclass(frozen=True)
class Outcome:
    """What an import came to. left_out: a sentence for each result that could not be read."""

    imported: tuple[str, ...]
    num_known: int
    left_out: tuple[str, ...]


def import_results(
    store: Store, found: Iterable[Found | InputError], *, experiment: str, source: str, reading: Reading
) -> Outcome:
    """Put old results into the store; those that are there already stay as they are.

    A kill leaves the store's leaderboard as before. Raises InputError for a name that is none, or a source that cannot
    be read, StoreError when the store fails.
    """
    if not is_name(experiment):
        raise InputError(f"experiment={experiment!r} is not allowed: use a-z, 0-9, _ and -, as in a file.")
    left_out: list[str] = []
    results = list(_imported(found, experiment, source, reading, left_out))
    known = {row.id for row in read_shelf(store, experiment).imported}
    new = [result for result in results if result.id not in known]
    if new:
        _put(store, new)
    return Outcome(tuple(result.name for result in new), len(results) - len(new), tuple(left_out))


def _put(store: Store, results: Sequence[Imported]) -> None:
    ids = sorted(result.id for result in results)
    batch = hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]
    prefix = f"{results[0].experiment}/{IMPORTED}/{batch}"
    for result in results:
        store.put(f"{prefix}/{result.name}", result.model_dump_json(indent=1).encode())
    store.put(f"{prefix}/{COMPLETE}", json.dumps({"results": len(results)}).encode())


def _imported(
    found: Iterable[Found | InputError], experiment: str, source: str, reading: Reading, left_out: list[str]
) -> Iterator[Imported]:
    """Each result that can be listed; why another cannot goes to `left_out`."""
    seen: dict[str, int] = {}
    for one in found:
        if isinstance(one, InputError):
            left_out.append(str(one))
            continue
        try:
            result = read_result(one, reading)
            content = json.dumps([one.original, result.attempt, result.params, result.metrics], sort_keys=True)
            seen[content] = seen.get(content, 0) + 1
            yield _one(result, experiment, source, reading.metric, f"{content}/{seen[content]}")
        except InputError as error:
            left_out.append(f"{one.place}: {str(error).rstrip('.')}.")


def _one(result: Result, experiment: str, source: str, metric: str, content: str) -> Imported:
    """One result as it is stored. The same content gives the same id, whenever and wherever from it is imported."""
    result_id = _id(result.found.created, f"{experiment}/{content}")
    return Imported(
        id=result_id,
        name=_name(result, metric, result_id),
        experiment=experiment,
        attempt=result.attempt,
        source=source,
        original=result.found.original,
        created=result.found.created,
        metric=metric,
        params=result.params,
        metrics=result.metrics,
        told=result.told | {"place": result.found.place},
    )


def _id(created: datetime | None, content: str) -> str:
    try:
        return new_id(created or NO_TIME, content)
    except InputError:
        return new_id(NO_TIME, content)


def _name(result: Result, metric: str, result_id: str) -> str:
    """The name; settings that it cannot hold are left to the JSON."""
    params = {key: value for key, value in result.params.items() if key != "model" and _fits(key, value)}
    metrics = {key: significant(result.metrics[key]) for key in METRICS if key in result.metrics and key != metric}
    results: dict[str, Value] = {FROM: result.attempt[:LONGEST_ATTEMPT], **metrics}
    results[metric] = significant(result.metrics[metric])
    cut = len(result.params) - 1 - len(params)
    name = Name(str(result.params["model"]), params | results, "json", result_id, cut)
    text = format_name(name, first=tuple(results))
    if not parse_name(text).fields.keys() >= results.keys():
        raise InputError(f"model={name.model[:MAX_BYTES]!r} is too long for a name: map it to a shorter one")
    return text


def _fits(key: str, value: Value) -> bool:
    """Whether a name can hold the setting under this key."""
    try:
        format_name(Name("model", {key: value}))
    except InputError:
        return False
    return key not in METRICS and key != FROM
