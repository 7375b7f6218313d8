"""What the rules find in made-up records and in real trainings with a fault, and what they leave alone."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from basekamp.cli import main
from basekamp.data.dataset import load_dataset
from basekamp.data.prepare import prepare_data
from basekamp.diagnosis.data_health import DataHealth, Leak, Shift, examine_data
from basekamp.diagnosis.finding import Case, next_attempt
from basekamp.diagnosis.network_health import Layer, NetworkHealth, read_network_health
from basekamp.diagnosis.rules import RULES, diagnose, unknown
from basekamp.evaluation.evaluate import evaluate_model
from basekamp.evaluation.ladder import Ladder, Rung
from basekamp.experiment import DataSettings, load_experiment
from basekamp.hyperparameters import Hyperparameters
from basekamp.records.record import Record
from basekamp.records.shelf import RECORD, stem
from basekamp.report.attempt import attempt_html, attempt_markdown
from basekamp.report.diagnosis import diagnosis_as_text
from basekamp.storage import open_store
from basekamp.training.results import Performance, Seconds
from basekamp.training.train import train_model
from tests.made_records import BASE, BETTER, EMPTY

LAYERS = [Layer(name=f"layer-{i}", untrained_gradient=0.01, gradient=0.01) for i in range(4)]
WELL = NetworkHealth(
    score=0.95, validation_score=0.93, layers=LAYERS, dead=0.1, saturated=0.05, suspects=[], suspected_share=0.01
)
CLEAN = DataHealth(
    class_shares={"a": 0.5, "b": 0.5},
    repeated=0,
    repeated_rows=[],
    leak=Leak(column="x", score=0.4, others=0.38),
    shift=Shift(auc=0.51, noise=0.02, column="x", stability_index=0.01),
    n_rows=1000,
    half=0.85,
    whole=0.86,
)
RUNGS = [Rung(model="boosting", metrics={"accuracy": 0.95})]


def case(*, network: dict[str, Any] | None = None, data: dict[str, Any] | None = None, **changes: Any) -> Case:
    """A healthy result with some facts changed."""
    ladder = Ladder(rungs=RUNGS, health=CLEAN.model_copy(update=data or {}))
    told = {"ladder": ladder, "network": WELL.model_copy(update=network or {})} | changes
    return Case(BETTER.model_copy(update=told))


def curves(**lists: list[float]) -> Any:
    """The training with other curves, alike in every seed."""
    training = BETTER.training
    told = [
        one.model_copy(update={"ended": "finished", "curves": one.curves.model_copy(update=lists)})
        for one in training.replicates
    ]
    return training.model_copy(update={"replicates": told})


def ended(how: str) -> Any:
    replicates = [one.model_copy(update={"ended": how}) for one in BETTER.training.replicates]
    return BETTER.training.model_copy(update={"replicates": replicates})


def ran(**facts: Any) -> Any:
    return BETTER.training.model_copy(update={"performance": Performance(device="NVIDIA L4", **facts)})


def accuracy(value: float) -> Any:
    return BETTER.evaluation.model_copy(update={"metrics": {"accuracy": value, "loss": 0.5}})


FALLING = [2.0 * 0.9**i for i in range(20)]
STEADY = [2.0 - 0.02 * i for i in range(20)]
LONG = [layer.model_copy(update={"untrained_gradient": 10.0 ** (i - 4)}) for i, layer in enumerate(LAYERS)]
FAULTS: dict[str, Case] = {
    "divergence": case(training=ended("diverged")),
    "learning-rate-too-high": case(
        training=curves(train_loss=[1.0, 1.5, 1.0, 1.6, 1.1, 1.7], validation_loss=[2.2] * 7)
    ),
    "learning-rate-too-low": case(training=curves(train_loss=STEADY[1:], validation_loss=STEADY)),
    "plateau": case(
        training=curves(train_loss=[2.2] * 12, validation_loss=[2.3] * 13),
        network={"score": 0.01, "validation_score": 0.01},
        evaluation=accuracy(0.2),
    ),
    "underfitting": case(network={"score": 0.6, "validation_score": 0.59}, evaluation=accuracy(0.6)),
    "overfitting": case(
        network={"score": 1.0, "validation_score": 0.7},
        training=curves(train_loss=FALLING[1:], validation_loss=[2.0, 1.0, 0.5, 0.6, 0.8, 1.0]),
    ),
    "dead-units": case(network={"dead": 0.7}),
    "saturated-units": case(network={"saturated": 0.8}),
    "vanishing-gradients": case(network={"layers": LONG}),
    "exploding-gradients": case(network={"layers": LONG[::-1]}),
    "class-imbalance": case(data={"class_shares": {"a": 0.97, "b": 0.03}}),
    "label-noise": case(network={"suspected_share": 0.12, "suspects": [3, 5]}, evaluation=accuracy(0.85)),
    "train-validation-shift": case(data={"shift": Shift(auc=0.8, noise=0.02, column="age", stability_index=0.9)}),
    "duplicates-across-splits": case(data={"repeated": 60, "repeated_rows": [1, 2]}),
    "leaking-feature": case(data={"leak": Leak(column="refund", score=0.99, others=0.4)}),
    "too-little-data": case(data={"half": 0.5, "whole": 0.6}),
    "starved-gpu": case(training=ran(seconds=Seconds(total=100, data=60, compute=40))),
}


def test_every_rule_has_a_fault_and_no_rule_finds_any_in_a_healthy_result() -> None:
    assert FAULTS.keys() == RULES.keys() and len(RULES) >= 14
    assert diagnose(case()) == []
    fine = curves(train_loss=FALLING[1:], validation_loss=[1.1 * value for value in FALLING])
    assert diagnose(case(training=fine)) == []


@pytest.mark.parametrize("condition", FAULTS)
def test_fault_is_found_by_its_own_rule_with_evidence(condition: str) -> None:
    found = {one.condition: one for one in diagnose(FAULTS[condition])}
    assert condition in found and found[condition].evidence and found[condition].hypothesis
    assert all(math.isfinite(value) for value in found[condition].evidence.values())
    severities = [one.severity for one in diagnose(FAULTS[condition])]
    assert severities == sorted(severities, key=("critical", "warning", "note").index)


@pytest.mark.parametrize("condition", FAULTS)
def test_next_attempt_can_be_pasted_into_the_experiment_file_of_the_record(condition: str, tmp_path: Path) -> None:
    record = FAULTS[condition].record
    finding = next(one for one in diagnose(FAULTS[condition]) if one.condition == condition)
    block = diagnosis_as_text(record).partition("in the experiment file:\n")[2]
    head = "experiment: digits\ndata: {source: 'sklearn:digits', target: digit}\nmetric: {name: accuracy}\n"
    (tmp_path / "e.yaml").write_text(f"{head}baseline: {{model: linear, n_epochs: 20, lr: 0.01}}\n{block}")
    experiment = load_experiment(tmp_path / "e.yaml")
    assert (f"after-{condition}" in experiment.attempts) == bool(finding.settings)
    if finding.settings:
        told = experiment.hyperparameters(f"after-{condition}").model_dump()
        expected = {key: ours for key, (_, ours) in record.differs.items()} | finding.settings
        assert {key: told[key] for key in expected} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("params", "settings", "told"),
    [
        ({"model": "boosting"}, {"lr": 0.1, "clip_norm": 1.0}, {}),
        ({"model": "linear"}, {"dropout": 0.3, "weight_decay": 1e-3}, {"weight_decay": 1e-3}),
        ({"model": "resnet", "n_layers": 9}, {"n_layers": 2, "act": "relu"}, {"act": "relu"}),
        ({"model": "my_models:build", "depth": 3}, {"lr": 0.1}, {"lr": 0.1, "options": {"depth": 3}}),
        ({"model": "my_models:build", "depth": 3}, {"model": "mlp", "width": 8}, {"model": "mlp", "width": 8}),
    ],
)
def test_next_attempt_changes_only_what_the_model_reads(
    params: dict[str, Any], settings: dict[str, Any], told: dict[str, Any]
) -> None:
    changes = {"params": params, "differs": {key: (None, value) for key, value in params.items() if key == "depth"}}
    finding = replace(diagnose(FAULTS["divergence"])[0], settings=settings)
    attempt = next_attempt(finding, BETTER.model_copy(update=changes))
    assert {key: value for key, value in attempt.items() if key not in ("hypothesis", "expect")} == told


def test_old_record_without_facts_is_diagnosed_by_its_curves_and_says_what_is_not_known() -> None:
    old = Case(BETTER.model_copy(update={"training": ended("diverged")}))
    assert [one.condition for one in diagnose(old)] == ["divergence"]
    assert {"dead-units", "leaking-feature", "label-noise", "starved-gpu"} <= set(unknown(old))
    assert "Not measured of this record: " in diagnosis_as_text(old.record)


def test_report_and_command_tell_the_findings(tmp_path: Path) -> None:
    record = FAULTS["leaking-feature"].record
    page, text = attempt_html(record, BASE, EMPTY), attempt_markdown(record, BASE)
    assert "refund alone tells the target" in page and "<h2>Diagnosis</h2>" in page
    assert "**leaking-feature** (critical)" in text and "Diagnosis" not in attempt_html(case().record, BASE, EMPTY)
    store = open_store(str(tmp_path))
    store.put(stem(record.key) + RECORD, record.model_dump_json().encode())
    shown = CliRunner().invoke(main, ["diagnose", record.id, "--store", str(tmp_path)])
    assert shown.exit_code == 0 and "critical: leaking-feature: refund" in shown.stdout
    told = json.loads(CliRunner().invoke(main, ["diagnose", record.id, "--json", "--store", str(tmp_path)]).stdout)
    assert [one["condition"] for one in told["findings"]] == ["leaking-feature"]


# -- real data and trainings


def test_facts_of_clean_digits_are_clean_and_the_same_each_time(digits: Path) -> None:
    data = load_dataset(digits)
    health = examine_data(data)
    assert health == examine_data(data)
    assert health.repeated == 0 and health.shift and health.shift.auc < 0.6 and health.leak is None
    assert health.half and health.whole and 0.7 < health.half < health.whole < 1


def test_repeated_and_shifted_rows_are_seen(digits: Path, tmp_path: Path) -> None:
    shutil.copytree(digits, tmp_path / "data")
    path = tmp_path / "data" / "validation" / "x.npy"
    x = np.load(path)
    x[:7] = np.load(tmp_path / "data" / "train" / "x.npy")[5:12]
    x[7:, 0, 3, 3] = np.minimum(x[7:, 0, 3, 3] + 120, 255)
    np.save(path, x)
    data = load_dataset(tmp_path / "data")
    health = examine_data(data)
    assert (health.repeated, health.counted_in) == (7, "source")
    assert health.repeated_rows == np.asarray(data.split("validation").numbers)[:7].tolist()
    assert health.shift and health.shift.auc > 0.8 and health.shift.column == "pixel 27"


def test_leaking_column_is_named(tmp_path: Path) -> None:
    chance = np.random.default_rng(2)
    a, b, y = chance.normal(size=400), chance.normal(size=400), chance.integers(2, size=400)
    lines = [f"{one},{other},{3 * kind + 0.1 * one},k{kind}" for one, other, kind in zip(a, b, y, strict=True)]
    (tmp_path / "data.csv").write_text("\n".join(["a,b,refund,kind", *lines]))
    prepare_data(DataSettings(source=str(tmp_path / "data.csv"), target="kind"), tmp_path / "data")
    leak = examine_data(load_dataset(tmp_path / "data")).leak
    assert leak is not None and leak.column == "refund" and leak.score > 0.95 > 0.5 > leak.others


def test_rows_in_the_order_of_the_source_are_no_shift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = np.random.default_rng(3)
    lines = [f"{day},{chance.normal()},k{chance.integers(2)}" for day in range(3000)]
    (tmp_path / "data.csv").write_text("\n".join(["day,a,kind", *lines]))
    prepare_data(DataSettings(source=str(tmp_path / "data.csv"), target="kind"), tmp_path / "data")
    data = load_dataset(tmp_path / "data")
    days = np.asarray(data.split("validation").x)[:, 0]
    monkeypatch.setattr("basekamp.data.leakage.MOST_ROWS", 200)
    shift = examine_data(data).shift
    assert shift is not None and shift.auc < 0.6 and shift.stability_index < 0.3
    path = tmp_path / "data" / "validation"
    for part in ("x", "y", "rows"):
        np.save(path / f"{part}.npy", np.load(path / f"{part}.npy")[np.argsort(days)])
    again = examine_data(load_dataset(tmp_path / "data")).shift
    assert again is not None and again.auc < 0.65


def examined(digits: Path, folder: Path, **settings: Any) -> NetworkHealth:
    chosen = Hyperparameters(n_epochs=8, batch_size=32, **settings)
    train_model(digits, folder / "model", chosen, metric="accuracy", seeds=1)
    for told in ("told", "again"):
        evaluate_model(digits, folder / "model" / "model.pth", folder / told, metric="accuracy", examine=True)
    health = read_network_health(folder / "told")
    assert health is not None and health == read_network_health(folder / "again")
    return health


def test_good_network_is_examined_and_fine(digits: Path, tmp_path: Path) -> None:
    health = examined(digits, tmp_path, model="mlp", n_layers=2, width=32, lr=0.003)
    assert len(health.layers) == 3 and all(0 < layer.untrained_gradient < 1 for layer in health.layers)
    assert health.score is not None and health.score > 0.8 and health.dead is not None and health.dead < 0.3


def test_network_that_was_trained_at_a_wild_rate_is_seen(digits: Path, tmp_path: Path) -> None:
    health = examined(digits, tmp_path, model="mlp", n_layers=2, width=32, lr=30.0)
    assert health.score is not None and health.score < 0.5 and health.dead is not None and health.dead > 0.3


def test_own_network_that_cannot_be_looked_into_is_not_measured(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stubborn.py").write_text(
        "import torch\nfrom torch import nn\nclass Net(nn.Module):\n"
        "    def __init__(self, k):\n        super().__init__()\n        self.linear = nn.Linear(64, k)\n"
        "    def forward(self, x):\n        if len(x) == 1024:\n            raise ValueError('not so many')\n"
        "        return self.linear(x.flatten(1))\n"
        "def build(input_shape, n_outputs):\n    return Net(n_outputs)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("basekamp.evaluation.predict.ROWS_AT_ONCE", {"image": 500})
    health = examined(digits, tmp_path, model="stubborn:build")
    assert health.layers == [] and health.dead is None and health.validation_score > 0.5
    silent = Case(BETTER.model_copy(update={"network": health}))
    assert {"dead-units", "vanishing-gradients"} <= set(unknown(silent))


def test_record_of_an_older_release_still_reads() -> None:
    told = json.loads(BASE.model_dump_json())
    del told["network"]
    assert Record.model_validate(told).network is None
