"""The record: everything one result is, as one JSON document beside its model file."""

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from typing import Literal

from basekamp.data.checks import DataFinding
from basekamp.data.contract import Contract
from basekamp.data.facts import Profile
from basekamp.diagnosis.network_health import NetworkHealth
from basekamp.document import Strict
from basekamp.errors import InputError
from basekamp.evaluation.evaluate import Evaluation
from basekamp.evaluation.ladder import Ladder
from basekamp.evaluation.worst import Worst
from basekamp.naming import Name, Value, format_name, parse_name
from basekamp.records.verdict import Comparison, Verdict
from basekamp.training.results import Training

Role = Literal["baseline", "attempt", "imported"]
"""A record is a baseline or an attempt; what is imported is listed beside records, see basekamp.imports."""

BASELINE = "baseline"
RECORD_VERSION = 1
SIGNIFICANT_DIGITS = 5


class DataFacts(Strict):
    """What was learned from: `fingerprint` of the source, `dataset` of the prepared folder, rows per split."""

    source: str
    target: str
    task: str
    fingerprint: str
    dataset: str
    rows: dict[str, int]


class Opening(Strict):
    """One opening of the test split at the champion gate. Means over replicates, on the same rows.

    `number` counts the openings of this experiment so far, this one included.
    """

    number: int
    metrics: dict[str, float]
    replicates: list[dict[str, float]]
    baseline_mean: float
    difference: float
    interval: tuple[float, float]
    champion: str
    champion_mean: float
    passed: bool


class Record(Strict):
    """One result: an attempt (or the baseline) over all its replicates.

    checks: the rules that the data break; contract: of a baseline, what later data are held against.
    """

    version: int = RECORD_VERSION
    id: str
    name: str
    key: str
    experiment: str
    role: Role
    attempt: str
    hypothesis: str
    created: datetime
    run: str
    image: str = ""
    metric: str
    data: DataFacts
    params: dict[str, Value]
    differs: dict[str, tuple[Value | None, Value | None]]
    training: Training
    evaluation: Evaluation
    comparison: Comparison | None
    opening: Opening | None
    ladder: Ladder | None = None
    network: NetworkHealth | None = None
    worst: Worst | None = None
    profile: Profile | None = None
    checks: list[DataFinding] = []
    contract: Contract | None = None
    files: dict[str, str]

    @property
    def verdict(self) -> Verdict | None:
        """The verdict, None for the baseline."""
        return self.comparison.verdict if self.comparison else None

    @property
    def mean(self) -> float:
        """The deciding metric on the validation split, mean over replicates."""
        return self.evaluation.metrics[self.metric]


def record_name(
    record_id: str, params: dict[str, Value], evaluation: Evaluation, comparison: Comparison | None
) -> Name:
    """The name that carries hyperparameters, then n, loss and the deciding metric, its spread, and the verdict."""
    results: dict[str, Value] = {"n": len(evaluation.replicates), "loss": significant(evaluation.metrics["loss"])}
    results[evaluation.metric] = significant(evaluation.metrics[evaluation.metric])
    results["spread"] = significant(evaluation.spread[evaluation.metric], 3)
    if comparison:
        low, high = comparison.interval
        results["difference"] = significant(comparison.difference.value, 3)
        results |= {"low": significant(low, 3), "high": significant(high, 3), "verdict": comparison.verdict}
    fields = {key: value for key, value in params.items() if key != "model"}
    return Name(model=str(params["model"]), fields=fields | results, id=record_id)


def file_name(name: Name, *, first: Collection[str]) -> str:
    """Write a record's name so that the files beside the model, whose extensions are longer, fit as well.

    Where not all fields fit, results stay before those in `first`, and these before the others.

    Raises InputError when the model's name leaves no room for the results.
    """
    keys = list(name.fields)
    results = keys[keys.index("n") :]
    by_rank = {key: name.fields[key] for key in (*results, *first, *keys) if key in name.fields}
    kept = parse_name(format_name(replace(name, fields=by_rank, extension="json"))).fields
    if not kept.keys() >= set(results):
        raise InputError(
            f"model: {name.model} is too long for a record's name, which holds the results as well: "
            "let package.module:callable take at most 80 characters."
        )
    fields = {key: value for key, value in name.fields.items() if key in kept}
    return format_name(replace(name, fields=fields, cut=len(keys) - len(fields)))


def significant(value: float, digits: int = SIGNIFICANT_DIGITS) -> float:
    """Round to significant digits, so that a name stays short."""
    return float(f"{value:.{digits}g}")


def differing(params: dict[str, Value], baseline: dict[str, Value]) -> dict[str, tuple[Value | None, Value | None]]:
    """The hyperparameters that are not alike, as {key: (baseline's, attempt's)}; None where one has no such key."""
    keys = list(baseline) + [key for key in params if key not in baseline]
    return {key: (baseline.get(key), params.get(key)) for key in keys if baseline.get(key) != params.get(key)}
