"""Fixtures that more than one test file uses."""

import secrets
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from minio import Minio

from tests.s3_server import Server
from tests.s3_server import s3_server as start_s3_server

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
