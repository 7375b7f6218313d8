"""What the report of an experiment is made from, read with as few looks into the store as it needs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from basekamp.errors import InputError
from basekamp.records.labbook import read_hypotheses
from basekamp.records.leaderboard import best_first
from basekamp.records.record import Record
from basekamp.records.shelf import Row, Shelf, read_record, read_shelf
from basekamp.storage import Store

MOST_ROWS, MOST_CURVES = 500, 5


@dataclass(frozen=True)
class Story:
    """An experiment as one page tells it.

    rows: the baseline, then the best first, at most 500. champion: the baseline's record where nothing was better.
    curves: the records of the baseline and of the best five attempts. hypotheses: by the row's id.
    """

    shelf: Shelf
    rows: list[Row]
    baseline: Record
    champion: Record
    curves: list[Record]
    hypotheses: Mapping[str, str]


def read_story(store: Store, experiment: str) -> Story:
    """Read the listing, the records that are shown whole, and the hypotheses of the rows that are listed.

    Raises InputError when the experiment has no baseline.
    """
    shelf = read_shelf(store, experiment)
    pinned, champion = shelf.baseline, shelf.champion
    if pinned is None or champion is None:
        raise InputError(f"{experiment} has no baseline in {store.url}: make one with `basekamp run FILE`.")
    rows = [pinned, *(row for row in best_first(shelf.rows) if row != pinned)][:MOST_ROWS]
    attempts = [row for row in rows[1:] if math.isfinite(row.value)]
    needed = {row.id: row for row in (pinned, champion, *attempts[:MOST_CURVES])}
    shown = {record_id: read_record(store, row) for record_id, row in needed.items()}
    return Story(
        shelf,
        rows,
        baseline=shown[pinned.id],
        champion=shown[champion.id],
        curves=[shown[row.id] for row in (pinned, *attempts[:MOST_CURVES])],
        hypotheses=read_hypotheses(store, rows),
    )
