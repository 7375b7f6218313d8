"""The lab book: what was tried, in order, why, and what came of it; and whether something was tried already."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from basekamp.document import fetch_document
from basekamp.errors import BasekampError, InputError
from basekamp.naming import id_time
from basekamp.records.shelf import RECORD, Row, Shelf
from basekamp.storage import Store

Kind = Literal["record", "champion", "fallback", "rebase"]
READERS = 16
_UNKNOWN = datetime.min.replace(tzinfo=UTC)


class _Hypothesis(BaseModel):
    """The one part of a record that its name does not tell."""

    model_config = ConfigDict(extra="ignore")

    hypothesis: str


@dataclass(frozen=True)
class Page:
    """One line of the lab book: a record, or what happened to the one named by `row`.

    when: None where the id is of another origin. problem: why the record cannot be read, "" where it can.
    """

    when: datetime | None
    kind: Kind
    row: Row
    hypothesis: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Hit:
    """A page that a search found, and how well: the share of its words that were asked for, at most 1."""

    page: Page
    score: float


def read_labbook(store: Store, shelves: Sequence[Shelf]) -> list[Page]:
    """Everything that happened in these experiments, oldest first, of all lineages.

    Reads the JSON of each record for its hypothesis; one that cannot be read is told with its problem.
    """
    pages = [*_records(store, [row for shelf in shelves for row in shelf.every])]
    for shelf in shelves:
        pages += _events(shelf)
    order: dict[Kind, int] = {"record": 0, "rebase": 1, "champion": 2, "fallback": 3}
    return sorted(pages, key=lambda page: (page.when or _UNKNOWN, order[page.kind], page.row.id))


def read_hypotheses(store: Store, rows: Sequence[Row]) -> dict[str, str]:
    """The hypothesis of each record by its id; "" where there is none or it cannot be read."""
    return {page.row.id: page.hypothesis for page in _records(store, rows)}


def search(pages: Iterable[Page], text: str) -> list[Hit]:
    """The records whose hypothesis, names and settings hold every word of a text; the best hits first.

    Words are compared without regard to case and to how Unicode writes them; a word matches where it begins one.

    Raises InputError for a text without a word.
    """
    wanted = _words(text)
    if not wanted:
        raise InputError(f"{text!r} holds no word to look for: give a part of a hypothesis, a name or a setting.")
    found = []
    for page in pages:
        words = _words(_told(page)) if page.kind == "record" else []
        matched = [sum(word.startswith(one) for word in words) for one in wanted]
        if all(matched):
            exact = sum(one in words for one in wanted)
            found.append(Hit(page, exact / len(wanted) + min(1.0, sum(matched) / len(words))))
    return sorted(found, key=lambda hit: -hit.score)


def _records(store: Store, rows: Sequence[Row]) -> Iterator[Page]:
    def read(row: Row) -> Page:
        try:
            told = fetch_document(_Hypothesis, store, row.beside(RECORD))
        except InputError:
            return Page(_when(row.id), "record", row, problem="its JSON is no record")
        except BasekampError as error:
            return Page(_when(row.id), "record", row, problem=str(error))
        return Page(_when(row.id), "record", row, hypothesis=_on_one_line(told.hypothesis))

    with ThreadPoolExecutor(READERS) as pool:
        yield from pool.map(read, rows)


def _events(shelf: Shelf) -> Iterator[Page]:
    by_id = {row.id: row for row in shelf.every}
    for promotion in shelf.promotions:
        if promotion.of in by_id:
            kind: Kind = "fallback" if promotion.by == "fallback" else "champion"
            yield Page(_when(promotion.id), kind, by_id[promotion.of])
    for lineage in sorted({row.lineage for row in shelf.every} - {1}):
        baseline = shelf.at(lineage).baseline
        if baseline:
            yield Page(_when(baseline.id), "rebase", baseline)


def _when(record_id: str) -> datetime | None:
    """When an id was made; None for one of another origin."""
    try:
        return id_time(record_id)
    except (InputError, ValueError, OverflowError):
        return None


def _on_one_line(text: str) -> str:
    """Without line breaks, control characters and marks that turn text round."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def _told(page: Page) -> str:
    row = page.row
    settings = " ".join(f"{key} {value} {key}={value}" for key, value in row.params.items())
    return f"{page.hypothesis} {row.attempt} {row.experiment} {row.verdict or row.role} {settings}"


def _words(text: str) -> list[str]:
    return re.findall(r"[\w.=+-]+", unicodedata.normalize("NFKC", text).casefold())
