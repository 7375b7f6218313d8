"""Spools in the store: what a step could not send, since a pod's own disk goes with it.

<store>/.tracking/<run>/<part>-<digest>.jsonl     hidden from the leaderboard; removed once every tracker has it
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from basekamp.storage import Store, open_store
from basekamp.tracking.spool import Spool, spool_of

PREFIX = ".tracking"


def put_spools(spools: Iterable[Spool], store: str) -> None:
    """Put what is not sent into a store that is no folder: that would keep no more than this disk does."""
    left = [spool for spool in spools if not spool.is_settled]
    if not left or not store.startswith(("s3://", "minio://")):
        return
    opened = open_store(store)
    for spool in left:
        content = spool.path.read_bytes()
        part = spool.part.partition("+")[0]
        opened.put(f"{PREFIX}/{spool.run}/{part}-{hashlib.sha256(content).hexdigest()[:16]}.jsonl", content)


def fetch_spools(store: Store, folder: Path, run: str = "") -> dict[str, Spool]:
    """Bring the store's spools, or those of one run, beside this machine's own; gives each with its key."""
    found = {}
    for entry in store.entries(f"{PREFIX}/{run}/" if run else f"{PREFIX}/"):
        path = PurePosixPath(entry.key)
        part, _, digest = path.stem.rpartition("-")
        spool = spool_of(path.parts[1], f"{part}+{digest}", folder)
        if not spool.path.exists():
            store.fetch(entry.key, spool.path)
        found[entry.key] = spool
    return found
