"""check-data: a prepared data set against the rules and the contract that the baseline's record keeps."""

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from basekamp.data.checks import DataFinding, check_dataset, stop_sentence
from basekamp.data.contract import Contract, read_contract
from basekamp.data.dataset import load_dataset
from basekamp.data.rules import actions_of
from basekamp.document import load_document
from basekamp.errors import InputError, StoreDownError
from basekamp.records.record import BASELINE, Record
from basekamp.records.shelf import read_record, read_shelf
from basekamp.storage import open_store
from basekamp.storage.protocol import write_whole
from basekamp.work import WAITING_VARIABLE

CHECKS_FILE = "checks.json"


class CheckedData(BaseModel):
    """What breaks a rule; compared: whether a baseline's contract was at hand; contract: what a baseline is to keep."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    findings: list[DataFinding]
    compared: bool
    contract: Contract | None = None

    @classmethod
    def read(cls, directory: Path) -> "CheckedData":
        """Read what `check_data` wrote."""
        return load_document(cls, directory / CHECKS_FILE)

    def text(self) -> str:
        """A line for each finding."""
        lines = [one.text for one in self.findings] or ["The data break no rule."]
        return "\n".join(lines if self.compared else [*lines, "There is no baseline's contract to compare with."])


def check_data(
    dataset: Path, directory: Path, checks: Mapping[str, str], *, store: str, experiment: str, attempt: str
) -> CheckedData:
    """Hold a data set to the rules, and an attempt's to the baseline's contract; write `checks.json` into `directory`.

    A baseline's own contract is kept with the codes of 2,000 rows (tenths and categories, no values), or without them
    where the rule `drift` is off. Where the store is down and results may wait for it ($BASEKAMP_WAITING), an attempt's
    data are compared with none.

    Raises InputError when a rule that stops is broken, or a rule is not known; StoreError when the store fails.
    """
    actions = actions_of(checks)
    pinned = None if attempt == BASELINE else _pinned(store, experiment)
    is_same = pinned is not None and pinned.data.dataset == load_dataset(dataset).schema.dataset_fingerprint
    contract = None if pinned is None or is_same else pinned.contract
    findings = check_dataset(dataset, actions, baseline=contract)
    if stop := stop_sentence(findings):
        raise InputError(stop)
    told = CheckedData(
        findings=findings,
        compared=is_same or contract is not None,
        contract=_contract(dataset, is_sampled=actions["drift"] != "off") if attempt == BASELINE else None,
    )
    directory.mkdir(parents=True, exist_ok=True)
    write_whole(directory / CHECKS_FILE, told.model_dump_json(indent=1))
    return told


def _pinned(store: str, experiment: str) -> Record | None:
    opened = open_store(store)
    try:
        row = read_shelf(opened, experiment).baseline
        return read_record(opened, row) if row else None
    except StoreDownError:
        if not os.environ.get(WAITING_VARIABLE):
            raise
        return None


def _contract(dataset: Path, *, is_sampled: bool) -> Contract:
    contract, sample = read_contract(dataset)
    return contract.with_rows(sample) if is_sampled else contract
