"""What a stranger may have written is refused: no code of it runs, and it takes neither all memory nor all time."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from pydantic import BaseModel, ConfigDict

from basekamp.cluster.package import _LOADER
from basekamp.document import MOST_BYTES, fetch_document, load_document, read_document
from basekamp.errors import InputError
from basekamp.evaluation.evaluate import Predictions
from basekamp.storage import open_store
from basekamp.training.checkpoint import Checkpoints
from basekamp.yaml_file import MAX_VALUES, read_yaml
from tests.hostile_models import hostile_models
from tests.trainings import train

ROOT = Path(__file__).parents[1]
MOST_GROWTH_BYTES = 256 << 20


# --- models


@pytest.fixture(scope="module")
def fed(tables: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], Path]:
    """What came of the honest file and of each hostile one, loaded in a process of little memory; and the canary."""
    folder = tmp_path_factory.mktemp("hostile")
    canary = folder / "canary"
    (folder / "stranger.py").write_text(f"def run(**options):\n    open({str(canary)!r}, 'w').close()\n")
    train(tables["classification"], folder / "honest")
    train(tables["classification"], folder / "trees", model="boosting", n_trees=5)
    honest, trees = ((folder / name / "model.pth").read_bytes() for name in ("honest", "trees"))
    (folder / "files").mkdir()
    for name, content in ({"honest": honest} | hostile_models(honest, trees, canary)).items():
        (folder / "files" / f"{name}.pth").write_bytes(content)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.hostile_models", str(folder / "files")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")], canary


def test_fifty_hostile_models_are_refused_and_the_honest_one_is_not(fed):
    told, _ = fed
    assert told[0]["name"] == "honest" and told[0]["outcome"] == "loaded"
    assert len(told) == 1 + 50
    assert [each for each in told[1:] if not each["outcome"].startswith("refused: ")] == []
    assert [each for each in told if "\n" in each["outcome"] or len(each["outcome"]) > 400] == []


def test_no_hostile_model_runs_code(fed):
    _, canary = fed
    assert not canary.exists()
    torch.load(canary.parent / "files" / "archive, os.system.pth", weights_only=False)
    assert canary.exists(), "it would have run"


def test_no_hostile_model_takes_much_memory(fed):
    told, _ = fed
    assert [each for each in told[1:] if each["growth_bytes"] > MOST_GROWTH_BYTES] == []


def test_torch_is_one_whose_weights_only_holds():
    """CVE-2025-32434 was mended in 2.6.0 and CVE-2026-24747 in 2.10.0."""
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (least,) = (each.partition(">=")[2] for each in asked if re.match(r"torch\b", each))
    assert tuple(map(int, least.split("."))) >= (2, 10)


def test_checkpoint_that_runs_code_is_passed_over_for_the_one_before_it(tmp_path, capfd):
    checkpoints = Checkpoints("key", home=tmp_path)
    checkpoints.write({"step": 1})
    checkpoints.write({"step": 2, "evil": Path("a pickled object")})
    assert Checkpoints("key", home=tmp_path).read(torch.device("cpu")) == {"step": 1}
    assert "cannot be used (its pickle asks for" in capfd.readouterr().out


# --- no way around


CODE = ("eval", "exec", "compile", "__import__", "os.system", "yaml.unsafe_load", "yaml.full_load")
PICKLES = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def _is_unsafe(call: ast.Call) -> bool:
    name, given = ast.unparse(call.func), {each.arg: ast.unparse(each.value) for each in call.keywords}
    if name == "torch.load":
        return given.get("weights_only") != "True"
    if name in ("yaml.load", "yaml.load_all"):
        return given.get("Loader") != "_LOADER"
    return name in CODE or any(given.get(key, "False") != "False" for key in ("allow_pickle", "shell"))


def test_no_source_loads_what_could_run():
    findings = []
    for path in [each for folder in ("basekamp", "components", "pipelines") for each in (ROOT / folder).rglob("*.py")]:
        tree = ast.parse(path.read_text())
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        findings += [f"{path}: {name} is imported" for name in imported & PICKLES]
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _is_unsafe(node)]
        findings += [f"{path}, line {call.lineno}: {ast.unparse(call.func)}" for call in calls]
    assert findings == []
    assert issubclass(_LOADER, yaml.SafeLoader | yaml.CSafeLoader)


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=safe)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader=yaml.Loader)",
        "eval(text)",
    ],
)
def test_search_for_unsafe_loads_finds_one(source):
    assert _is_unsafe(ast.parse(source, mode="eval").body)


# --- JSON documents


class Told(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    values: list[float] = []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"name": "a", "name": "b"}', "a key is given twice"),
        (b'{"name": "a", "values": [NaN]}', "NaN is no finite number"),
        (b'{"name": "a", "values": [-Infinity]}', "-Infinity is no finite number"),
        (b'{"name": "a", "values": [1e999]}', "1e999 is no finite number"),
        (b'{"name": "a", "other": 1}', "1 problems"),
        (b'{"name": "a", "values": ["1; import os"]}', "1 problems"),
        (b"[" * 200_000 + b"]" * 200_000, "nested too deeply"),
        (b"[" + b"[]," * 300_000 + b"[]]", "more than 262,144 keys, lists and objects"),
        (b'{"name": "a", "values": [' + b"1," * (5 << 20) + b"1]}", "more than 4,194,304 values"),
        (b"9" * 100_000, "Exceeds the limit (4300 digits)"),
        (b"\xff\xfe{}", "it is not JSON"),
        (b"", "it is not JSON"),
    ],
    ids=["twice", "NaN", "Infinity", "1e999", "unknown", "text", "deep", "wide", "long", "digits", "UTF-16", "empty"],
)
def test_json_that_is_not_what_we_write_is_refused(content, reason):
    with pytest.raises(InputError, match=r"^x\.json is no told that this basekamp reads \(") as refusal:
        read_document(Told, content, "x.json")
    assert reason in str(refusal.value) and len(str(refusal.value)) < 300


def test_json_of_a_gigabyte_is_refused_after_its_first_part(tmp_path):
    (tmp_path / "huge.json").touch()
    os.truncate(tmp_path / "huge.json", 1 << 30)  # takes no room on the disk
    with pytest.raises(InputError, match=f"more than {MOST_BYTES:,} bytes"):
        load_document(Told, tmp_path / "huge.json")


def test_object_of_a_gigabyte_in_a_store_is_refused_after_its_first_part(tmp_path):
    store = open_store(str(tmp_path))
    store.put("a/x.json", b"{}")
    os.chmod(tmp_path / "a" / "x.json", 0o600)
    os.truncate(tmp_path / "a" / "x.json", 1 << 30)
    with pytest.raises(InputError, match=f"key 'a/x.json' holds more than {MOST_BYTES:,} bytes: move the file away"):
        fetch_document(Told, store, "a/x.json")


def test_object_in_a_bucket_is_read_no_further_than_allowed(s3_env):
    store = open_store(s3_env)
    store.put("x.json", bytes(3 << 20))
    assert len(store.get("x.json", most_bytes=3 << 20)) == 3 << 20
    with pytest.raises(InputError, match="holds more than 2,000,000 bytes"):
        store.get("x.json", most_bytes=2_000_000)


# --- predictions


ROWS = {"rows": np.arange(4, dtype=np.uint64), "targets": np.zeros(4), "outputs": np.zeros((1, 4, 2), np.float32)}


def _npz(folder: Path, **arrays: np.ndarray) -> bytes:
    np.savez_compressed(folder / "x.npz", **arrays)
    return (folder / "x.npz").read_bytes()


def _with_member(content: bytes, folder: Path, member: bytes) -> bytes:
    """The outputs replaced by other bytes."""
    (folder / "y.npz").write_bytes(content)
    with zipfile.ZipFile(folder / "y.npz") as old, zipfile.ZipFile(folder / "z.npz", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, member if name == "outputs.npy" else old.read(name))
    return (folder / "z.npz").read_bytes()


def test_predictions_that_are_ours_are_read(tmp_path):
    assert Predictions.from_bytes(_npz(tmp_path, **ROWS)).outputs.shape == (1, 4, 2)


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"outputs": np.array([print], dtype=object)}, "outputs.npy is no array of numbers"),
        ({"outputs": np.zeros((1, 5, 2), np.float32)}, "rows, targets, outputs and groups are not of one number"),
        ({"outputs": np.full((1, 4, 2), np.nan, np.float32)}, "an output is NaN or infinite"),
        ({"targets": np.array(["a"] * 4)}, "targets.npy is no array of numbers"),
        ({"more": np.zeros(1)}, "it does not hold rows, targets, outputs alone"),
    ],
    ids=["objects", "other rows", "NaN", "text", "one more"],
)
def test_predictions_that_are_not_ours_are_refused(tmp_path, arrays, reason):
    with pytest.raises(InputError, match=rf"^these are no predictions \({reason}\): evaluate the model again\.$"):
        Predictions.from_bytes(_npz(tmp_path, **ROWS | arrays))


def test_predictions_that_declare_more_than_they_hold_are_refused(tmp_path):
    honest = _npz(tmp_path, **ROWS)
    header = b"\x93NUMPY\1\0\x76\0{'descr': '<f4', 'fortran_order': False, 'shape': (1, 4000000000000, 2), }".ljust(127)
    with pytest.raises(InputError, match="outputs.npy declares another size than it has"):
        Predictions.from_bytes(_with_member(honest, tmp_path, header + b"\n" + bytes(32)))
    bomb = _with_member(honest, tmp_path, bytes(1 << 20))
    at = bomb.index(b"PK\1\2", bomb.rindex(b"outputs.npy") - 60)
    with pytest.raises(InputError, match="it declares 4,"):
        Predictions.from_bytes(bomb[: at + 24] + b"\xf0\xff\xff\xff" + bomb[at + 28 :])
    for content in (b"", honest[:-30], honest + b"x", b"PK\5\6" + bytes(18)):
        with pytest.raises(InputError, match="these are no predictions"):
            Predictions.from_bytes(content)


# --- YAML


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: &a [1, 1]\nb: [*a, *a]\n", "an alias"),
        ("!!python/object/apply:os.system ['true']", "the tag .* is not allowed"),
        ("a: !!python/name:os.system x", "the tag .* is not allowed"),
        ("[" * 100_000, "more than 20 levels are not allowed"),
        ("[" + "[]," * 300_000 + "]", f"more than {MAX_VALUES:,} values are not allowed"),
        ("\n".join("- 1" for _ in range(250_000)), f"more than {MAX_VALUES:,} values are not allowed"),
        ("a: " + "x" * (1 << 20), "is larger than 1 MiB"),
        ("a: " + "9" * 100_000, "is not allowed as int"),
    ],
    ids=["laughs", "object", "name", "deep", "wide", "long", "large", "digits"],
)
def test_yaml_that_is_more_than_an_experiment_is_refused(tmp_path, text, reason):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError, match=reason) as refusal:
        read_yaml(tmp_path / "x.yaml")
    assert len(str(refusal.value)) < 300 + len(str(tmp_path))
