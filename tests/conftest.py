"""Fixtures that more than one test file uses."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from minio import Minio

from basekamp.data.prepare import prepare_data
from basekamp.experiment import DataSettings
from tests.camp import camp, climbed, climbed_once, clock, trained
from tests.s3_server import Server
from tests.s3_server import s3_server as start_s3_server
from tests.trainer import Trainer, start_trainer

__all__ = ["camp", "climbed", "climbed_once", "clock", "trained"]

S3_VARIABLES = (
    "BASEKAMP_S3_ENDPOINT",
    "MINIO_ENDPOINT",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "MINIO_ACCESS_KEY",
    "MINIO_SECRET_KEY",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Server]:
    """A real S3 server on loopback: `(endpoint, access_key, secret_key)`."""
    with start_s3_server() as server:
        yield server


@pytest.fixture(scope="session")
def s3_client(s3_server: Server) -> Minio:
    """A plain client of the server, for what a store refuses to do."""
    endpoint = urlsplit(s3_server.endpoint).netloc
    return Minio(endpoint, s3_server.access_key, s3_server.secret_key, secure=False, region="us-east-1")


@pytest.fixture
def no_s3_env(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that says nothing about S3."""
    for name in S3_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def s3_env(s3_server: Server, s3_client: Minio, monkeypatch: pytest.MonkeyPatch, no_s3_env: None) -> Iterator[str]:
    """The environment that reaches the server; yields the URL of a fresh bucket."""
    monkeypatch.setenv("BASEKAMP_S3_ENDPOINT", s3_server.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    bucket = f"test-{secrets.token_hex(6)}"
    s3_client.make_bucket(bucket)
    yield f"s3://{bucket}"


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,797 prepared images of handwritten digits."""
    folder = tmp_path_factory.mktemp("data") / "digits"
    prepare_data(DataSettings(source="sklearn:digits", target="digit"), folder)
    return folder


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """400 rows of two numbers and a colour, with a class and a number that depend on them."""
    folder, rng = tmp_path_factory.mktemp("tables"), np.random.default_rng(3)
    a, b, color = rng.normal(size=400), rng.normal(size=400), rng.integers(4, size=400)
    price = 5000 + 300 * a - 120 * b + 200 * color + rng.normal(scale=10, size=400)
    kind = np.where(a + 0.5 * color + rng.normal(scale=0.3, size=400) > 0.8, "yes", "no")
    lines = [f"{a[i]},{b[i]},{'rgbw'[color[i]]},{price[i]},{kind[i]}" for i in range(400)]
    (folder / "sales.csv").write_text("\n".join(["a,b,color,price,kind", *lines]))
    for target, other in (("price", "kind"), ("kind", "price")):
        settings = DataSettings(source=str(folder / "sales.csv"), target=target, drop=(other,))
        prepare_data(settings, folder / target)
    return {"regression": folder / "price", "classification": folder / "kind"}


@pytest.fixture(scope="session")
def trainer() -> Iterator[Trainer]:
    with start_trainer() as started:
        yield started


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The work folder of this test alone; progress goes to the log."""
    monkeypatch.setenv("BASEKAMP_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BASEKAMP_PROGRESS", raising=False)
    return tmp_path / "home"


@pytest.fixture
def held(record_property: Callable[[str, object], None]) -> Callable[[str, int, str], None]:
    """Tell a fault, how often it was made and what held; the table of all stands at the end of the test run."""
    return lambda fault, count, what: record_property("held", (fault, count, what))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = terminalreporter.getreports("passed")
    rows = [value for report in reports for name, value in report.user_properties if name == "held"]
    if rows:
        terminalreporter.section("faults that were held out against")
    for fault, count, what in rows:
        terminalreporter.write_line(f"{fault:<64} {count:>6}  {what}")
