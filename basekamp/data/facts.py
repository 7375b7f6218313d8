"""What is in a data set, as facts that stand beside it and, shortened, in records."""

from pathlib import Path
from typing import Literal

from basekamp.document import Strict, load_document

PROFILE_FILE = "profile.json"
MOST_COLUMNS_KEPT, LONGEST_TEXT = 30, 40


def shortened(text: str) -> str:
    """A text of at most 40 characters, an ellipsis at its end where it was longer."""
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"


class Part(Strict):
    """How many rows of a class a split has, and their share of it."""

    split: str
    count: int
    share: float


class ClassRow(Strict):
    """A class in each split."""

    name: str
    parts: list[Part]


class Histogram(Strict):
    """A number in one split: bin counts, the fullest 1."""

    split: str
    heights: list[float]
    low: float
    high: float
    mean: float


class Category(Strict):
    """A value and its share of the rows."""

    value: str
    share: float


class Column(Strict):
    """One column of the source on the training split: its commonest values, or its range and bin counts.

    left_out: why it is no input, "" for one that is; rare: how many of its categories are read as other.
    """

    name: str
    type: str
    missing: float
    distinct: int
    left_out: Literal["", "constant", "identifier"] = ""
    rare: int = 0
    top: list[Category] = []
    heights: list[float] = []
    low: str = ""
    high: str = ""
    mean: str = ""


class Profile(Strict):
    """What is in the splits: classes, or the target's histogram, and of a table its columns."""

    class_rows: list[ClassRow] = []
    target_histograms: list[Histogram] = []
    columns: list[Column] = []
    columns_left_out: int = 0

    @property
    def largest_share(self) -> float:
        """The share of the commonest class in any split."""
        return max((part.share for row in self.class_rows for part in row.parts), default=1.0)

    def short(self) -> "Profile":
        """The same with the first columns only, to stand in a record."""
        left_out = self.columns_left_out + max(0, len(self.columns) - MOST_COLUMNS_KEPT)
        return self.model_copy(update={"columns": self.columns[:MOST_COLUMNS_KEPT], "columns_left_out": left_out})


def read_profile(dataset: Path) -> Profile | None:
    """Read what `prepare_data` wrote, shortened; None for a data set made elsewhere."""
    path = dataset / PROFILE_FILE
    return load_document(Profile, path).short() if path.is_file() else None
