"""A new beginning: another baseline for the same experiment, by an immutable mark; what came before stays readable."""

import json
from datetime import UTC, datetime, timedelta

from basekamp.naming import Name, format_name, id_time, new_id
from basekamp.records.shelf import Row, Shelf
from basekamp.storage import Store


def rebase(store: Store, shelf: Shelf, row: Row) -> None:
    """Make `row`, a baseline that was recorded beside the pinned one, the baseline of all that follows.

    One write: before it nothing has changed, after it the new lineage has begun.
    """
    assert row.role == "baseline" and shelf.baseline is not None, "only a second baseline takes the place of the first"
    latest = max(id_time(one.id) for one in (*shelf.every, row))
    when = max(datetime.now(UTC), latest + timedelta(seconds=1))
    name = Name("rebase", {"of": row.id}, "json", new_id(when, f"rebase/{row.id}"))
    told = {"of": row.id, "from": shelf.baseline.id}
    store.put(f"{shelf.experiment}/rebases/{format_name(name)}", json.dumps(told).encode())
