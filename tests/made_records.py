"""Records made up for tests: a baseline, attempts of each verdict, and what they hold."""

from datetime import UTC, datetime
from typing import Any

from basekamp.evaluation.evaluate import Evaluation, Roc
from basekamp.naming import new_id
from basekamp.records.compare import compare_with
from basekamp.records.record import DataFacts, Opening, Record, differing, file_name, record_name
from basekamp.records.shelf import Row, Shelf, record_key
from basekamp.records.verdict import Difference
from basekamp.training.results import Curves, Replicate, Training

ATTACK = '<script>alert(1)</script> & "quoted" | *bold*\nsecond line'
EMPTY = Shelf("digits", (), ())
LINEAR = {"model": "linear", "n_epochs": 20, "lr": 0.01}
MLP = {"model": "mlp", "n_layers": 2, "act": "relu", "n_epochs": 20, "lr": 0.003}


def make_evaluation(metric: str, means: dict[str, float], **changes: Any) -> Evaluation:
    replicates = [{name: mean + step / 512 for name, mean in means.items()} for step in (-1, 0, 1)]
    fields: dict[str, Any] = {
        "split": "validation",
        "metric": metric,
        "classes": ["no", "yes"],
        "n_examples": 400,
        "metrics": means,
        "spread": dict.fromkeys(means, 1 / 512),
        "floor": {name: mean * 0.6 for name, mean in means.items()},
        "replicates": replicates,
        "shown": 1,
        "confusion": [[180, 20], [3, 197]],
        "roc": Roc(fpr=[0.0, 0.1, 1.0], tpr=[0.0, 0.9, 1.0], thresholds=[1.0, 0.5, 0.0]),
    }
    return Evaluation(**fields | changes)


def make_row(value: float, *, metric: str = "accuracy", experiment: str = "e", role: str = "attempt", **changes) -> Row:
    fields = {
        "name": "linear.pth",
        "key": "e/attempts/a/linear.pth",
        "attempt": "a",
        "id": "r0000001",
        "params": {"model": "linear", "lr": 0.001},
        "metrics": {"loss": 0.5, metric: value},
        "n": 3,
        "spread": 0.01,
        "difference": None,
        "interval": None,
        "verdict": None,
    }
    return Row(experiment=experiment, role=role, metric=metric, **fields | changes)


def make_training(metric: str, params: dict[str, Any], n_epochs: int = 12) -> Training:
    replicates = []
    for seed in range(3):
        falling = [2.0 / (epoch + 1) + seed / 100 for epoch in range(n_epochs - seed + 1)]
        curves = Curves(
            train_loss=falling[1:],
            validation_loss=[value * 1.1 for value in falling],
            validation_metric=[1 - value / 3 for value in falling],
            lr=[0.01] * (len(falling) - 1),
        )
        replicates.append(
            Replicate(seed=seed, n_epochs=n_epochs - seed, best_epoch=7, seconds=1.25, ended="early", curves=curves)
        )
    versions = {"basekamp": "0.1.0", "torch": "2.0"}
    return Training(
        hyperparameters=params, metric=metric, n_parameters=1234, device="cpu", versions=versions, replicates=replicates
    )


def make_record(
    attempt: str,
    means: dict[str, float],
    params: dict[str, Any],
    *,
    metric: str = "accuracy",
    baseline: Record | None = None,
    minute: int = 0,
    hypothesis: str = "",
    expect: float = 0.01,
    noise: float = 1e-6,
    opening: Opening | None = None,
    **changes: Any,
) -> Record:
    evaluation = make_evaluation(metric, means, **changes)
    created = datetime(2026, 1, 1, 12, minute, tzinfo=UTC)
    comparison = None
    if baseline:
        difference = Difference(
            metric=metric,
            value=means[metric] - baseline.mean,
            n_examples=400,
            groups=100,
            n_seeds=(3, 3),
            variance_examples=1e-6,
            variance_seeds_attempt=noise,
            variance_seeds_baseline=1e-8,
        )
        comparison = compare_with(baseline, difference, evaluation, expect=expect, judged_before=2)
    record_id = new_id(created, attempt)
    name = file_name(record_name(record_id, params, evaluation, comparison), first=())
    return Record(
        id=record_id,
        name=name,
        key=record_key("digits", attempt, name),
        experiment="digits",
        role="attempt" if baseline else "baseline",
        attempt=attempt,
        hypothesis=hypothesis,
        created=created,
        run="run-1",
        metric=metric,
        data=DataFacts(
            source="sklearn:digits",
            target="digit",
            task="classification",
            fingerprint="f" * 16,
            dataset="d" * 16,
            rows={"train": 1000, "validation": 400, "test": 397},
        ),
        params=params,
        differs=differing(params, baseline.params) if baseline else {},
        training=make_training(metric, params),
        evaluation=evaluation,
        comparison=comparison,
        opening=opening,
        files={".pth": "a" * 64, ".npz": "b" * 64},
    )


def make_opening(*, passed: bool) -> Opening:
    replicates = [{"accuracy": 0.951, "loss": 0.1}, {"accuracy": 0.953, "loss": 0.2}]
    means = {"accuracy": 0.952, "loss": 0.15}
    return Opening(
        number=2,
        metrics=means,
        replicates=replicates,
        baseline_mean=0.8911,
        difference=0.0609,
        interval=(0.0512, 0.0706),
        champion="r0000000abcde",
        champion_mean=0.9123 if passed else 0.9666,
        passed=passed,
    )


BASE = make_record("baseline", {"accuracy": 0.9012, "f1": 0.8956, "loss": 0.3456}, LINEAR)
BETTER = make_record(
    "deeper", {"accuracy": 0.9533, "f1": 0.9421, "loss": 0.1577}, MLP, baseline=BASE, minute=1, hypothesis=ATTACK
)
WORSE = make_record(
    "worse", {"accuracy": 0.8765, "f1": 0.86, "loss": 0.4}, LINEAR | {"lr": 1.0}, baseline=BASE, minute=2
)
UNSURE = make_record(
    "unsure", {"accuracy": 0.9052, "f1": 0.89, "loss": 0.33}, LINEAR | {"lr": 0.02}, baseline=BASE, minute=3, noise=2e-5
)
PASSED = BETTER.model_copy(update={"opening": make_opening(passed=True)})
FAILED = BETTER.model_copy(update={"opening": make_opening(passed=False)})
RMSE_BASE = make_record("baseline", {"rmse": 50.0, "r2": 0.4, "loss": 2500.0}, LINEAR, metric="rmse", roc=None)
RMSE = make_record(
    "mlp",
    {"rmse": 44.0, "r2": 0.6, "loss": 1936.0},
    MLP,
    metric="rmse",
    baseline=RMSE_BASE,
    minute=1,
    expect=2.0,
    classes=[],
    confusion=[],
    roc=None,
)
