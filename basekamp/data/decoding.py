"""Whether Parquet files can be decoded at all, found out by a process that may die of it.

A forged size in a page makes Polars ask for exabytes, and Rust then ends the process, with no error to catch.
"""

import subprocess
import sys
from pathlib import Path

from basekamp.errors import InputError

MOST_BYTES = 256 << 20
"""More would be decoded for longer than it takes to see the training's own process die of it."""

_DECODE = """
import polars, sys
for path in sys.argv[1:]:
    try:
        polars.scan_parquet(path, glob=False).select(polars.all().null_count()).collect()
    except Exception:
        pass
"""


def check_decode(files: list[Path]) -> None:
    """Decode every column once; raises InputError where that ends the process that does it.

    An error that Polars can raise is left to whoever reads the file.
    """
    small = [path for path in files if path.stat().st_size <= MOST_BYTES]
    if small and _dies(small):
        path = next((path for path in small if _dies([path])), small[0])
        raise InputError(f"{path.name} is a damaged Parquet file (its decoder died): fetch or write it again.")


def _dies(files: list[Path]) -> bool:
    paths = [str(path.absolute()) for path in files]
    return subprocess.run([sys.executable, "-c", _DECODE, *paths], capture_output=True).returncode < 0
