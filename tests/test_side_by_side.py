"""Records side by side: which are meant, what differs, how far they are apart, and how it is shown."""

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from basekamp.errors import InputError
from basekamp.evaluation.evaluate import Predictions
from basekamp.records.record import Record
from basekamp.records.shelf import PREDICTIONS, RECORD, read_shelves, stem
from basekamp.records.side_by_side import SideBySide, choose_rows, cost, provenance, put_side_by_side
from basekamp.records.verdict import Difference, measure_difference
from basekamp.report.comparison import BLOCKS, comparison_html, comparison_table, sparkline
from basekamp.storage import Store, open_store
from basekamp.training.results import Performance, Seconds
from tests.made_records import ATTACK, BASE, BETTER, MLP, RMSE_BASE, UNSURE, make_record

BASEKAMP = Path(sys.executable).with_name("basekamp")
ROWS = np.arange(200, dtype=np.uint64)


def predictions(right: float, *, rows: np.ndarray = ROWS) -> Predictions:
    """Three replicates of a classifier of two classes that is right so often."""
    rng = np.random.default_rng(int(100 * right))
    targets = np.arange(len(rows)) % 2
    outputs = np.zeros((3, len(rows), 2), dtype=np.float32)
    for replicate in outputs:
        is_right = rng.random(len(rows)) < right
        replicate[np.arange(len(rows)), np.where(is_right, targets, 1 - targets)] = 1.0
    return Predictions(rows=rows, targets=targets, outputs=outputs)


def put(store: Store, record: Record, told: Predictions | None, folder: Path, *, experiment: str = "digits") -> None:
    key = stem(record.key).replace("digits/", f"{experiment}/", 1)
    if told:
        told.write(folder / "told.npz")
        store.put(key + PREDICTIONS, folder / "told.npz")
    store.put(key + RECORD, record.model_dump_json().encode())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = open_store(str(tmp_path / "store"))
    put(opened, BASE, predictions(0.8), tmp_path)
    put(opened, BETTER, predictions(0.95), tmp_path)
    put(opened, UNSURE, predictions(0.81, rows=ROWS + np.uint64(10_000)), tmp_path)
    return opened


def beside(store: Store, *names: str) -> SideBySide:
    return put_side_by_side(store, choose_rows(read_shelves(store), names))


@pytest.mark.parametrize("name", ["deeper", BETTER.id, BETTER.name, BETTER.key])
def test_record_is_meant_by_attempt_id_name_or_key(store: Store, name: str) -> None:
    assert [record.id for record in beside(store, "baseline", name).records] == [BASE.id, BETTER.id]


