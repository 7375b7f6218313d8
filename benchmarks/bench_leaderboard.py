"""A store's listing as a leaderboard, beside MLflow's search over a sqlite database of the same runs.

Each reads what `basekamp runs` reads, without Python's start. "first" lists the store with nothing kept, "repeated"
with the listing of the time before. "whole" sorts by the deciding metric and gives every record as an object; "top 10"
gives ten; "filtered" takes `n_layers>=3 and act=gelu` of them, sorts, and gives ten. The S3 server is SeaweedFS on this
machine; its limit is what the plain minio client needs for the same listing. MLflow is measured up to 10,000 runs; its
analysed top 10 of 10,000 takes about 0.05 s, for there an index holds the order.

    python -m benchmarks.bench_leaderboard --sizes 1000 10000 100000
"""

import argparse
import json
import os
import random
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from basekamp.naming import Name, Value, format_name, new_id
from basekamp.records.leaderboard import joined, select_rows
from basekamp.records.listing import SETTLED_NS
from basekamp.records.row import Row
from basekamp.records.shelf import read_shelves
from basekamp.storage import open_store
from benchmarks.measure import RESULTS, in_turns, machine, seconds, summary, table

MLFLOW_MOST = 10_000
BEGIN = datetime(2024, 1, 1, tzinfo=UTC)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "bench_leaderboard.json")
    parser.add_argument("--without-s3", action="store_true")
    arguments = parser.parse_args()
    measured = {}
    for size in arguments.sizes:
        print(f"{size:,} records", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            candidates = _candidates(Path(folder), size)
            measured[str(size)] = {
                name: summary(values) for name, values in in_turns(candidates, repeats=arguments.repeats).items()
            }
    if not arguments.without_s3:
        for size in arguments.sizes:
            measured[str(size)] |= _on_s3(size, repeats=arguments.repeats)
    told = {"machine": machine("mlflow-skinny", "minio", "polars"), "mlflow_most": MLFLOW_MOST, "seconds": measured}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(told, indent=1) + "\n")
    names = list(dict.fromkeys(name for one in measured.values() for name in one))
    cells = [[_cell(measured[size].get(name)) for size in measured] for name in names]
    for size, times in measured.items():
        for name in (name for name in times if name.startswith("S3")):
            print(f"{name}: {int(size) / times[name]['median']:,.0f} keys/s of {int(size):,}")
    print(table([["seconds", *measured], *([name, *row] for name, row in zip(names, cells, strict=True))]))
    print(f"written to {arguments.out}")


def made_run(number: int) -> tuple[str, dict[str, Value], dict[str, float]]:
    """Id, settings and results of one made-up record; the first is the baseline."""
    chance = random.Random(number)
    settings: dict[str, Value] = {
        "n_layers": chance.randint(1, 9),
        "width": 2 ** chance.randint(4, 9),
        "lr": float(f"{10 ** chance.uniform(-5, -1):.3g}"),
        "act": chance.choice(["relu", "gelu", "leaky_relu"]),
        "dropout": round(chance.random() / 2, 2),
    }
    results = {"loss": round(chance.random(), 6), "accuracy": round(chance.random(), 5)}
    return new_id(BEGIN + timedelta(minutes=number), str(number)), settings, results


def made_key(number: int) -> str:
    """The key of the record's JSON, in one of 200 attempts."""
    record_id, settings, results = made_run(number)
    fields: dict[str, Value] = {**settings, "n": 3, **results, "spread": 0.00123}
    if number:
        fields |= {"difference": 0.0123, "low": 0.0023, "high": 0.0223, "verdict": "supported"}
    where = f"attempts/attempt-{number % 200}" if number else "baseline"
    return f"bench/{where}/{format_name(Name('mlp', fields, 'json', record_id))}"


def _candidates(folder: Path, size: int) -> dict[str, Callable[[], float]]:
    for number in range(size):
        path = folder / "store" / made_key(number)
        if number <= 200:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    url = str(folder / "store")
    kept = folder / "home"
    os.environ["BASEKAMP_HOME"] = str(kept)
    time.sleep(2 * SETTLED_NS / 1e9)  # a folder that was written to just now is never kept

    def first(act: Callable[[], Any]) -> float:
        shutil.rmtree(kept, ignore_errors=True)
        return seconds(act)

    candidates: dict[str, Callable[[], float]] = {}
    for name, act in {
        "whole": lambda: _best(url, size),
        "top 10": lambda: _best(url, 10),
        "filtered": lambda: _best(url, 10, "n_layers>=3 and act=gelu"),
    }.items():
        candidates[f"folder, first, {name}"] = lambda act=act: first(act)  # type: ignore[misc]
        candidates[f"folder, repeated, {name}"] = lambda act=act: seconds(act)  # type: ignore[misc]
    if size <= MLFLOW_MOST:
        candidates |= _mlflow(folder, size)
    return candidates


