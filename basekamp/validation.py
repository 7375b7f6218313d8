"""What a pydantic model refuses, as sentences: the key, what was got, what is allowed.

A field's `description` is the text behind "use": `Field(gt=0, description="a number above 0")`. A *clause* is
what follows the key in a sentence, such as `=0 is not allowed: use 1 or more.`; own validators raise one by
`said`.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

KeyPath = tuple[str | int, ...]
_MAX_SHOWN = 60


class Problem(NamedTuple):
    """One thing that is wrong: the key path, and the clause that follows it."""

    path: KeyPath
    clause: str
    got: object = None

    def sentence(self) -> str:
        """Return the whole sentence, beginning with the dotted key path."""
        return ".".join(_printable(str(part)) for part in self.path) + self.clause


def said(clause: str) -> PydanticCustomError:
    """Return the error that an own validator raises to be quoted word for word after the key."""
    return PydanticCustomError("said", "{clause}", {"clause": clause})


def not_allowed(got: object, use: str) -> str:
    """Return the clause for a value: what was got and what to use."""
    if got is None:
        return f" is empty: use {use}."
    return f"={show(got)} is not allowed: use {use}."


def unknown_key(key: str, allowed: Iterable[str]) -> str:
    """Return the clause for a key that nothing reads, with the nearest valid one."""
    names = list(allowed)
    return f" is not a known key: {did_you_mean(key, names)}Allowed: {', '.join(names)}."


def did_you_mean(got: object, allowed: Iterable[str]) -> str:
    """Return `did you mean NAME? ` for the nearest allowed name, or nothing when none is near."""
    near = difflib.get_close_matches(got.lower(), list(allowed), n=1) if isinstance(got, str) else []
    return f"did you mean {near[0]}? " if near else ""


def one_of(names: Sequence[str]) -> str:
    """Return `a, b or c`."""
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0]


def show(value: object) -> str:
    """Return a value as a user would recognise it, on one line and short."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, int) and abs(value) >= 10**_MAX_SHOWN:
        return "a number of more than 60 digits"
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."


def raise_together(problems: Iterable[Problem]) -> None:
    """Raise every problem at once from inside a validator, each under its own key; none: do nothing."""
    details = [InitErrorDetails(type=said(p.clause), loc=p.path, input=p.got) for p in problems]
    if details:
        raise ValidationError.from_exception_data("problems", details)


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Return what is wrong as problems, in pydantic's order; `model` is the class that refused."""
    return [_problem(detail, model) for detail in error.errors(include_url=False)]


def _problem(detail: ErrorDetails, model: type[BaseModel]) -> Problem:
    path, got = detail["loc"], detail["input"]
    if detail["type"] == "said":
        return Problem(path, detail["msg"], got)
    if detail["type"] == "extra_forbidden":
        _, parent = _describe(model, path[:-1])
        return Problem(path, unknown_key(str(path[-1]), (parent or model).model_fields), got)
    field, _ = _describe(model, path)
    use = (field.description if field else None) or detail["msg"]
    if detail["type"] == "missing":
        return Problem(path, f" is missing: give {use}.", got)
    if got is None and field is not None and not field.is_required():
        return Problem(path, f" is empty: use {use}, or leave the key out.", got)
    if detail["type"] == "string_type" and isinstance(got, int | float):
        use += ", in quotes if it is meant as text"
    return Problem(path, not_allowed(got, use + _near_literal(field, got)), got)


def _near_literal(field: FieldInfo | None, got: object) -> str:
    if field is None or get_origin(field.annotation) is not Literal:
        return ""
    near = did_you_mean(got, get_args(field.annotation))
    return f" ({near.strip()})" if near else ""


def _describe(model: type[BaseModel], path: KeyPath) -> tuple[FieldInfo | None, type[BaseModel] | None]:
    """Return the deepest field on a path and the model that lies under it."""
    field: FieldInfo | None = None
    under: type[BaseModel] | None = model
    parts = iter(path)
    for part in parts:
        if under is None or part not in under.model_fields:
            break  # an item of a plain list or mapping: the field around it speaks
        field = under.model_fields[str(part)]
        under = _model_in(field.annotation)
        if get_origin(field.annotation) is dict:
            next(parts, None)
    return field, under


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def _printable(text: str) -> str:
    text = text if text.isprintable() and text else repr(text)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."
