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
from basekamp.language import Phrase, current_language

MOST_NAMED = 5
LONGEST_SENTENCE = 2000
REPEATED_SHARE = 0.01
"""A smaller share of validation and test rows that training knows changes no result."""


class DataFinding(BaseModel):
    """One rule that the data break: what was found, and what to do about it.

    phrases: the sentence in parts, for other languages: what was found, clauses of it, and the remedy last.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: str
    action: Literal["stop", "warn"]
    sentence: str
    phrases: list[Phrase] = []

    @property
    def text(self) -> str:
        """One line."""
        return f"warning: {self.rule}: {self.sentence}"

    @property
    def translated(self) -> str:
        """The sentence in the current language, or in English where its phrases are none that we know."""
        language = current_language()
        told = [] if language == "en" else [phrase.told(language) for phrase in self.phrases]
        parts = [part for part in told if part is not None]
        return _sentence(parts) if len(parts) == len(self.phrases) > 1 else self.sentence


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
            found.append(("schema", [Phrase("The columns are not the baseline's"), *_listed(changes), _NEW_QUESTION]))
        looks = checks.get("drift", RULES["drift"]) != "off"
        if looks and (changes := drifts(baseline, sample)):
            found.append(("drift", [Phrase("The data drifted from the baseline's"), *_listed(changes), _NEW_QUESTION]))
    return [
        DataFinding(
            rule=rule, action=action, sentence=_sentence([str(each.told("en")) for each in phrases]), phrases=phrases
        )
        for rule, phrases in found
        if (action := checks.get(rule, RULES[rule])) != "off"
    ]


def _sentence(parts: list[str]) -> str:
    found, *clauses, remedy = parts
    told = f"{found}: {', '.join(clauses)}" if clauses else found
    return f"{told:.{LONGEST_SENTENCE}}; {remedy}."


def stop_sentence(findings: list[DataFinding]) -> str:
    """One sentence for all that stops the run; empty when nothing does."""
    stops = [one for one in findings if one.action == "stop"]
    if not stops:
        return ""
    more = f" (and {', '.join(one.rule for one in stops[1:])})" if stops[1:] else ""
    rules = ", ".join(f"{one.rule}: warn" for one in stops)
    told = stops[0].sentence.removesuffix(".")
    return f"{told}{more}, or let it pass with data.checks: {{{rules}}}."


_NEW_QUESTION = Phrase("mend the source, or begin anew from these data with `basekamp rebase FILE`")


def _leaks(schema: Schema, leakage: Leakage) -> Iterator[tuple[str, list[Phrase]]]:
    """Rule, what was found, and the remedy."""
    if leakage.feature and leakage.feature.is_clear:
        leak = leakage.feature
        scores = {"column": leak.column, "score": f"{leak.score:.3f}", "next": f"{leak.others:.3f}"}
        yield (
            "leaking_feature",
            [
                Phrase(
                    "{column} alone tells the target (score {score}, the next column {next}) and may not be known when "
                    "the model is used",
                    scores,
                ),
                Phrase("leave it out with data.drop: [{column}]", {"column": leak.column}),
            ],
        )
    held = sum(count for name, count in schema.rows.items() if name != "train")
    if leakage.repeated > REPEATED_SHARE * held:
        counts = {"n": str(leakage.repeated), "of": str(held), "share": f"{leakage.repeated / held:.1%}"}
        counts["pairs"] = ", ".join(f"{known} = {row}" for known, row in leakage.repeated_rows[:MOST_NAMED])
        yield (
            "duplicates",
            [
                Phrase(
                    "{n} of {of} validation and test rows ({share}) have the inputs of a training row, such as source "
                    "rows {pairs}",
                    counts,
                ),
                Phrase("take them out, or keep rows that belong together on one side with data.split.group"),
            ],
        )
    for group in leakage.groups[:1]:
        one, other = map(str, group.rows)
        facts = {"column": group.column, "share": f"{group.shared:.0%}", "one": one, "other": other}
        facts |= {"score": f"{group.score:.2f}", "neighbours": f"{group.neighbours:.2f}"}
        yield (
            "group",
            [
                Phrase(
                    "Rows of one {column} are on both sides of the split ({share} of the validation rows, such as "
                    "source rows {one} and {other}), and it tells the target (score {score}, its neighbours "
                    "{neighbours})",
                    facts,
                ),
                Phrase("keep its rows on one side with data.split.group: {column}", {"column": group.column}),
            ],
        )
    if leakage.time:
        column = leakage.time.column
        yield (
            "time",
            [
                Phrase(
                    "{column} orders the source's rows, and {share} of the validation rows are older than the newest "
                    "training row: a model that is to foretell is measured on what it could know",
                    {"column": column, "share": f"{leakage.time.older:.0%}"},
                ),
                Phrase("split by it with data.split.time: {column}", {"column": column}),
            ],
        )


def _listed(clauses: list[Phrase]) -> list[Phrase]:
    """The first clauses, and how many more there are."""
    more = len(clauses) - MOST_NAMED
    return clauses[:MOST_NAMED] + ([Phrase("and {n} more", {"n": str(more)})] if more > 0 else [])
