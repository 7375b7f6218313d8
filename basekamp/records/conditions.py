"""Conditions on rows, such as `n_layers>=3 and act=gelu`: read once, then asked of all rows at once.

condition   = all {"or" all}
all         = one {"and" one}
one         = "not" one | "(" condition ")" | key operator value | key "in" "(" value {"," value} ")"
operator    = "=" | "==" | "!=" | "<" | "<=" | ">" | ">="

A value in quotes is a text; another one is a number or a truth value where it reads as one, so that 1e-3 finds 0.001.
"""

import operator
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from basekamp.errors import InputError
from basekamp.naming import Value
from basekamp.records.columns import NOTHING, NUMERAL, TEXT, TRUTH, Column

Mask = NDArray[np.bool_]
Condition = Callable[[Callable[[str], Column]], Mask]
"""Given what rows have under a key, tells which of them it holds of."""

_TOKEN = re.compile(r"""\s*(?:(?P<sign>==|!=|<=|>=|[=<>(),])|(?P<text>"[^"]*"|'[^']*')|(?P<word>[^\s=<>!(),"']+))""")
_TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "==": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_DEEPEST = 50


def parse_condition(text: str) -> tuple[Condition, list[str]]:
    """Read a condition; gives it and the keys that it asks for.

    A row without the key meets `!=` and what asks for the empty text, NaN `!=` alone. Texts are ordered by quoted
    texts only.

    Raises InputError that says where the text stops being a condition.
    """
    reader = _Reader(text, _split(text))
    condition = reader.any_of(0)
    if reader.place < len(reader.tokens):
        raise reader.refused("`and` or `or`")
    return condition, reader.keys


def check_keys(keys: Collection[str], known: Collection[str]) -> None:
    """Raise InputError for a key that is not among the known ones."""
    for key in keys:
        if key not in known:
            raise InputError(f"{key} is no column of these records: use one of {', '.join(known)}.")


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


def _split(text: str) -> list[_Token]:
    tokens, at, end = [], 0, len(text.rstrip())
    while at < end:
        found = _TOKEN.match(text, at)
        if not found:
            raise _refused(text, at, "a key, a value or an operator")
        kind = str(found.lastgroup)
        tokens.append(_Token(kind, found[kind], found.start(kind)))
        at = found.end()
    return tokens


@dataclass
class _Reader:
    """Reads tokens by recursive descent."""

    text: str
    tokens: list[_Token]
    place: int = 0
    keys: list[str] = field(default_factory=list)

    def any_of(self, depth: int) -> Condition:
        parts = [self.all_of(depth)]
        while self.takes("or"):
            parts.append(self.all_of(depth))
        return lambda rows: np.logical_or.reduce([part(rows) for part in parts])

    def all_of(self, depth: int) -> Condition:
        parts = [self.one(depth)]
        while self.takes("and"):
            parts.append(self.one(depth))
        return lambda rows: np.logical_and.reduce([part(rows) for part in parts])

    def one(self, depth: int) -> Condition:
        if depth > _DEEPEST:
            raise self.refused(f"at most {_DEEPEST} brackets and nots within each other")
        if self.takes("not"):
            part = self.one(depth + 1)
            return lambda rows: ~part(rows)
        if self.takes("("):
            part = self.any_of(depth + 1)
            self.needs(")")
            return part
        return self.comparison()

    def comparison(self) -> Condition:
        key = self.word("a key")
        self.keys.append(key)
        if self.takes("in"):
            self.needs("(")
            wanted = [self.value()]
            while self.takes(","):
                wanted.append(self.value())
            self.needs(")")
            return lambda rows: np.logical_or.reduce([_holds(operator.eq, rows(key), one) for one in wanted])
        sign = self.tokens[self.place].text if self.place < len(self.tokens) else ""
        if sign not in _TESTS and sign != "!=":
            raise self.refused("=, !=, <, <=, >, >= or `in`")
        self.place += 1
        value = self.value()
        if sign == "!=":
            return lambda rows: ~_holds(operator.eq, rows(key), value)
        return lambda rows: _holds(_TESTS[sign], rows(key), value)

    def value(self) -> "_Literal":
        if self.place < len(self.tokens) and self.tokens[self.place].kind == "text":
            self.place += 1
            text = self.tokens[self.place - 1].text[1:-1]
            return _Literal(text, text)
        text = self.word("a value")
        return _Literal(text, _typed(text))

    def word(self, wanted: str) -> str:
        if self.place == len(self.tokens) or self.tokens[self.place].kind != "word":
            raise self.refused(wanted)
        self.place += 1
        return self.tokens[self.place - 1].text

    def takes(self, text: str) -> bool:
        there = self.place < len(self.tokens) and self.tokens[self.place]
        if not there or there.kind == "text" or there.text != text:
            return False
        self.place += 1
        return True

    def needs(self, text: str) -> None:
        if not self.takes(text):
            raise self.refused(text)

    def refused(self, wanted: str) -> InputError:
        at = self.tokens[self.place].at if self.place < len(self.tokens) else len(self.text)
        return _refused(self.text, at, wanted)


def _refused(text: str, at: int, wanted: str) -> InputError:
    there = f"before {text[at:].strip()[:20]!r}" if text[at:].strip() else "at its end"
    return InputError(
        f"{text[:200]!r} is no condition: {there} it needs {wanted}; write, say, 'n_layers>=3 and act=gelu'."
    )


@dataclass(frozen=True)
class _Literal:
    """A value as it was written, and what it reads as."""

    text: str
    value: Value


def _typed(text: str) -> Value:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return float(text)
    except ValueError:
        return text


def _holds(test: Callable[[Any, Any], Any], column: Column, wanted: _Literal) -> Mask:
    """Texts are compared with what was written, numbers with numbers, truth values with truth values."""
    held = np.zeros(len(column.kinds), dtype=np.bool_)
    if test is operator.eq or isinstance(wanted.value, str):
        can_compare = (column.kinds == TEXT) | ((column.kinds == NOTHING) & (test is operator.eq))
        if can_compare.any():
            held = can_compare & test(column.texts.fill_null(""), wanted.text).to_numpy()
    if not isinstance(wanted.value, str):
        kind = TRUTH if isinstance(wanted.value, bool) else NUMERAL
        held |= (column.kinds == kind) & test(column.numbers, wanted.value)
    return held
