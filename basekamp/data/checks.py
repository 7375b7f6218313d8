"""Data against the rules: what is found becomes a warning, or stops the run before it trains."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from basekamp.data.contract import Contract, read_contract
from basekamp.data.dataset import Schema, load_dataset
from basekamp.data.drift import drifts, schema_changes
from basekamp.data.leakage import LEAKAGE_FILE, Leakage
from basekamp.data.rules import RULES, Action
from basekamp.document import load_document

MOST_NAMED = 5
LONGEST_SENTENCE = 2000
REPEATED_SHARE = 0.01
"""A smaller share of validation and test rows that training knows changes no result."""


class DataFinding(BaseModel):
    """One rule that the data break: what was found, and what to do about it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: str
    action: Literal["stop", "warn"]
    sentence: str

    @property
    def text(self) -> str:
        """One line."""
        return f"warning: {self.rule}: {self.sentence}"


def check_dataset(directory: Path, checks: Mapping[str, Action], *, baseline: Contract | None) -> list[DataFinding]:
    """Hold a prepared data set to the rules; without a baseline's contract, `schema` and `drift` find nothing.

    Raises: InputError when the folder is no data set that this release prepared.
    """
    schema = load_dataset(directory).schema
    leakage = load_document(Leakage, directory / LEAKAGE_FILE)
    found = list(_leaks(schema, leakage))
    if baseline is not None:
        contract, sample = read_contract(directory)
        if changes := schema_changes(baseline, contract):
            found.append(("schema", f"The columns are not the baseline's: {_listed(changes)}", _NEW_QUESTION))
        looks = checks.get("drift", RULES["drift"]) != "off"
        if looks and (changes := drifts(baseline, sample)):
            found.append(("drift", f"The data drifted from the baseline's: {_listed(changes)}", _NEW_QUESTION))
    return [
        DataFinding(rule=rule, action=action, sentence=f"{told:.{LONGEST_SENTENCE}}; {remedy}.")
        for rule, told, remedy in found
        if (action := checks.get(rule, RULES[rule])) != "off"
    ]


def stop_sentence(findings: list[DataFinding]) -> str:
    """One sentence for all that stops the run; empty when nothing does."""
    stops = [one for one in findings if one.action == "stop"]
    if not stops:
        return ""
    more = f" (and {', '.join(one.rule for one in stops[1:])})" if stops[1:] else ""
    rules = ", ".join(f"{one.rule}: warn" for one in stops)
    told = stops[0].sentence.removesuffix(".")
    return f"{told}{more}, or let it pass with data.checks: {{{rules}}}."


_NEW_QUESTION = "mend the source, or begin anew from these data with `basekamp rebase FILE`"


def _leaks(schema: Schema, leakage: Leakage) -> Iterator[tuple[str, str, str]]:
    """Rule, what was found, remedy."""
    if leakage.feature and leakage.feature.is_clear:
        column = leakage.feature.column
        told = f"{leakage.feature.sentence} and may not be known when the model is used"
        yield "leaking_feature", told, f"leave it out with data.drop: [{column}]"
    held = sum(count for name, count in schema.rows.items() if name != "train")
    if leakage.repeated > REPEATED_SHARE * held:
        pairs = ", ".join(f"{known} and {row}" for known, row in leakage.repeated_rows[:MOST_NAMED])
        told = (
            f"{leakage.repeated} of {held} validation and test rows ({leakage.repeated / held:.1%}) have the inputs of "
            f"a training row, such as source rows {pairs}"
        )
        yield "duplicates", told, "take them out, or keep rows that belong together on one side with data.split.group"
    for group in leakage.groups[:1]:
        told = (
            f"Rows of one {group.column} are on both sides of the split ({group.shared:.0%} of the validation rows, "
            f"such as source rows {group.rows[0]} and {group.rows[1]}), and it tells the target "
            f"(score {group.score:.2f}, its neighbours {group.neighbours:.2f})"
        )
        yield "group", told, f"keep its rows on one side with data.split.group: {group.column}"
    if leakage.time:
        told = (
            f"{leakage.time.column} orders the source's rows, and {leakage.time.older:.0%} of the validation "
            "rows are older than the newest training row: a model that is to foretell is measured on what it could know"
        )
        yield "time", told, f"split by it with data.split.time: {leakage.time.column}"


def _listed(clauses: list[str]) -> str:
    more = f", and {len(clauses) - MOST_NAMED} more" if len(clauses) > MOST_NAMED else ""
    return ", ".join(clauses[:MOST_NAMED]) + more