def _best(url: str, most: int, *conditions: str) -> list[Row]:
    """The best rows by the deciding metric."""
    rows = joined([shelf.every for shelf in read_shelves(open_store(url))])
    found = list(select_rows(rows, conditions, "accuracy", top=most))
    assert conditions or len(found) == most
    return found


def _mlflow(folder: Path, size: int) -> dict[str, Callable[[], float]]:
    """MLflow's whole table and its top 10, from a database before and after sqlite's ANALYZE."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    candidates: dict[str, Callable[[], float]] = {}
    for analysed in (False, True):
        path = folder / f"mlflow-{analysed}.db"
        store = SqlAlchemyStore(f"sqlite:///{path}", str(folder / "artifacts"))
        experiment = store.create_experiment("bench")
        _fill(path, int(experiment), size)
        if analysed:
            with sqlite3.connect(path) as database:
                database.execute("ANALYZE")
        kind = "MLflow, analysed" if analysed else "MLflow"
        candidates[f"{kind}, top 10"] = lambda store=store, of=experiment: seconds(lambda: _search(store, of, 10))
        candidates[f"{kind}, whole"] = lambda store=store, of=experiment: seconds(lambda: _search(store, of, size))
    return candidates


def _search(store: Any, experiment: str, most: int) -> list[Any]:
    from mlflow.entities import ViewType

    found = store.search_runs(
        [experiment], "", ViewType.ACTIVE_ONLY, max_results=most, order_by=["metrics.accuracy DESC"]
    )
    assert len(found) == most
    return list(found)


def _fill(path: Path, experiment: int, size: int) -> None:
    """Write the runs straight into MLflow's tables: through its interface 10,000 take many minutes."""
    runs, params, metrics, latest = [], [], [], []
    for number in range(size):
        run, settings, results = made_run(number)
        begun = int((BEGIN + timedelta(minutes=number)).timestamp() * 1000)
        runs.append((run, run, "UNKNOWN", "", "", "u", "FINISHED", begun, begun, "", "active", "", experiment))
        params += [(key, str(value), run) for key, value in {"model": "mlp", **settings}.items()]
        metrics += [(key, value, begun, run, 0, False) for key, value in results.items()]
        latest += [(key, value, begun, 0, False, run) for key, value in results.items()]
    with sqlite3.connect(path) as database:
        for name, columns, rows in (
            (
                "runs",
                "run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time, end_time, "
                "source_version, lifecycle_stage, artifact_uri, experiment_id",
                runs,
            ),
            ("params", "key, value, run_uuid", params),
            ("metrics", "key, value, timestamp, run_uuid, step, is_nan", metrics),
            ("latest_metrics", "key, value, timestamp, step, is_nan, run_uuid", latest),
        ):
            places = ", ".join("?" * len(columns.split(",")))
            database.executemany(f"INSERT INTO {name} ({columns}) VALUES ({places})", rows)


def _on_s3(size: int, *, repeats: int) -> dict[str, dict[str, float]]:
    """The same listing from a bucket, beside the plain client's."""
    import io
    from concurrent.futures import ThreadPoolExecutor
    from urllib.parse import urlsplit

    from minio import Minio

    from tests.s3_server import s3_server

    with s3_server() as server:
        os.environ |= {
            "BASEKAMP_S3_ENDPOINT": server.endpoint,
            "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret_key,
        }
        client = Minio(
            endpoint=urlsplit(server.endpoint).netloc,
            access_key=server.access_key,
            secret_key=server.secret_key,
            secure=False,
        )
        client.make_bucket(bucket_name="bench")
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda i: client.put_object("bench", made_key(i), io.BytesIO(b"{}"), 2), range(size)))
        candidates = {
            "S3, plain client": lambda: seconds(lambda: list(client.list_objects("bench", recursive=True))),
            "S3, top 10": lambda: seconds(lambda: _best("s3://bench", 10)),
        }
        return {name: summary(values) for name, values in in_turns(candidates, repeats=repeats).items()}


def _cell(value: dict[str, float] | None) -> str:
    return f"{value['median']:.3g} ({value['min']:.3g}–{value['max']:.3g})" if value else "–"


if __name__ == "__main__":
    main()
