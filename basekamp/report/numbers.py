"""Numbers as a person reads them, with as many digits as a record's name holds: a record and its name read alike."""

import math
from decimal import Decimal

from basekamp.evaluation.goals import METRICS
from basekamp.language import gettext
from basekamp.naming import Value
from basekamp.records.record import SIGNIFICANT_DIGITS

DUST = 1e-12  # below it is only what adding floats in another order leaves of a zero
CHANGE_DIGITS = 3  # of differences, spreads and intervals


def number(value: float | None) -> str:
    """Write a number for reading: five significant digits, integers whole, "–" where there is none."""
    return _write(value, SIGNIFICANT_DIGITS)


def change(value: float | None) -> str:
    """Write a spread or another amount of change, to three digits."""
    return _write(value, CHANGE_DIGITS)


def signed(value: float | None) -> str:
    """Write a difference with its sign, to three digits."""
    text = change(value)
    return text if text[0] in "−–" or text == "0" else f"+{text}"


def between(interval: tuple[float, float]) -> str:
    """Write an interval of differences."""
    return gettext("{low} to {high}", low=signed(interval[0]), high=signed(interval[1]))


def confidence(level: float) -> str:
    """Write a confidence level with as many digits as tell it from 100 %."""
    digits = max(1, 1 - math.floor(math.log10(100 * (1 - level)))) if level < 1 else 0
    return f"{100 * level:.{digits}f} %"


def direction(metric: str, difference: float | None) -> str:
    """The CSS class of a difference: good where the metric got better, bad where it got worse."""
    if difference is None or math.isnan(difference) or abs(difference) < DUST:
        return ""
    return "good-text" if (difference > 0) == (METRICS.get(metric, "maximize") == "maximize") else "bad-text"


def metric_name(metric: str) -> str:
    """A metric as a person calls it, in the current language."""
    return gettext(metric.replace("_", " "))


def setting(value: Value | None) -> str:
    """Write a hyperparameter as the experiment file does."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def printable(text: str) -> str:
    """A text that commands no terminal: what is not printable, marks that turn text round included, as its escape."""
    return text if text.isprintable() else "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def _write(value: float | None, digits: int) -> str:
    if value is None or math.isnan(value):
        return "–"
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    rounded = Decimal(f"{value:.{digits}g}")
    if abs(rounded) < DUST:
        return "0"
    if abs(rounded) >= 1e9 or abs(rounded) < 1e-4:
        text = f"{float(rounded):.{digits - 1}e}"
    else:
        text = f"{rounded:,.{max(0, digits - 1 - rounded.adjusted())}f}"
    return text.replace("-", "−")
