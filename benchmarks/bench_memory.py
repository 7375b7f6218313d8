"""A table five times as large as the memory a process may have, prepared under a capped address space.

    python -m benchmarks.bench_memory [--limit 1300] [--times 5] [--columns 200]

The table is a CSV of random numbers. The process that prepares it may map `--limit` MiB in all (RLIMIT_AS), Python and
the libraries, about 800 MiB of addresses, included; glibc is told to keep one arena, for each other one reserves
64 MiB that nobody uses, and OpenBLAS to keep one buffer, for where it gets none it waits for ever. What is held grows
with the rows, by about 100 bytes for each, so that the widest tables gain most; a row here has 4 kB.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import machine, write

ROWS_AT_ONCE = 2000


def write_numbers(path: Path, *, mib: int, columns: int) -> int:
    """Write a CSV of at least so many MiB, its target the sign of the first column; gives the number of rows.

    The first two columns differ from row to row; of the others 2,000 rows come again, which is much faster to write.
    """
    chance, rows = np.random.default_rng(0), 0
    again = [",".join(map(repr, row)) for row in chance.normal(size=(ROWS_AT_ONCE, columns - 2)).tolist()]
    with path.open("w") as file:
        file.write(",".join([*(f"x{i}" for i in range(columns)), "y"]) + "\n")
        while file.tell() < mib << 20:
            fresh = chance.normal(size=(ROWS_AT_ONCE, 2)).tolist()
            file.writelines(f"{a!r},{b!r},{rest},{int(a > 0)}\n" for (a, b), rest in zip(fresh, again, strict=True))
            rows += ROWS_AT_ONCE
    return rows


def prepare(source: Path, folder: Path, *, limit: int) -> dict[str, Any]:
    """Prepare within so many MiB of addresses."""
    from basekamp.data.prepare import prepare_data
    from basekamp.experiment import DataSettings

    resource.setrlimit(resource.RLIMIT_AS, (limit << 20, limit << 20))
    begin = time.perf_counter()
    data = prepare_data(DataSettings(source=str(source), target="y"), folder)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peaks = {name: int(status[key].split()[0]) >> 10 for name, key in (("mapped", "VmPeak"), ("resident", "VmHWM"))}
    return {"seconds": time.perf_counter() - begin, "peak_mib": peaks, "rows": data.schema.rows}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--limit", type=int, default=1300, help="MiB")
    parser.add_argument("--times", type=float, default=5)
    parser.add_argument("--columns", type=int, default=200)
    parser.add_argument("--one", nargs=2, metavar=("SOURCE", "FOLDER"))
    given = parser.parse_args()
    if given.one:
        print(json.dumps(prepare(Path(given.one[0]), Path(given.one[1]), limit=given.limit)))
        return
    with tempfile.TemporaryDirectory(prefix="bench-memory-") as folder:
        source = Path(folder) / "numbers.csv"
        rows = write_numbers(source, mib=int(given.limit * given.times), columns=given.columns)
        size = source.stat().st_size
        command = [sys.executable, "-m", "benchmarks.bench_memory", "--limit", str(given.limit), "--one", str(source)]
        environment = {**os.environ, "MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1"}
        done = subprocess.run([*command, str(Path(folder) / "data")], capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"it did not pass: {done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    shape = {"bytes": size, "rows": rows, "columns": given.columns, "limit_mib": given.limit}
    write("bench_memory", {"machine": machine("polars", "numpy", "scikit-learn"), **shape, **found})
    print(f"{size / 2**20:,.0f} MiB in {given.limit} MiB: {found['seconds']:.0f} s, {found['peak_mib']} MiB at most")


if __name__ == "__main__":
    main()
