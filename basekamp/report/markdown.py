"""Markdown that shows what a user wrote literally."""

from collections.abc import Iterable, Sequence

_SPECIALS = str.maketrans({"<": "&lt;", ">": "&gt;", "&": "&amp;", **{sign: f"\\{sign}" for sign in "\\`*_[]()#|~$!"}})


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """A Markdown table of plain text; columns after the first `left` are aligned to the right."""
    rule = ["---" if i < left else "---:" for i in range(len(heads))]
    lines = [[plain(text) for text in line] for line in (heads, *rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:]))


def plain(text: str) -> str:
    """User text as Markdown that shows it literally, on one line."""
    return " ".join(text.split()).translate(_SPECIALS)
