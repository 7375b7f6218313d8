"""Every text of the pages has its Korean, and nothing else is in the catalogue."""

import ast
import html
import re
from pathlib import Path
from string import Formatter
from typing import get_args

import pytest
from jinja2.ext import extract_from_ast

from basekamp.data import rules as data_rules
from basekamp.data.dataset import SPLITS
from basekamp.diagnosis.rules import RULES
from basekamp.errors import InputError
from basekamp.evaluation.goals import METRICS
from basekamp.language import catalogue, current_language, gettext, speaking
from basekamp.records.record import Role
from basekamp.records.side_by_side import provenance
from basekamp.records.verdict import Verdict
from basekamp.report.attempt import attempt_html
from basekamp.report.page import _environment
from basekamp.report.page import _ngettext as ngettext
from basekamp.report.sweep import METHODS
from basekamp.training.results import Replicate, Seconds
from tests.made_records import ATTACK, BASE, BETTER, EMPTY, make_record

SOURCES = Path(__file__).parents[1] / "basekamp"
KOREAN = re.compile("[가-힣]")
ALIKE = {"ROC", "{low} ~ {high}"}


def texts_of_templates() -> set[str]:
    """What `_` and `ngettext` are called with."""
    found = set()
    environment = _environment()
    for path in (SOURCES / "report" / "templates").glob("*.html"):
        for _, _, texts in extract_from_ast(environment.parse(path.read_text()), babel_style=False):
            found |= {text for text in texts if text}
    return found


def texts_of_modules() -> set[str]:
    """Every text that stands in a call of `gettext`, and what is told by a name."""
    found = set()
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("gettext", "ngettext", "Phrase"):
                for argument in node.args:
                    either = (argument.body, argument.orelse) if isinstance(argument, ast.IfExp) else (argument,)
                    found |= {one.value for one in either if isinstance(one, ast.Constant)}
    return found


def words() -> set[str]:
    """What is translated by its value."""
    record = make_record("baseline", {"accuracy": 0.9, "loss": 0.3}, {"model": "linear"})
    return {
        *SPLITS,
        *get_args(Verdict),
        *get_args(Role),
        *(name.replace("-", " ") for name in RULES),
        *(name.replace("_", " ") for name in data_rules.RULES),
        *get_args(Replicate.model_fields["ended"].annotation),
        *METHODS.values(),
        *(name.replace("_", " ") for name in METRICS),
        *(set(Seconds.model_fields) - {"total"}),
        *(key for key in provenance(record) if key not in record.training.versions),
    }


@pytest.mark.parametrize("text", sorted(texts_of_templates() | texts_of_modules()))
def test_text_has_its_korean_with_the_same_names_in_it(text):
    told = catalogue("ko").get(text)
    assert told, f"basekamp/ko.yaml lacks {text!r}"
    names = [sorted(name for _, name, _, _ in Formatter().parse(each) if name) for each in (text, told)]
    assert names[0] == names[1]
    assert KOREAN.search(told) or told in ALIKE


@pytest.mark.parametrize("word", sorted(words()))
def test_word_has_its_korean(word):
    assert word in catalogue("ko"), f"basekamp/ko.yaml lacks {word!r}"


def test_catalogue_holds_nothing_else():
    kinds = {"integer", "number", "text", "bool", "date", "date and time"}
    others = {"classification", "regression", "checkpoints", "other"}
    assert set(catalogue("ko")) == texts_of_templates() | texts_of_modules() | words() | kinds | others


def test_korean_page_leaves_nothing_english_but_what_the_user_wrote():
    with speaking("ko"):
        page = attempt_html(BETTER, BASE, EMPTY)
    texts = {" ".join(html.unescape(text).split()) for text in re.findall(r">([^<>]+)<", page)}
    assert '<html lang="ko">' in page and any("정확도" in text for text in texts)
    assert {text for text in texts if re.search(r"[A-Za-z]{3,} [a-z]{2,}", text)} == {" ".join(ATTACK.split())}


def test_language_is_that_asked_for_then_that_of_the_environment_then_english(monkeypatch):
    assert (current_language(), gettext("verdict")) == ("en", "verdict")
    monkeypatch.setenv("BASEKAMP_LANG", "ko")
    assert gettext("row {n}", n=3) == "행 3"
    with speaking("en"):
        assert ngettext("{n} parameter", "{n} parameters", 1) == "1 parameter"
        assert ngettext("{n} parameter", "{n} parameters", 2) == "2 parameters"
    monkeypatch.setenv("BASEKAMP_LANG", "fr")
    with pytest.raises(InputError, match="^BASEKAMP_LANG='fr' is no language of the pages: use en or ko\\.$"):
        gettext("verdict")
