"""No secret is written down: canaries in the environment, a real run, and a search through all that it left."""

import base64
import gzip
import io
import json
import os
import secrets
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from minio import Minio

from basekamp.cluster.trainjob_object import SECRETS
from basekamp.tracking.variables import TRACKING_SECRETS
from tests.kfp_server import KfpServer
from tests.s3_server import Server

BASEKAMP = Path(sys.executable).with_name("basekamp")
ROOT = Path(__file__).parents[1]
SECRET_VARIABLES = (*SECRETS, *TRACKING_SECRETS, "KFP_TOKEN", "HF_TOKEN", "GITHUB_TOKEN", "PGPASSWORD")
EXPERIMENT = """
experiment: tiny
data: {source: sklearn:digits, target: digit, split: {validation: 0.3, test: 0.2}}
metric: {name: accuracy}
seeds: 2
tracking: [mlflow, wandb]
baseline: {model: linear, n_epochs: 1, batch_size: 64, lr: 1e-3}
attempts:
  faster: {hypothesis: Ten times the learning rate learns more., expect: 0.01, lr: 1e-2}
"""


class Left(NamedTuple):
    """What a run left: each thing's name and content; and the secrets it was given, by variable."""

    things: dict[str, bytes]
    secrets: dict[str, str]


def inside(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    """The content, and what is packed into it."""
    yield name, content
    if content[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for each in archive.namelist():
                yield from inside(f"{name}/{each}", archive.read(each))
    if content[:2] == b"\x1f\x8b":
        yield from inside(f"{name}/unpacked", gzip.decompress(content))


def found(things: dict[str, bytes], secrets: dict[str, str]) -> list[str]:
    """Where a secret stands, as it is or in base64."""
    forms = {name: (value.encode(), base64.b64encode(value.encode()).rstrip(b"=")) for name, value in secrets.items()}
    return [
        f"{name} in {place}"
        for thing, content in things.items()
        for place, text in inside(thing, content)
        for name, written in forms.items()
        if any(form in text or form in place.encode() for form in written)
    ]


@pytest.fixture(scope="module")
def left(s3_server: Server, s3_client: Minio, tmp_path_factory: pytest.TempPathFactory) -> Left:
    """A run into a bucket with trackers that cannot be reached, then what shows it, then a submission."""
    folder = tmp_path_factory.mktemp("canaries")
    bucket = f"test-{secrets.token_hex(6)}"
    s3_client.make_bucket(bucket)
    given = {name: f"canary{secrets.token_hex(20)}" for name in SECRET_VARIABLES if name != "AWS_SESSION_TOKEN"}
    given["AWS_ACCESS_KEY_ID"], given["AWS_SECRET_ACCESS_KEY"] = s3_server.access_key, s3_server.secret_key
    settings = {
        "BASEKAMP_S3_ENDPOINT": s3_server.endpoint,
        "BASEKAMP_HOME": str(folder / "home"),
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
        "WANDB_MODE": "offline",
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(folder / "tmp"),
    }
    (folder / "tmp").mkdir()
    (folder / "tiny.yaml").write_text(EXPERIMENT)
    outputs = {}
    with KfpServer(token=given["KFP_TOKEN"]) as kfp:
        store = f"s3://{bucket}/basekamp"
        for arguments in (
            f"run tiny.yaml --store {store} --profile",
            f"runs tiny.yaml --store {store} --json",
            f"log tiny --store {store}",
            f"report tiny.yaml --store {store}",
            "run tiny.yaml --store s3://not-there/basekamp",
            f"submit tiny.yaml --host {kfp.url} --store {store}",
            f"submit tiny.yaml --host {kfp.url} --store {store} --dry-run",
            f"submit tiny.yaml --host {kfp.url} --store {store} --token wrong",
            "compile",
            "doctor",
        ):
            done = subprocess.run(
                [BASEKAMP, *arguments.split()],
                cwd=folder,
                env=os.environ | settings | given,
                capture_output=True,
                timeout=280,
            )
            outputs[f"output of {arguments}"] = done.stdout + done.stderr
        outputs["what Kubeflow was told"] = json.dumps([kfp.experiments, kfp.runs]).encode()
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    objects = {}
    for entry in s3_client.list_objects(bucket, recursive=True):
        answer = s3_client.get_object(bucket, entry.object_name)
        objects[f"s3://{entry.object_name}"] = answer.data
        objects[f"headers of {entry.object_name}"] = repr(answer.headers).encode()
    del given["AWS_ACCESS_KEY_ID"]  # a name, which S3 shows in requests
    return Left({**outputs, **files, **objects}, given)


def test_run_left_all_that_it_can_leave(left):
    names = "\n".join(left.things)
    for part in (".pth", ".npz", ".gz", ".html", ".json", "home/", "tiny.html", "what Kubeflow"):
        assert part in names, left.things
    assert b"faster" in left.things["what Kubeflow was told"]


def test_no_secret_of_the_environment_is_written_down(left):
    assert found(left.things, left.secrets) == []


def test_search_finds_a_secret_that_is_packed_away():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.gz", gzip.compress(b"a canary1 there"))
    things = {"x.npz": packed.getvalue(), "y": base64.b64encode(b"canary2"), "canary3.json": b""}
    secrets = {"A": "canary1", "B": "canary2", "C": "canary3", "D": "canary4"}
    assert found(things, secrets) == ["A in x.npz/inner.gz/unpacked", "B in y", "C in canary3.json"]