def test_attempt_means_its_latest_record_and_champion_the_champion(store: Store, tmp_path: Path) -> None:
    later = make_record("deeper", {"accuracy": 0.9, "f1": 0.9, "loss": 0.2}, MLP, baseline=BASE, minute=9)
    put(store, later, predictions(0.9), tmp_path)
    assert [record.id for record in beside(store, "champion", "deeper").records] == [BASE.id, later.id]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["baseline"], "1 records are not allowed: give 2 to 6"),
        (["deeper"] * 7, "7 records are not allowed"),
        (["baseline", "champion"], "is a record that is named twice"),
        (["baseline", "nobody"], "nobody is no record of this store"),
    ],
)
def test_names_that_mean_nothing_are_refused(store: Store, names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose_rows(read_shelves(store), names)


def test_attempt_of_several_experiments_is_refused_with_the_option_that_helps(store: Store, tmp_path: Path) -> None:
    put(store, BETTER, None, tmp_path, experiment="other")
    with pytest.raises(InputError, match=r"several experiments \(digits, other\): give --experiment"):
        choose_rows(read_shelves(store), ["baseline", "deeper"])


def test_records_of_other_metrics_or_experiments_are_refused(store: Store, tmp_path: Path) -> None:
    put(store, RMSE_BASE, None, tmp_path, experiment="prices")
    rows = [row for shelf in read_shelves(store) for row in shelf.rows]
    with pytest.raises(InputError, match="is of prices and .* of digits: compare records of one experiment"):
        put_side_by_side(store, [rows[0], rows[-1]])
    with pytest.raises(InputError, match="was judged by rmse and .* by accuracy"):
        put_side_by_side(store, [rows[0], replace(rows[-1], experiment="digits")])


def test_records_without_any_difference_or_noise_have_no_probability(store: Store, tmp_path: Path) -> None:
    same = make_record("same", {"accuracy": 0.9, "f1": 0.9, "loss": 0.2}, MLP, baseline=BASE, minute=8)
    one = predictions(0.8)
    alike = Predictions(rows=one.rows, targets=one.targets, outputs=np.repeat(one.outputs[:1], 3, axis=0))
    put(store, same, alike, tmp_path)
    twin = same.model_copy(update={"id": "r1234567abcde", "key": same.key.replace(same.id, "r1234567abcde")})
    put(store, twin, alike, tmp_path)
    told = beside(store, same.id, twin.id).as_json()
    assert json.loads(json.dumps(told, allow_nan=False))["differences"][0]["p_better"] is None


def test_difference_is_what_verdicts_rest_on_and_only_what_differs_is_told(store: Store) -> None:
    told = beside(store, "baseline", "deeper")
    expected = measure_difference("accuracy", predictions(0.95), predictions(0.8))
    (gap,) = told.gaps
    assert (gap.difference, gap.interval) == (expected.value, expected.interval())
    assert gap.p_better == expected.probability_better() > 0.975
    assert told.settings == {
        "model": ["linear", "mlp"],
        "lr": [0.01, 0.003],
        "n_layers": [None, 2],
        "act": [None, "relu"],
    }
    assert told.provenance == {}


def test_partly_shared_examples_are_told(store: Store, tmp_path: Path) -> None:
    told = predictions(0.9)
    kept = slice(0, len(told.rows) * 3 // 4)
    fewer = Predictions(rows=told.rows[kept], targets=told.targets[kept], outputs=told.outputs[:, kept])
    part = make_record("part", {"accuracy": 0.9, "f1": 0.9, "loss": 0.2}, MLP, baseline=BASE, minute=8)
    put(store, part, fewer, tmp_path)
    told_of = beside(store, "baseline", "deeper", "part")
    sentence = f"on {kept.stop} of {len(told.rows)} examples, which both share"
    assert [gap.partly for gap in told_of.gaps] == ["", sentence]
    console = Console(width=200)
    with console.capture() as captured:
        console.print(comparison_table(told_of))
    assert sentence in comparison_html(told_of) and sentence in captured.get()


def test_without_common_examples_or_predictions_there_is_no_interval(store: Store, tmp_path: Path) -> None:
    gap = beside(store, "deeper", "unsure").gaps[0]
    assert (gap.interval, gap.p_better, gap.why) == (None, None, "measured on other examples")
    assert gap.difference == pytest.approx(UNSURE.mean - BETTER.mean)
    store.delete(stem(BETTER.key) + PREDICTIONS)
    assert beside(store, "baseline", "deeper").gaps[0].why == "its predictions were removed"


@pytest.mark.parametrize("variances", [(1e-4, 0.0, 0.0), (0.0, 1e-4, 2e-5), (3e-5, 1e-4, 1e-6)])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("metric", ["accuracy", "rmse"])
def test_probability_better_is_where_the_interval_leaves_zero(
    metric: str, level: float, variances: tuple[float, float, float]
) -> None:
    names = ("variance_examples", "variance_seeds_attempt", "variance_seeds_baseline")
    fields = {
        "metric": metric,
        "n_examples": 100,
        "groups": 100,
        "n_seeds": (3, 5),
        **dict(zip(names, variances, strict=True)),
    }
    half = Difference(value=0.0, **fields).half_width(level)
    probabilities = [Difference(value=value, **fields).probability_better() for value in (half, -half, 0.0)]
    better, worse = (0.5 + level / 2, 0.5 - level / 2)[:: 1 if metric == "accuracy" else -1]
    assert probabilities == pytest.approx([better, worse, 0.5], abs=1e-6)


def test_nothing_that_varies_is_certain_or_unknown() -> None:
    fields = {"metric": "accuracy", "n_examples": 9, "groups": 9, "n_seeds": (2, 2), "variance_examples": 0.0}
    fields |= {"variance_seeds_attempt": 0.0, "variance_seeds_baseline": 0.0}
    assert Difference(value=0.1, **fields).probability_better() > 0.999
    assert math.isnan(Difference(value=0.0, **fields).probability_better())


def test_sparkline_goes_from_low_to_high_and_leaves_gaps() -> None:
    assert sparkline([0.0, 0.5, 1.0], 0.0, 1.0) == "▁▅█"
    assert sparkline([0.0, math.nan, 1.0], 0.0, 1.0) == "▁ █"
    assert sparkline([2.0, 2.0], 2.0, 2.0) == "▁▁"
    long = sparkline(list(range(1000)), 0, 999)
    assert len(long) <= 26 and long[0] == BLOCKS[0] and long[-1] == BLOCKS[-1]


def test_table_shows_direction_interval_and_curves(store: Store) -> None:
    console = Console(width=160)
    with console.capture() as captured:
        console.print(comparison_table(beside(store, "baseline", "deeper", "unsure")))
    text = captured.get()
    assert re.search(r"difference in accuracy +– +\+0\.\d+ ", text) and "not known: measured on other examples" in text
    assert text.count("█") >= 6 and "[" not in text


def test_page_shows_all_and_escapes_and_loads_nothing(store: Store) -> None:
    hostile = BETTER.model_copy(update={"attempt": ATTACK})
    told = beside(store, "baseline", "deeper")
    page = comparison_html(SideBySide([BASE, hostile], "accuracy", told.settings, told.provenance, told.gaps))
    assert page == comparison_html(SideBySide([BASE, hostile], "accuracy", told.settings, told.provenance, told.gaps))
    assert "<script" not in page and "&lt;script&gt;" in page and page.count("<svg") == 3
    assert not re.search(r"(?:src|href)=\"(?!#)|url\((?!#)|@import", page)


def test_provenance_and_cost_of_a_record() -> None:
    told = provenance(BETTER.model_copy(update={"training": BETTER.training.model_copy(update={"commit": "abc+123"})}))
    assert told["commit"] == "abc+123" and told["seeds"] == "0, 1, 2" and told["seconds"] == "3.8"
    assert provenance(BETTER)["commit"] == "unknown"
    performance = Performance(device="NVIDIA L4", processes=2, seconds=Seconds(total=1800.0))
    record = BETTER.model_copy(update={"training": BETTER.training.model_copy(update={"performance": performance})})
    assert (cost(record, "2.5 EUR"), cost(record, "")) == ("2.5 EUR", "")
    with pytest.raises(InputError, match="the price 'much' is not allowed: give an amount and a currency"):
        cost(record, "much")


def command(store: Store, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BASEKAMP, *arguments, "--store", store.url], capture_output=True, text=True)


def test_command_compares_and_writes_a_page(store: Store, tmp_path: Path) -> None:
    done = command(store, "compare", "baseline", "deeper", "--html", str(tmp_path / "page.html"))
    assert done.returncode == 0 and "P(better)" in done.stdout and (tmp_path / "page.html").stat().st_size > 10_000
    told = json.loads(command(store, "compare", "baseline", BETTER.id, "--experiment", "digits", "--json").stdout)
    assert told["differences"][0]["difference"] == pytest.approx(0.15, abs=0.05)
    assert command(store, "compare", "baseline", "nobody").returncode == 2
    shown = command(store, "show", BETTER.id, "--price", "3600000 EUR").stdout
    assert re.search(r"cost +3750 EUR at 3600000 EUR an hour", shown) and re.search(r"commit +unknown", shown)
