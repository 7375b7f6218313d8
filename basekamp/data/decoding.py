"""Whether a Parquet file can be decoded at all, found out by a process that may die of it.

A forged size in a page makes Polars ask for exabytes, and Rust then ends the process, with no error to catch.
"""

import subprocess
import sys
from pathlib import Path

from basekamp.errors import InputError

_DECODE = "import polars, sys; polars.scan_parquet(sys.argv[1], glob=False).select(polars.all().null_count()).collect()"


def check_decodes(path: Path) -> None:
    """Decode every column of a Parquet file once; raises InputError where that ends the process that does it.

    An error that Polars can raise is left to whoever reads the file.
    """
    decoded = subprocess.run([sys.executable, "-c", _DECODE, path.absolute()], capture_output=True)
    if decoded.returncode < 0:
        raise InputError(f"{path.name} is a damaged Parquet file (its decoder died): fetch or write it again.")
