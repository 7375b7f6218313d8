"""A store behind a network that spoils 30 % of the requests; `tests.fault_proxy` says how."""

import io
import os
import random
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from minio import Minio

from basekamp.errors import BasekampError, ChecksumError, KeyExistsError, StoreError
from basekamp.storage import open_store, s3_transfer
from basekamp.storage.pool import Backoff, Patience
from basekamp.storage.s3 import S3Store
from basekamp.storage.s3_transfer import PART_BYTES
from tests.fault_proxy import KINDS, FaultProxy, fault_proxy
from tests.http_server import http_server

HURRIED = Patience(connect_seconds=2, read_seconds=0.5, deadline_seconds=90)
WORKERS, ROUNDS = 8, 30  # a round is five operations: 1,200 in all


@contextmanager
def spoiled(
    bucket: str, monkeypatch: pytest.MonkeyPatch, *, rate: float, kinds: tuple[str, ...] = KINDS
) -> Iterator[tuple[S3Store, FaultProxy]]:
    with fault_proxy(os.environ["BASEKAMP_S3_ENDPOINT"], rate=rate, kinds=kinds) as proxy:
        monkeypatch.setenv("BASEKAMP_S3_ENDPOINT", proxy.endpoint)
        yield S3Store(bucket, patience=HURRIED), proxy


