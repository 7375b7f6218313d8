"""Whether the baseline reproduces: the same again, on changed data, with changed code and packages."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from basekamp.data.prepare import prepare_data
from basekamp.errors import InputError
from basekamp.evaluation.evaluate import evaluate_model
from basekamp.evaluation.ladder import measure_ladder
from basekamp.experiment import Experiment, load_experiment
from basekamp.models import source
from basekamp.models.source import software_versions
from basekamp.records import pinned
from basekamp.records.compare import Folders, Question, compare_models
from basekamp.records.record import Record
from basekamp.records.shelf import read_record, read_shelf
from basekamp.records.verify import verify_baseline
from basekamp.storage import open_store
from basekamp.training import train

BASEKAMP = Path(sys.executable).with_name("basekamp")
FILE = """
experiment: hills
data: {source: SOURCE, target: kind, split: {validation: 0.3, test: 0.2}}
metric: {name: accuracy}
baseline: {model: mlp, n_layers: 1, width: 8, n_epochs: 4, batch_size: 32, lr: 1e-2}
"""


def rows() -> list[str]:
    rng = np.random.default_rng(8)
    a, b = rng.normal(size=(2, 600))
    kind = np.where(a + b + rng.normal(scale=0.4, size=600) > 0, "up", "down")
    return [f"{a[i]:.6f},{b[i]:.6f},{kind[i]}" for i in range(600)]


def write(source: Path, lines: list[str]) -> None:
    source.write_text("\n".join(["a,b,kind", *lines]))


def record_baseline(folder: Path, experiment: Experiment) -> None:
    data, model, told, ladder = (folder / name for name in ("data", "model", "told", "ladder"))
    prepare_data(experiment.data, data)
    measure_ladder(data, ladder, metric="accuracy")
    train.train_model(data, model, experiment.hyperparameters(), metric="accuracy", seeds=3)
    evaluate_model(data, model / "model.pth", told, metric="accuracy")
    pages = {"html": folder / "report.html", "markdown": folder / "report.md"}
    question = Question("hills", "baseline", "", 0.0, "first")
    compare_models(Folders(data, model, told, ladder), question, store=str(folder / "store"), **pages)


@pytest.fixture
def camp(tmp_path, home) -> Path:
    """A folder with hills.yaml, its source and a store with its baseline."""
    write(tmp_path / "hills.csv", rows())
    (tmp_path / "hills.yaml").write_text(FILE.replace("SOURCE", str(tmp_path / "hills.csv")))
    record_baseline(tmp_path, load_experiment(tmp_path / "hills.yaml"))
    return tmp_path


def verified(camp: Path):
    return verify_baseline(load_experiment(camp / "hills.yaml"), store=str(camp / "store"))


def recorded(camp: Path) -> Record:
    store = open_store(str(camp / "store"))
    return read_record(store, read_shelf(store, "hills").baseline)


def test_the_same_again_is_identical_and_leaves_nothing(camp):
    before = sorted(path for path in camp.rglob("*") if path.is_file())
    told, record = verified(camp), recorded(camp)
    assert told.identical and told.reproduces and told.changed == {}
    assert told.recorded == told.today and told.recorded.mean == record.mean and told.today.n == 3
    assert (told.difference, told.baseline) == (0.0, record.name)
    assert told.sentence.endswith("today: it reproduces, identical to the last digit.")
    assert sorted(path for path in camp.rglob("*") if path.is_file()) == before


def test_a_few_changed_rows_are_told_and_stay_within_the_noise(camp):
    lines = rows()
    write(camp / "hills.csv", lines[3:])
    told = verified(camp)
    assert told.reproduces and not told.identical and told.changed.keys() == {"data", "prepared data"}
    assert told.interval[0] <= told.difference <= told.interval[1] and "it reproduces, the difference" in told.sentence


def test_other_data_cannot_be_compared_and_does_not_reproduce(camp):
    write(camp / "hills.csv", [f"1{line}" for line in rows()])
    told = verified(camp)
    assert not told.reproduces and told.difference is told.interval is None
    assert "it does not reproduce, fewer than half of the examples" in told.sentence


def learn_less(monkeypatch) -> None:
    """As if the code had changed for the worse."""
    train_model = train.train_model

    def worse(dataset, directory, hyperparameters, **options):
        return train_model(dataset, directory, hyperparameters.model_copy(update={"lr": 1e-9}), **options)

    monkeypatch.setattr(train, "train_model", worse)
    monkeypatch.setattr(train, "software_versions", lambda model: software_versions(model) | {"code": "changed"})


def test_what_is_worse_than_the_noise_does_not_reproduce_and_the_code_is_named(camp, monkeypatch):
    code = recorded(camp).training.versions["code"]
    learn_less(monkeypatch)
    told = verified(camp)
    assert not told.reproduces and told.interval[1] < 0 and told.today.mean < told.recorded.mean
    assert told.changed == {"code": (code, "changed")}
    assert "does not reproduce, the difference is −" in told.sentence


def test_other_packages_and_devices_are_named(camp, monkeypatch):
    monkeypatch.setattr(source, "version", lambda package: f"{package}-next")
    monkeypatch.setattr(train, "describe_device", lambda device: "another card")
    told = verified(camp)
    assert told.identical and {"numpy", "polars", "scikit-learn"} <= told.changed.keys()
    assert told.changed["numpy"] == (np.__version__, "numpy-next")


def test_what_an_older_release_did_not_record_is_left_out(camp, monkeypatch):
    monkeypatch.setattr(train, "software_versions", lambda model: {"basekamp": "9", "news": "1"})
    assert verified(camp).changed.keys() == {"basekamp"}


def test_a_baseline_is_departed_from_only_for_another_one(camp, monkeypatch):
    experiment, store = load_experiment(camp / "hills.yaml"), open_store(str(camp / "store"))
    row, data = read_shelf(store, "hills").baseline, recorded(camp).data.fingerprint
    with pytest.raises(InputError, match="the baseline of hills is the file's already, by the same code: change its"):
        pinned.check_departure(store, row, experiment, data)
    pinned.check_departure(store, row, experiment, "other data")
    pinned.check_departure(store, row, experiment.model_copy(update={"seeds": 5}), data)
    pinned.check_departure(store, row, experiment.model_copy(update={"baseline": {"model": "linear"}}), data)
    monkeypatch.setattr(pinned, "software_versions", lambda model: software_versions(model) | {"code": "changed"})
    pinned.check_departure(store, row, experiment, data)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("experiment: hills", "experiment: valleys", "valleys has no baseline in .* to verify: make one with `basek"),
        ("name: accuracy", "name: f1", "metric: f1 of the file is not the accuracy of the baseline of hills: verify"),
        ("target: kind", "target: a, task: classification", "target: a of the file is not the kind of the baseline"),
    ],
)
def test_a_file_that_asks_something_else_is_refused(camp, old, new, message):
    text = (camp / "hills.yaml").read_text()
    (camp / "hills.yaml").write_text(text.replace(old, new))
    with pytest.raises(InputError, match=message):
        verified(camp)


def test_the_command_says_it_in_a_sentence_or_json_with_a_true_exit_code(camp):
    def run(*more: str) -> subprocess.CompletedProcess[str]:
        command = [BASEKAMP, "verify", "hills.yaml", "--store", "store", *more]
        return subprocess.run(command, cwd=camp, capture_output=True, text=True, timeout=120)

    done = run()
    assert done.returncode == 0 and "identical to the last digit" in done.stdout.splitlines()[0]
    write(camp / "hills.csv", [f"1{line}" for line in rows()])
    done = run("--json")
    told = json.loads(done.stdout)
    assert done.returncode == 1 and not told["reproduces"] and told["changed"].keys() == {"data", "prepared data"}
