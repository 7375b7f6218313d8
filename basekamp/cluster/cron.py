"""Schedules of recurring runs, checked before the API server or, worse, only its clock reads them.

Source: github.com/robfig/cron v1.2.0, which Kubeflow Pipelines parses with. It reads five fields as seconds
first and the day of the week left out, so the ordinary cron line `0 6 * * 1` would mean something else.
"""

import re

from basekamp.errors import InputError

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("second", 0, 59, ()),
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 6, _DAYS),
)
_PART = re.compile(r"(?:[*?]|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>[0-9]+))?", re.ASCII)


def cron_expression(text: str) -> str:
    """Give a schedule as Kubeflow Pipelines wants it: six fields, seconds first.

    Five fields, as cron has them, get the second 0. Raises InputError for anything else.
    """
    fields = text.split()
    if len(fields) == 5:
        fields = ["0", *fields]
    if len(fields) != 6:
        raise InputError(
            f"{text!r} is not a schedule: give minute, hour, day, month and day of the week, such as '0 6 * * 1', "
            "or these five after the second."
        )
    for field, (name, low, high, names) in zip(fields, _FIELDS, strict=True):
        if not all(_is_part(part, low, high, names) for part in field.split(",")):
            raise InputError(
                f"{field!r} in the schedule {text!r} is no {name}: use {low} to {high}, *, a range such as "
                f"{low}-{high}, a list such as {low},{high}, or a step such as */2."
            )
    return " ".join(fields)


def _is_part(part: str, low: int, high: int, names: tuple[str, ...]) -> bool:
    """Whether one piece of a list, such as 1-5 or */2, stays within the bounds."""
    read = _PART.fullmatch(part)
    if not read or read["step"] is not None and int(read["step"]) == 0:
        return False
    bounds = [_number(word, low, names) for word in (read["first"], read["last"]) if word is not None]
    return bounds == sorted(bounds) and all(low <= bound <= high for bound in bounds)


def _number(word: str, low: int, names: tuple[str, ...]) -> int:
    """A number or the name of a month or day; -1 for any other word."""
    if word.isdecimal():
        return int(word)
    return low + names.index(word.lower()) if word.lower() in names else -1
