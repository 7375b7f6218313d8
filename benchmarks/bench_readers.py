"""What pandas, Polars, PyArrow, DuckDB and basekamp make of files that are broken, and of odd ones that are not.

    python -m benchmarks.bench_readers

pandas, PyArrow and DuckDB are no dependencies: use an environment of their own, with
`pip install -e ".[dev]" pandas==3.1.1 pyarrow duckdb==2.0.1`.

The files are those of the tests. Each reader is called as its documentation begins, with no options. A broken file is
refused, or read without a word: what then stands in the table is not what stands in the file, or is a guess. An odd
file is exact when each value is the written one, as a number, a time or a text, and missing only where it is empty or
NA; otherwise it is altered, or refused.
"""

import math
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.measure import machine, table, write
from tests.malformed_files import Odd, broken_csvs, broken_parquets, odd_csvs

Columns = dict[str, list[Any]]


def basekamp(path: Path) -> Columns:
    """Read with basekamp."""
    from basekamp.data.sources import read_source

    return read_source(str(path)).to_dict(as_series=False)  # type: ignore[union-attr]


def pandas(path: Path) -> Columns:
    """Read with pandas."""
    import pandas as pd

    if path.suffix == ".parquet":
        pd.read_parquet(path)
        return {}
    frame = pd.read_csv(path)
    return {str(name): frame[name].tolist() for name in frame}


def polars(path: Path) -> Columns:
    """Read with Polars."""
    import polars as pl

    if path.suffix == ".parquet":
        pl.read_parquet(path)
        return {}
    return pl.read_csv(path).to_dict(as_series=False)


def pyarrow(path: Path) -> Columns:
    """Read with PyArrow."""
    from pyarrow import csv, parquet

    if path.suffix == ".parquet":
        parquet.read_table(path)
        return {}
    found: Columns = csv.read_csv(path).to_pydict()
    return found


def duckdb(path: Path) -> Columns:
    """Read with DuckDB."""
    import duckdb as duck

    if path.suffix == ".parquet":
        duck.read_parquet(str(path)).arrow()
        return {}
    found = duck.read_csv(str(path))
    return dict(zip(found.columns, map(list, zip(*found.fetchall(), strict=True)), strict=False))


# A broken Parquet file need only be read: one of them declares more rows than fit into memory as Python's objects.
READERS: dict[str, Callable[[Path], Columns]] = {
    each.__name__: each for each in (basekamp, pandas, polars, pyarrow, duckdb)
}


def is_written(found: Any, value: Any) -> bool:
    """Whether a value that was read is the one that was written."""
    if value is None:
        return found is None or found == "" or (isinstance(found, float) and math.isnan(found))
    if isinstance(value, datetime):
        try:
            time = datetime.fromisoformat(found) if isinstance(found, str) else found
            return bool((time if time.tzinfo else time.replace(tzinfo=UTC)) == value)
        except (ValueError, AttributeError):
            return False
    return bool(found == value) or (isinstance(found, str) and not isinstance(value, str) and found == str(value))


def outcome(read: Callable[[Path], Columns], path: Path, columns: Columns | None) -> str:
    """What came of one file: refused, or else read, exact or altered."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = read(path)
    except BaseException as error:  # a panic of Polars is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        return "refused"
    if columns is None:
        return "read"
    is_exact = list(found) == list(columns) and all(
        len(found[name]) == len(values) and all(map(is_written, found[name], values))
        for name, values in columns.items()
    )
    return "exact" if is_exact else "altered"


def main() -> None:
    """Read everything with every reader, print and write."""
    kinds = {"broken CSV": broken_csvs(), "broken Parquet": broken_parquets(), "odd CSV": odd_csvs()}
    counts: dict[str, dict[str, dict[str, int]]] = {}
    altered: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, files in kinds.items():
            for name, read in READERS.items():
                outcomes = Counter()
                for file in files:
                    path = Path(folder) / file.name
                    path.write_bytes(file.content)
                    came = outcome(read, path, file.columns if isinstance(file, Odd) else None)
                    outcomes[came] += 1
                    if came in ("read", "altered"):
                        altered.setdefault(name, []).append(file.name)
                counts.setdefault(kind, {})[name] = dict(outcomes)
    versions = machine("polars", "pandas", "pyarrow", "duckdb")
    write("bench_readers", {"machine": versions, "counts": counts, "read_or_altered": altered})
    rows = [["", *READERS]]
    for kind, files in kinds.items():
        for came in ("exact", "altered", "refused") if kind == "odd CSV" else ("refused", "read"):
            rows.append(
                [f"{kind}, {came}, of {len(files)}", *(str(counts[kind][name].get(came, 0)) for name in READERS)]
            )
    print(table(rows))


if __name__ == "__main__":
    main()
