"""Versions, contracts, drift and leaks of real and small data sets, and what becomes of a run that breaks a rule."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine

from basekamp.data.checks import DataFinding, check_dataset, stop_sentence
from basekamp.data.contract import Contract, read_contract
from basekamp.data.dataset import Dataset
from basekamp.data.prepare import prepare_data
from basekamp.data.rules import RULES
from basekamp.data.table import Table
from basekamp.data.version import content_version, data_version
from basekamp.errors import InputError
from basekamp.experiment import DataSettings, Split, load_experiment

CELLS: dict[str, Any] = {
    "number": st.one_of(st.none(), st.integers(-(2**62), 2**62)),
    "float": st.one_of(st.none(), st.floats(allow_nan=False)),
    "text": st.one_of(st.none(), st.text(alphabet="abÅ,1 ", max_size=3)),
    "flag": st.one_of(st.none(), st.booleans()),
}
TYPES = {"number": pl.Int64, "float": pl.Float64, "text": pl.String, "flag": pl.Boolean}
Tables = st.lists(st.fixed_dictionaries(CELLS), min_size=1, max_size=8)


def table(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=TYPES)


# -- versions


def version(frame: pl.DataFrame) -> str:
    return content_version(Table([frame.lazy()], "t"))


@settings(deadline=None)
@given(Tables, st.randoms(use_true_random=False))
def test_version_by_content_knows_no_order(rows: list[dict[str, Any]], chance: Any) -> None:
    shuffled, names = chance.sample(rows, len(rows)), chance.sample(sorted(TYPES), 4)
    assert version(table(rows)) == version(table(shuffled).select(names))


@settings(deadline=None)
@given(Tables, st.data())
def test_version_by_content_changes_with_any_cell_and_any_row(rows: list[dict[str, Any]], data: Any) -> None:
    before, place = version(table(rows)), data.draw(st.integers(0, len(rows) - 1))
    name = data.draw(st.sampled_from(sorted(CELLS)))
    cell = data.draw(CELLS[name].filter(lambda value: value != rows[place][name]))
    changed = [row | {name: cell} if i == place else row for i, row in enumerate(rows)]
    others = [changed, rows[:place] + rows[place + 1 :], [*rows, rows[place]], [*rows, rows[place], rows[place]]]
    versions = [version(table(other)) for other in others]
    assert before not in versions and len(set(versions)) == len(versions)


def test_version_by_content_changes_when_a_column_is_renamed_or_two_cells_change_places() -> None:
    frame = pl.DataFrame({"a": [1, 2, 3], "b": [4, 5, 6]})
    others = [frame.rename({"a": "c"}), frame.rename({"a": "b", "b": "a"}), frame.with_columns(a=pl.Series([2, 1, 3]))]
    assert len({version(one) for one in [frame, *others]}) == 4


def test_rows_that_occur_twice_do_not_cancel_out() -> None:
    one, other = pl.DataFrame({"a": [1, 1, 3]}), pl.DataFrame({"a": [2, 2, 3]})
    assert version(one) != version(other) != version(pl.DataFrame({"a": [2, 3, 3]}))


def test_version_by_content_is_one_for_csv_and_parquet_and_two_by_bytes(tmp_path: Path) -> None:
    frame = pl.DataFrame({"n": [1, None, 3], "x": [1.0, 2.5, None], "t": ["a", "ü", None], "kind": ["u", "v", "u"]})
    frame.write_csv(tmp_path / "t.csv")
    frame[::-1].select(sorted(frame.columns)).with_columns(pl.col("n").cast(pl.Float64)).write_parquet(
        tmp_path / "t.parquet"
    )
    both = [
        [data_version(DataSettings(source=str(tmp_path / name), target="kind", version=version)) for name in names]
        for version, names in (("content", ("t.csv", "t.parquet")), ("bytes", ("t.csv", "t.parquet")))
    ]
    assert len(set(both[0])) == 1 and len(both[0][0]) == 32
    assert len(set(both[1])) == 2


def test_data_set_of_a_version_is_the_same_however_the_source_lays_it_out(tmp_path: Path) -> None:
    frame = breast()
    frame.write_csv(tmp_path / "t.csv")
    frame[np.random.default_rng(1).permutation(frame.height)].select(sorted(frame.columns)).write_parquet(
        tmp_path / "t.parquet"
    )
    sets = [
        prepare_data(
            given_ := DataSettings(source=str(tmp_path / name), target="kind", version="content"),
            tmp_path / f"{name}-data",
            fingerprint=data_version(given_),
        )
        for name in ("t.csv", "t.parquet")
    ]
    assert sets[0].schema.dataset_fingerprint == sets[1].schema.dataset_fingerprint
    with pytest.raises(InputError, match="changed"):
        prepare_data(given_, tmp_path / "other", fingerprint="0" * 32)


# -- contracts and drift


def breast() -> pl.DataFrame:
    loaded = load_breast_cancer(as_frame=True)
    return pl.from_pandas(loaded.data.iloc[:, :10]).with_columns(kind=pl.Series(loaded.target.to_numpy()))


def adults(n: int, seed: int, **changes: Callable[[np.random.Generator], np.ndarray]) -> pl.DataFrame:
    """People as a census has them: numbers, categories, gaps, and a label that depends on them."""
    chance = np.random.default_rng(seed)
    drawn: dict[str, Any] = {
        "age": lambda chance: chance.integers(17, 90, n),
        "hours": lambda chance: chance.normal(40, 12, n).round(),
        "gain": lambda chance: np.where(chance.random(n) < 0.9, 0, chance.lognormal(8, 1, n)),
        "job": lambda chance: chance.choice(["clerk", "craft", "sales", "tech"], n, p=[0.4, 0.3, 0.2, 0.1]),
        "gaps": lambda chance: np.where(chance.random(n) < 0.1, np.nan, chance.normal(size=n)),
    } | changes
    columns = {name: draw(chance) for name, draw in drawn.items() if name != "rich"}
    rich = 0.05 * columns["age"] + 0.05 * columns["hours"] + chance.normal(size=n) > 4.6
    values = drawn["rich"](chance) if "rich" in drawn else np.where(rich, "yes", "no")
    frame = pl.DataFrame(columns, strict=False).with_columns(rich=pl.Series(values))
    return frame.with_columns(pl.selectors.float().fill_nan(None))


def prepared(folder: Path, frame: pl.DataFrame, target: str = "rich", **given: Any) -> Dataset:
    folder.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(folder / "t.parquet")
    return prepare_data(DataSettings(source=str(folder / "t.parquet"), target=target, **given), folder / "data")


def contract_of(data: Dataset) -> Contract:
    contract, sample = read_contract(data.directory)
    return Contract.model_validate_json(contract.with_rows(sample).model_dump_json())  # as a record gives it back


def found(data: Dataset, baseline: Contract | None = None, **checks: Any) -> dict[str, str]:
    return {one.rule: one.sentence for one in check_dataset(data.directory, {**RULES, **checks}, baseline=baseline)}


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Contract:
    return contract_of(prepared(tmp_path_factory.mktemp("baseline"), adults(1500, seed=1000)))


def test_no_false_alarm_in_20_data_sets_of_the_same_distribution(tmp_path: Path, baseline: Contract) -> None:
    alarms = [found(prepared(tmp_path / str(seed), adults(1500, seed)), baseline) for seed in range(20)]
    assert alarms == [{}] * 20


@pytest.mark.parametrize("load", [load_breast_cancer, load_wine, load_diabetes], ids=["breast", "wine", "diabetes"])
def test_no_false_alarm_between_halves_of_real_data(tmp_path: Path, load: Callable[..., Any]) -> None:
    loaded = load(as_frame=True)
    frame = pl.from_pandas(loaded.data).with_columns(y=pl.Series(loaded.target.to_numpy()))
    alarms = []
    for seed in range(5):
        rows = np.random.default_rng(seed).permutation(frame.height)
        halves = [
            prepared(tmp_path / f"{seed}-{i}", frame[half], "y") for i, half in enumerate(np.array_split(rows, 2))
        ]
        alarms.append({key for key in found(halves[1], contract_of(halves[0])) if key in ("schema", "drift")})
    assert alarms == [set()] * 5


N = 1500
DRIFTS: dict[str, tuple[dict[str, Any], str]] = {
    "mean": ({"hours": lambda c: c.normal(50, 12, N).round()}, "hours is distributed otherwise"),
    "range": ({"age": lambda c: np.where(c.random(N) < 0.03, 130, c.integers(17, 90, N))}, "age has values above 89"),
    "shares of categories": (
        {"job": lambda c: c.choice(["clerk", "craft", "sales", "tech"], N, p=[0.1, 0.2, 0.3, 0.4])},
        "job is distributed otherwise",
    ),
    "a new category": (
        {"job": lambda c: c.choice(["clerk", "craft", "sales", "tech", "nurse"], N, p=[0.38, 0.28, 0.2, 0.1, 0.04])},
        "job has new categories, in",
    ),
    "missing values": (
        {"gaps": lambda c: np.where(c.random(N) < 0.25, np.nan, c.normal(size=N))},
        "gaps is missing in 2[0-9].[0-9]% of the rows instead of",
    ),
    "label shares": ({"rich": lambda c: np.where(c.random(N) < 0.9, "yes", "no")}, "rich is distributed otherwise"),
}


@pytest.mark.parametrize("name", DRIFTS)
def test_drift_is_found_and_named(tmp_path: Path, baseline: Contract, name: str) -> None:
    changes, told = DRIFTS[name]
    alarm = found(prepared(tmp_path, adults(N, 7, **changes)), baseline)
    assert set(alarm) == {"drift"}
    assert pl.Series([alarm["drift"]]).str.contains(told).all(), alarm


def test_classifier_finds_what_no_single_column_shows(tmp_path: Path) -> None:
    one, other = np.random.default_rng(0).normal(size=(2, 1500))
    frame = pl.DataFrame({"a": one, "b": one + 0.3 * other, "y": np.where(other > 0, "u", "v")})
    apart = frame.with_columns(b=-pl.col("b"))
    base = contract_of(prepared(tmp_path / "base", frame, "y"))
    alarm = found(prepared(tmp_path / "now", apart, "y"), base)
    assert "a classifier tells the rows" in alarm["drift"] and "distributed otherwise" not in alarm["drift"]
    assert found(prepared(tmp_path / "now", apart, "y"), base.model_copy(update={"rows": ""})) == {}


SCHEMAS: dict[str, tuple[Callable[[pl.DataFrame], pl.DataFrame], str]] = {
    "new": (lambda frame: frame.with_columns(more=pl.col("age") * 2), "more is new"),
    "missing": (lambda frame: frame.drop("gain"), "gain is missing"),
    "type": (lambda frame: frame.with_columns(pl.col("age").cast(pl.String) + "y"), "age holds values of type text"),
    "class": (
        lambda frame: frame.with_columns(rich=pl.when(pl.col("age") < 25).then(pl.lit("maybe")).otherwise("rich")),
        "class 'maybe' is new",
    ),
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_change_of_schema_is_found_and_named(tmp_path: Path, baseline: Contract, name: str) -> None:
    change, told = SCHEMAS[name]
    alarm = found(prepared(tmp_path, change(adults(N, 7))), baseline, drift="off")
    assert set(alarm) == {"schema"} and told in alarm["schema"]


def test_integers_that_become_floats_are_no_other_schema(tmp_path: Path, baseline: Contract) -> None:
    assert found(prepared(tmp_path, adults(N, 7).with_columns(pl.col("age").cast(pl.Float64))), baseline) == {}


def test_contract_counts_the_codes_that_it_gives(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    values = chance.normal(size=600)
    frame = pl.DataFrame(
        {
            "number": values,
            "ties": chance.integers(0, 3, 600),
            "endless": np.where(values > 1, np.inf, np.where(values < -1, -np.inf, values)),
            "gaps": pl.Series([None if v > 0.5 else v for v in values.tolist()]),
            "text": [None if v > 1.5 else f"t{min(int(v * 20), 9)}" for v in values.tolist()],
            "flag": values > 0.3,
            "day": pl.Series([int(v * 1e9) for v in values.tolist()]).cast(pl.Datetime("us")),
            "y": (values > 0).astype(int),
        }
    )
    contract, sample = read_contract(prepared(tmp_path, frame, "y").directory)
    assert [column.kind for column in contract.columns] == ["number"] * 4 + ["text", "bool", "date"]
    for column in (*contract.columns, contract.target):
        codes = np.bincount(column.codes(sample[column.name]), minlength=len(column.counts))
        assert codes.tolist() == list(column.counts), column.name


def test_contract_is_bounded_and_holds_no_text_that_few_rows_share(tmp_path: Path) -> None:
    wide = {f"c{i}": np.random.default_rng(i).normal(size=400) for i in range(330)}
    frame = pl.DataFrame(wide | {"name": [f"Jane Doe {i}" for i in range(400)], "y": ["u", "v"] * 200})
    contract = contract_of(prepared(tmp_path, frame.select("name", *wide, "y"), "y"))
    assert len(contract.columns) == 300 and contract.n_columns == 331
    assert len(contract.model_dump_json()) < 600_000 and "Jane" not in contract.model_dump_json()


def test_damaged_rows_of_a_contract_are_no_rows(baseline: Contract) -> None:
    assert len(baseline.kept_codes()) > 500
    for rows in ("", "no base 85 \\", baseline.rows[:100]):
        assert baseline.model_copy(update={"rows": rows}).kept_codes().shape == (0, 6)


# -- leaks


def test_leaking_feature_is_found(tmp_path: Path) -> None:
    frame = adults(800, 3).with_columns(refund=(pl.col("rich") == "yes").cast(pl.Float64) + pl.col("age") / 1000)
    alarm = found(prepared(tmp_path, frame))
    assert set(alarm) == {"leaking_feature"}
    assert "refund alone tells the target" in alarm["leaking_feature"] and "data.drop: [refund]" in str(alarm)


def test_duplicates_across_splits_are_found_with_their_source_rows(tmp_path: Path) -> None:
    frame = adults(400, 3).with_columns(id=pl.arange(400))
    again = frame[:60].with_columns(id=pl.arange(400, 460))  # dropped, but by it the rows are not exact duplicates
    flipped = again.with_columns(rich=pl.when(pl.col("rich") == "yes").then(pl.lit("no")).otherwise(pl.lit("yes")))
    data = prepared(tmp_path, pl.concat([frame, flipped]), drop=("id",))
    alarm = found(data)
    assert set(alarm) == {"duplicates"}
    pairs = alarm["duplicates"].partition("source rows ")[2].partition(";")[0].split(", ")
    assert len(pairs) == 5
    whole = pl.read_parquet(tmp_path / "t.parquet").drop("id", "rich")
    for pair in pairs:
        known, row = map(int, pair.split(" = "))
        assert whole.row(known - 1) == whole.row(row - 1) and abs(known - row) == 400


@pytest.mark.parametrize("as_text", [True, False])
def test_group_leak_is_found_and_gone_with_a_split_by_group(tmp_path: Path, as_text: bool) -> None:
    chance = np.random.default_rng(5)
    patient = chance.permutation(np.repeat(np.arange(200), 5))
    ill = chance.random(200) < 0.5
    names = chance.permutation(10_000)[:200]
    number = pl.Series("patient", names[patient])
    frame = pl.DataFrame({"x": chance.normal(size=1000), "y": np.where(ill[patient], "ill", "well")}).with_columns(
        number.cast(pl.String) + "p" if as_text else number
    )
    alarm = found(prepared(tmp_path, frame, "y"))
    assert set(alarm) == {"group"} and "data.split.group: patient" in alarm["group"]
    one, other = map(int, alarm["group"].partition("source rows ")[2].partition(")")[0].split(" and "))
    assert frame["patient"][one - 1] == frame["patient"][other - 1] and one != other
    assert found(prepared(tmp_path / "grouped", frame, "y", split=Split(group="patient"))) == {}


def test_ordinary_integers_and_categories_are_no_groups(tmp_path: Path) -> None:
    frame = adults(1500, 3)  # age has 73 values of 20 rows each, and tells the target
    assert found(prepared(tmp_path, frame)) == {}
    real = [(load_diabetes, "diabetes"), (load_breast_cancer, "breast"), (load_wine, "wine")]
    for load, name in real:
        loaded = load(as_frame=True, **({"scaled": False} if name == "diabetes" else {}))
        table = pl.from_pandas(loaded.data).with_columns(y=pl.Series(loaded.target.to_numpy()))
        assert "group" not in found(prepared(tmp_path / name, table, "y"))


def log(n: int = 600) -> pl.DataFrame:
    days = pl.datetime_range(pl.datetime(2024, 1, 1), pl.datetime(2026, 1, 1), "1d", eager=True)[:n]
    x = np.random.default_rng(2).normal(size=n)
    return pl.DataFrame({"day": days, "x": x, "y": np.where(x > 0, "up", "down")})


@pytest.mark.parametrize("drop", [(), ("day",)])
def test_time_leak_is_found_and_gone_with_a_split_by_time(tmp_path: Path, drop: tuple[str, ...]) -> None:
    given_: dict[str, Any] = {"drop": drop, "target": "y"}
    alarm = found(prepared(tmp_path, log(), **given_), leaking_feature="off")
    assert set(alarm) == {"time"} and "data.split.time: day" in alarm["time"]
    data = prepared(tmp_path / "timed", log(), **given_, split=Split(time="day"))
    assert found(data, leaking_feature="off") == {}
    assert data.schema.rows == {"train": 390, "validation": 90, "test": 120}
    shuffled = log()[np.random.default_rng(0).permutation(600)]
    assert found(prepared(tmp_path / "shuffled", shuffled, **given_), leaking_feature="off") == {}


def test_split_by_time_puts_the_newest_rows_to_test_and_equal_times_together(tmp_path: Path) -> None:
    frame = log().with_columns(week=pl.col("day").dt.epoch("d") // 30)
    data = prepared(tmp_path, frame.sample(fraction=1, shuffle=True, seed=4), "y", split=Split(time="week"))
    weeks = {}
    index = next(i for i, one in enumerate(data.schema.features) if one.name == "week")
    for name in ("train", "validation", "test"):
        weeks[name] = data.split(name).x[:, index]
    assert weeks["train"].max() < weeks["validation"].min() and weeks["validation"].max() < weeks["test"].min()


def test_split_by_time_refuses_a_column_of_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name a column of dates or numbers"):
        prepared(tmp_path, adults(200, 3), split=Split(time="job"))


# -- actions


def test_stops_are_one_sentence_with_a_remedy_and_warnings_stop_nothing() -> None:
    findings = [
        DataFinding(rule="drift", action="warn", sentence="w."),
        DataFinding(rule="group", action="stop", sentence="Rows of one id; keep them."),
        DataFinding(rule="time", action="stop", sentence="Past; split."),
    ]
    assert stop_sentence(findings[:1]) == ""
    assert stop_sentence(findings) == (
        "Rows of one id; keep them (and time), or let it pass with data.checks: {group: warn, time: warn}."
    )


@pytest.mark.parametrize(
    ("checks", "told"),
    [
        ("{drfit: stop}", "line 5: data.checks.drfit is not a known key: did you mean drift? Allowed: schema, drift, "),
        ("{drift: stpo}", "data.checks.drift='stpo' is not allowed: use stop, warn or off (did you mean stop?)."),
        ("{time: }", "data.checks.time is empty: use stop, warn or off."),
        ("stop", "data.checks='stop' is not allowed: use a mapping from rules to stop, warn or off, such as {drift: "),
    ],
)
def test_unknown_rules_and_actions_are_refused(tmp_path: Path, checks: str, told: str) -> None:
    lines = [
        "experiment: e",
        "data:",
        "  source: t.csv",
        "  target: y",
        f"  checks: {checks}",
        "metric: {name: accuracy}",
    ]
    (tmp_path / "e.yaml").write_text("\n".join(lines))
    with pytest.raises(InputError) as refused:
        load_experiment(tmp_path / "e.yaml")
    assert told in str(refused.value)


def test_rules_that_the_file_leaves_out_keep_their_action() -> None:
    assert DataSettings(source="t.csv", target="y", checks={"drift": "off"}).checks == {**RULES, "drift": "off"}
