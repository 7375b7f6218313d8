"""What a step's container printed: the user's own lines, and the last word of KFP's launcher or driver."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

TAIL_LINES = 5

_COLORS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_GO = re.compile(r"([IWEF])\d{4} \d\d:\d\d:\d\d\.\d+\s+\d+ [\w.-]+\.go:\d+\] (.*)")
_ARGO = re.compile(r'time="?\d{4}-.*\b(level|argo)=')
_EXECUTOR = re.compile(r"\[KFP Executor [^]]*INFO\]:")
_OURS = re.compile(r"basekamp\.(?:\w+\.)*(\w+Error): (.+)")
_SECRET = re.compile(
    r"((?:secret|token|passw(?:or)?d|access[_-]?key|api[_-]?key|authorization|credential)s?\w*['\"]?\s*[=:]\s*(?:bearer\s+)?)"
    r"(['\"]?)(?!\d+(?:\.\d+)?\b)[^\s'\",;]+",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Printed:
    """A container's log: `lines` without those of KFP and Argo, `fatal` the launcher's or driver's last error."""

    lines: tuple[str, ...]
    fatal: str

    @property
    def text(self) -> str:
        """Everything, for searching."""
        return "\n".join([*self.lines, self.fatal])

    @property
    def tail(self) -> list[str]:
        """The last lines that the step printed, values that look secret masked."""
        return [line[:300] for line in self.lines[-TAIL_LINES:]]

    @property
    def refusal(self) -> tuple[str, str] | None:
        """The kind and sentence of one of basekamp's own errors, when the step ended in one."""
        for line in reversed(self.lines[-TAIL_LINES:]):
            found = _OURS.match(line)
            if found:
                return found[1], found[2].strip()
        return None

    @property
    def signal(self) -> str:
        """The signal that ended the user's process, as Go names it: killed, terminated, bus error."""
        found = re.search(r"\bsignal: ([a-z ]+)", self.fatal)
        return found[1].strip() if found else ""

    @property
    def is_of_user(self) -> bool:
        """Whether the launcher only passes on that the user's process failed."""
        return not self.fatal or bool(re.search(r"\b(exit status \d+|signal: )", self.fatal))


def read_printed(lines: Iterable[str]) -> Printed:
    """Sort the lines of a log by who printed them."""
    kept: list[str] = []
    fatal = ""
    for raw in lines:
        line = _mask(_COLORS.sub("", raw).rstrip())
        told = _GO.match(line)
        if told:
            fatal = told[2] if told[1] == "F" else fatal
        elif line and not _ARGO.match(line) and not _EXECUTOR.match(line):
            kept.append(line)
    while kept and re.fullmatch(r"Error: exit status \d+", kept[-1]):  # Argo's emissary
        kept.pop()
    return Printed(tuple(kept), fatal)


def _mask(line: str) -> str:
    return _SECRET.sub(r"\1\2***", line)


def one_line(text: object) -> str:
    """Put a message on one line, without its full stop."""
    return " ".join(str(text or "").split()).rstrip(".")


def cut(text: object) -> str:
    """Put a message on one line of at most 300 characters."""
    line = one_line(text)
    return line if len(line) <= 300 else line[:299].rstrip(" .") + "…"
