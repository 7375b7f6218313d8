"""End a sweep: choose the winner and write the report of all trials."""

import json
from collections.abc import Sequence
from pathlib import Path

from basekamp.records.shelf import read_record, read_shelf
from basekamp.report.sweep import sweep_html
from basekamp.storage import open_store
from basekamp.storage.protocol import write_whole
from basekamp.sweeps.outcome import read_outcome
from basekamp.sweeps.rounds import Pack
from basekamp.sweeps.shelf import SweepShelf


def conclude_sweep(done: Sequence[str], *, experiment: str, store: str, html: Path) -> str:
    """Choose the winner, and write the report of all trials; gives every setting of the winner as JSON.

    done: the names of the packs of the last round. The report goes into the store too. Raises InputError when every
    trial diverged.
    """
    opened = open_store(store)
    shelf = SweepShelf(opened, experiment, Pack.named(done[0]).sweep_id)
    pinned = read_shelf(opened, experiment).baseline
    assert pinned is not None, "no round is planned without a baseline"
    rounds = shelf.rounds()
    outcome = read_outcome(shelf, rounds, read_record(opened, pinned))
    page = sweep_html(outcome)
    write_whole(html, page)
    shelf.put_report(page.encode())
    return json.dumps(rounds[0].hyperparameters(outcome.choices[outcome.winner.number]).model_dump())
