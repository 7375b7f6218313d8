"""A new beginning: another baseline for the same experiment, by an immutable mark; what came before stays readable."""

import json

from basekamp.naming import Name, format_name, new_id
from basekamp.records.shelf import Row, Shelf
from basekamp.storage import Store


def rebase(store: Store, shelf: Shelf, row: Row) -> None:
    """Make `row`, a baseline that was recorded beside the pinned one, the baseline of all that follows.

    One write: before it nothing has changed, after it the new lineage has begun.
    """
    assert row.role == "baseline" and shelf.baseline is not None, "only a second baseline takes the place of the first"
    name = Name("rebase", {"of": row.id}, "json", new_id(shelf.next_time(), f"rebase/{row.id}"))
    told = {"of": row.id, "from": shelf.baseline.id}
    store.put(f"{shelf.experiment}/rebases/{format_name(name)}", json.dumps(told).encode())
