"""Pages from the templates beside this file; every value is escaped unless a template says otherwise."""

from functools import cache
from typing import TYPE_CHECKING

from basekamp.language import current_language, gettext
from basekamp.report.numbers import between, change, confidence, direction, metric_name, number, setting, signed

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


def render(template: str, **context: object) -> str:
    """Fill a template such as `profile.html`; a name that it uses and `context` lacks is an error."""
    return _environment().get_template(template).render(**context)


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("basekamp.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "metric_name": metric_name,
        "number": number,
        "change": change,
        "signed": signed,
        "between": between,
        "confidence": confidence,
        "direction": direction,
        "setting": setting,
        "_": _gettext,
        "ngettext": _ngettext,
        "word": gettext,  # of a value that may be a stranger's: it is escaped
        "language": current_language,
    }
    environment.filters |= {"count": _count, "percent": _percent, "short": _short}
    return environment


def _gettext(text: str, /, **values: object) -> "Markup":
    """A text of ours, which may hold tags, with values that are escaped."""
    from markupsafe import Markup

    return Markup(gettext(text)).format(**values) if values else Markup(gettext(text))


def _ngettext(one: str, many: str, n: int, /, **values: object) -> "Markup":
    return _gettext(one if n == 1 else many, n=_count(n), **values)


def _count(value: int) -> str:
    return f"{value:,}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _short(value: float) -> str:
    """Four digits, as a person writes them."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.4g}" if 1e-4 <= abs(value) < 1e6 else f"{value:.3e}"