def made(seed: str, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def put_or_lose(store: S3Store, key: str, content: bytes) -> bool:
    try:
        store.put(key, content)
    except KeyExistsError:
        return False
    return True


def work(store: S3Store, worker: int, folder: Path) -> Counter[str]:
    """150 operations of one worker; gives how many were right, wrong and failed."""
    told: Counter[str] = Counter()

    for turn in range(ROUNDS):
        for operation in operations(store, worker, turn, folder / str(worker)):
            try:
                told["right" if operation() else "wrong"] += 1
            except BasekampError as error:
                told[f"failed: {error}"] += 1
    return told


def operations(store: S3Store, worker: int, turn: int, copy: Path) -> list[Callable[[], bool]]:
    """A create, two reads, a listing and a race with all other workers, each of which tells whether it went right."""
    key, raced = f"{worker}/{turn:02}", f"race/{turn:02}"
    content = made(key, PART_BYTES + 1 if turn % 15 == 0 else (0, 1, 999, 70_000)[turn % 4])

    def fetched() -> bool:
        store.fetch(key, copy)
        return copy.read_bytes() == content

    return [
        lambda: put_or_lose(store, key, content),
        lambda: store.get(key) == content,
        fetched,
        lambda: (
            [each.key for each in store.entries(f"{worker}/")] == [f"{worker}/{each:02}" for each in range(turn + 1)]
        ),
        lambda: put_or_lose(store, raced, b"%d" % worker) == (store.get(raced) == b"%d" % worker),
    ]


@pytest.mark.slow
def test_of_1200_operations_none_fails_and_none_is_wrong(
    s3_env: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(s3_transfer, "PIECE_BYTES", PART_BYTES // 4)
    monkeypatch.setattr(s3_transfer, "QUICK_BYTES_A_SECOND", 1 << 60)  # no stream is, so that pieces come too
    with spoiled(s3_env, monkeypatch, rate=0.3) as (store, proxy), ThreadPoolExecutor(WORKERS) as threads:
        told = sum(threads.map(lambda worker: work(store, worker, tmp_path), range(WORKERS)), Counter())
    assert told == {"right": 5 * WORKERS * ROUNDS}
    assert min(proxy.done[kind] for kind in KINDS) > 30


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_holds_out_against_each_fault(s3_env: str, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    with spoiled(s3_env, monkeypatch, rate=0.5, kinds=(kind,)) as (store, proxy):
        for number in range(4):
            store.put(f"{number}", made(str(number), 1000))
            assert store.get(f"{number}") == made(str(number), 1000)
    assert proxy.done[kind] > 0


@pytest.mark.parametrize("size", [10, PART_BYTES + 1], ids=["one request", "parts"])
def test_a_create_whose_answer_is_always_lost_is_done_and_never_taken_by_another(
    s3_env: str, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    healthy, content = open_store(s3_env), made("a", size)
    with spoiled(s3_env, monkeypatch, rate=0.5, kinds=("lost", "reset")) as (store, _):
        store.put("a", content)
        with pytest.raises(KeyExistsError):
            store.put("a", b"other bytes")
    assert healthy.get("a") == content


@pytest.mark.parametrize(
    ("size", "algorithm"),
    [(1000, "CRC32"), (PART_BYTES + 1, "CRC32"), (PART_BYTES + 1, "")],
    ids=["one request", "parts with a CRC-32", "parts with an MD5"],
)
def test_a_bit_flipped_on_the_way_up_never_reaches_the_server(
    s3_env: str, monkeypatch: pytest.MonkeyPatch, size: int, algorithm: str
) -> None:
    monkeypatch.setattr(s3_transfer, "ALGORITHM", algorithm)  # the service names the one that it was asked for
    healthy, content = open_store(s3_env), made("a", size)
    with spoiled(s3_env, monkeypatch, rate=0.6, kinds=("flip",)) as (store, proxy):
        for number in range(4):
            store.put(f"{number}", content)
        assert proxy.done["flip"] > 2
    assert all(healthy.get(f"{number}") == content for number in range(4))


def test_damage_on_the_server_is_told_also_through_a_network_that_flips_bits(
    s3_env: str, s3_client: Minio, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_client.put_object(s3_env[5:], "a", io.BytesIO(b"x" * 100), 100, metadata={"sha256": "0" * 64})
    with (
        spoiled(s3_env, monkeypatch, rate=0.3, kinds=("flip",)) as (store, _),
        pytest.raises(ChecksumError, match="is damaged"),
    ):
        store.get("a")


def test_pauses_differ_grow_and_end_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    clock = [0.0]
    monkeypatch.setattr("basekamp.storage.pool.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("basekamp.storage.pool.time.sleep", lambda pause: (slept.append(pause), clock.append(0)))
    backoff = Backoff(60)
    assert all(backoff.wait() for _ in range(200))
    assert len(set(slept)) > 190 and max(slept[:3]) < 0.5 < max(slept) <= 5
    clock[0] = 60.0
    assert not backoff.wait()


CANARIES = ("AKIACANARYACCESS", "canary/SECRET+key", "canary-TOKEN-value", "canary-SIGNATURE")


def echo(request: BaseHTTPRequestHandler) -> bytes:
    """An error that repeats all it was sent, in each field of it."""
    said = f"{request.path} {request.headers} {' '.join(CANARIES)}".replace("&", "+").replace("<", "")
    return f"<Error><Code>{said}</Code><Message>{said}</Message><Resource>{said}</Resource></Error>".encode()


@pytest.fixture
def canaries(monkeypatch: pytest.MonkeyPatch, no_s3_env: None) -> pytest.MonkeyPatch:
    for name, value in zip(("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"), CANARIES, strict=False):
        monkeypatch.setenv(f"AWS_{name}", value)
    return monkeypatch


CALLS: dict[str, Callable[[S3Store], object]] = {
    "put": lambda store: store.put("k", b"x"),
    "get": lambda store: store.get("k"),
    "list": lambda store: list(store.entries()),
    "delete": lambda store: store.delete("k"),
    "check": lambda store: store.check(),
}


def said(call: Callable[[], object]) -> str:
    with pytest.raises(BasekampError) as caught:
        call()
    return str(caught.value)


def assert_nothing_secret(text: str) -> None:
    assert [canary for canary in CANARIES if canary in text] == []


@pytest.mark.parametrize("status", [400, 403, 404, 409, 412, 503])
@pytest.mark.parametrize("call", CALLS)
def test_an_error_of_a_service_that_repeats_secrets_has_none(
    canaries: pytest.MonkeyPatch, call: str, status: int
) -> None:
    with http_server(status, echo, kind="application/xml") as (endpoint, _):
        canaries.setenv("BASEKAMP_S3_ENDPOINT", endpoint)
        store = S3Store("s3://bucket", patience=HURRIED._replace(deadline_seconds=0))
        assert_nothing_secret(said(lambda: CALLS[call](store)) + repr(vars(store)))


@pytest.mark.parametrize("kind", ["unavailable", "reset", "stall", "short"])
def test_the_traceback_of_a_network_error_has_no_secret(s3_env: str, canaries: pytest.MonkeyPatch, kind: str) -> None:
    with fault_proxy("http://127.0.0.1:9", rate=1, kinds=(kind,)) as proxy:
        canaries.setenv("BASEKAMP_S3_ENDPOINT", proxy.endpoint)
        store = S3Store(s3_env, patience=HURRIED._replace(deadline_seconds=0))
        with pytest.raises(StoreError) as caught:
            store.get("k")
    assert_nothing_secret("".join(traceback.format_exception(caught.value)))


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIACANARYACCESS:canary/SECRET+key@bucket/x",
        "s3://bucket/x?X-Amz-Credential=AKIACANARYACCESS&X-Amz-Signature=canary-SIGNATURE",
        "s3://bucket/x?x-amz-security-token=canary-TOKEN-value",
        "https://AKIACANARYACCESS:canary-SIGNATURE@host/x?X-Amz-Signature=canary-SIGNATURE",
    ],
)
def test_an_address_with_secrets_is_refused_and_not_repeated(canaries: pytest.MonkeyPatch, url: str) -> None:
    assert_nothing_secret(said(lambda: open_store(url)))


@pytest.mark.parametrize(
    "endpoint",
    ["http://AKIACANARYACCESS:canary-SIGNATURE@host", "http://host/?X-Amz-Signature=canary-SIGNATURE"],
)
def test_an_endpoint_with_secrets_is_refused_and_not_repeated(canaries: pytest.MonkeyPatch, endpoint: str) -> None:
    canaries.setenv("BASEKAMP_S3_ENDPOINT", endpoint)
    assert_nothing_secret(said(lambda: open_store("s3://bucket")))
