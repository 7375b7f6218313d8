"""The language of pages: English, or Korean from the catalogue beside this file. Texts are keyed by their English."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from basekamp.errors import InputError

VARIABLE = "BASEKAMP_LANG"
LANGUAGES = ("en", "ko")


class Phrase(NamedTuple):
    """A text of ours and what fills its {names}, to be told later in any language."""

    text: str
    values: dict[str, str] = {}

    def told(self, language: str) -> str | None:
        """The text in a language; None where its catalogue has no such text, as of a stranger, or a value lacks.

        English, in which texts are made, is not looked up: only what is of our own making is to be told in it.
        """
        text = self.text if language == "en" else catalogue(language).get(self.text)
        try:
            return None if text is None else text.format(**self.values)
        except (LookupError, ValueError):
            return None


_chosen: ContextVar[str | None] = ContextVar("language", default=None)


@contextmanager
def speaking(language: str | None) -> Iterator[None]:
    """Write what is written inside in this language; None leaves it to the environment."""
    token = _chosen.set(language)
    try:
        yield
    finally:
        _chosen.reset(token)


def current_language() -> str:
    """The language chosen, else that of `BASEKAMP_LANG`, else English; raises InputError for one that is not there."""
    language = _chosen.get() or os.environ.get(VARIABLE, "") or "en"
    if language not in LANGUAGES:
        raise InputError(f"{VARIABLE}={language!r} is no language of the pages: use {' or '.join(LANGUAGES)}.")
    return language


def gettext(text: str, /, **values: object) -> str:
    """The text in the current language, its {names} filled."""
    told = text if current_language() == "en" else catalogue(current_language()).get(text, text)
    return told.format(**values) if values else told


@cache
def catalogue(language: str) -> dict[str, str]:
    """Every text of a language, by its English."""
    import yaml

    texts: dict[str, str] = yaml.safe_load((files("basekamp") / f"{language}.yaml").read_text(encoding="utf-8"))
    return texts
