"""What was found out about a run that is stuck or failed, and how it is shown."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One cause, in plain words.

    cause      its id, such as gpu-shortage; never changes its meaning
    pod        the pod it was seen on; "" for one that was never made
    sentence   what happened
    remedy     what to do
    evidence   the numbers and names behind the sentence, as JSON values
    """

    cause: str
    pod: str
    sentence: str
    remedy: str
    evidence: dict[str, Any] = field(default_factory=dict)


NOTHING = ("succeeded", "nothing-found")
"""Causes that say that nothing is wrong, as far as the cluster shows."""


def findings_as_text(findings: Iterable[Finding]) -> str:
    """Show findings one under the other, the root cause first, each with its remedy and the log it rests on."""
    return "\n\n".join(_as_text(finding) for finding in findings)


def findings_as_json(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Findings as plain values, for `--json`."""
    return [asdict(finding) for finding in findings]


def _as_text(finding: Finding) -> str:
    lines = [f"{finding.cause}: {finding.sentence}"]
    lines += [f"    | {line}" for line in finding.evidence.get("log", [])]
    if finding.pod:
        lines.append(f"  pod: {finding.pod}")
    return "\n".join([*lines, f"  do:  {finding.remedy}"])
