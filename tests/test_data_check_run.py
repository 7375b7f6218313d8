"""Checks of data in whole runs: what stops one, what is recorded, and what a report says."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from basekamp.cli import main
from basekamp.data.checks import DataFinding, check_dataset
from basekamp.data.contract import read_contract
from basekamp.data.prepare import prepare_data
from basekamp.data.rules import RULES
from basekamp.errors import InputError
from basekamp.experiment import DataSettings
from basekamp.language import Phrase, speaking
from basekamp.records.data_check import CheckedData, check_data
from basekamp.records.record import Record
from basekamp.records.shelf import Shelf, read_record, read_shelf
from basekamp.report.attempt import attempt_html, attempt_markdown
from basekamp.storage import open_store
from tests.made_records import ATTACK, BASE, EMPTY

FILE = """
experiment: hills
data: {source: SOURCE, target: kind, checks: CHECKS}
metric: {name: accuracy}
seeds: 2
baseline: {model: linear, n_epochs: 2}
attempts: {wider: {hypothesis: Wider is better., expect: 0.01, model: mlp, n_layers: 1, width: 8}}
"""


def write(folder: Path, *, shift: float = 0.0, checks: str = "{}", header: str = "a,b,kind") -> Path:
    a, b = np.random.default_rng(int(shift)).normal(size=(2, 400))
    lines = [f"{a[i] + shift:.6f},{b[i]:.6f},{'up' if a[i] > 0 else 'down'}" for i in range(400)]
    (folder / "t.csv").write_text("\n".join([header, *lines]))
    (folder / "e.yaml").write_text(FILE.replace("SOURCE", str(folder / "t.csv")).replace("CHECKS", checks))
    return folder


def run(folder: Path, attempt: str) -> Result:
    return CliRunner().invoke(
        main, ["run", str(folder / "e.yaml"), "--store", str(folder / "store"), "--attempt", attempt]
    )


def shelf(folder: Path) -> Shelf:
    return read_shelf(open_store(str(folder / "store")), "hills")


def records(folder: Path) -> list[Record]:
    return [read_record(open_store(str(folder / "store")), row) for row in shelf(folder).rows]


def test_data_warn_in_run_log_record_and_report_and_changed_data_stop_with_nothing_lost(
    tmp_path: Path, home: Path
) -> None:
    told = run(write(tmp_path), "baseline")
    assert told.exit_code == 0 and told.output.count("warning: leaking_feature: a alone tells the target") == 1
    (base,) = records(tmp_path)
    assert [(one.rule, one.action) for one in base.checks] == [("leaking_feature", "warn")]
    assert base.contract is not None and len(base.contract.kept_codes()) == base.contract.n_rows
    page = open_store(str(tmp_path / "store")).get(shelf(tmp_path).rows[0].beside(".html")).decode()
    assert "a alone tells the target" in page
    log = next((home / "logs").glob("*.log")).read_text()
    assert "warning: leaking_feature: a alone tells the target" in log

    stopped = run(write(tmp_path, shift=2, checks="{drift: stop}"), "wider")
    assert stopped.exit_code == 2 and "✗ check-data" in stopped.output and "train-model" not in stopped.output
    (line,) = [line for line in stopped.output.splitlines() if "drifted" in line]
    assert "a is distributed otherwise" in line and line.endswith("data.checks: {drift: warn}.")
    assert records(tmp_path) == [base]

    write(tmp_path, header="a,c,kind")
    prepare_data(DataSettings(source=str(tmp_path / "t.csv"), target="kind"), tmp_path / "data")
    where = {"store": str(tmp_path / "store"), "experiment": "hills"}
    with pytest.raises(InputError, match="The columns are not the baseline's: b is missing, c is new; "):
        check_data(tmp_path / "data", tmp_path / "checked", {}, **where, attempt="wider")
    assert check_data(tmp_path / "data", tmp_path / "checked", {}, **where, attempt="baseline").compared is False


def test_findings_are_escaped_in_reports() -> None:
    record = BASE.model_copy(update={"checks": [DataFinding(rule="drift", action="warn", sentence=ATTACK)]})
    assert "<script>alert(1)" not in attempt_html(record, None, EMPTY)
    assert "&lt;script&gt;alert(1)" in attempt_html(record, None, EMPTY)
    assert "## Rules that the data break" in attempt_markdown(record, None) and "<script>" not in attempt_markdown(
        record, None
    )


def test_findings_are_told_in_korean_with_what_the_data_say_escaped(tmp_path: Path) -> None:
    data = prepare_data(DataSettings(source="sklearn:digits", target="digit"), tmp_path / "data")
    contract, _ = read_contract(data.directory)
    other = contract.model_copy(update={"target": contract.target.model_copy(update={"categories": ("0", ATTACK)})})
    found, *_ = check_dataset(data.directory, RULES, baseline=other)
    record = BASE.model_copy(update={"checks": [found]})
    assert Record.model_validate_json(record.model_dump_json()) == record
    with speaking("ko"):
        page = attempt_html(record, None, EMPTY)
        assert "열이 기준선의 것과 다릅니다: 클래스 " in page and "이(가) 새로 생겼습니다" in page
        assert "원본을 고치거나" in page and ">스키마<" in page and "<script>alert(1)" not in page
        assert "스키마" in attempt_markdown(record, None) and "클래스 " in attempt_markdown(record, None)
    assert (
        found.sentence.startswith("The columns are not the baseline's: class ") and found.translated == found.sentence
    )


@pytest.mark.parametrize(
    "phrases",
    [
        [Phrase("{name:>99999999999}", {"name": "x"}), Phrase("{name} is new", {"name": "x"})],
        [Phrase("{name} is new", {}), Phrase("{name} is new", {"name": "x"})],
        [Phrase("{name} is new", {"name": "x"})],
        [],
    ],
    ids=["a text of a stranger", "a value lacks", "no remedy", "none"],
)
def test_phrases_that_are_none_of_ours_are_not_filled(phrases: list[Phrase]) -> None:
    with speaking("ko"):
        assert (
            DataFinding(rule="drift", action="warn", sentence="It drifted.", phrases=phrases).translated
            == "It drifted."
        )


def test_records_without_checks_and_contract_load() -> None:
    old = BASE.model_dump_json(exclude={"checks", "contract"})
    assert Record.model_validate_json(old) == BASE


@pytest.mark.parametrize(("checks", "is_kept"), [({}, True), ({"drift": "off"}, False)])
def test_rows_of_a_baseline_are_kept_unless_nobody_looks_at_drift(
    tmp_path: Path, tables: dict[str, Path], checks: dict[str, str], is_kept: bool
) -> None:
    where = {"store": str(tmp_path / "store"), "experiment": "sales", "attempt": "baseline"}
    told = check_data(tables["classification"], tmp_path / "checked", checks, **where)
    assert CheckedData.read(tmp_path / "checked") == told and told.contract is not None
    assert bool(told.contract.rows) is is_kept
    again = check_data(tables["classification"], tmp_path / "other", checks, **where | {"attempt": "wider"})
    assert again.contract is None and not again.compared and "no baseline's contract" in again.text()
