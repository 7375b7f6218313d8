"""The data profile: what is in a dataset before anything is trained on it, as facts and as a page."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from basekamp.data.dataset import Schema
from basekamp.data.encoding import Counted, as_numbers
from basekamp.data.facts import Category, ClassRow, Column, Histogram, Part, Profile, shortened
from basekamp.data.png import as_pixels, png_base64, stretched
from basekamp.data.table import Table
from basekamp.report.page import render

BINS = 24
MOST_CLASSES = 30
MOST_COLUMNS = 300
TOP_CATEGORIES = 4
SAMPLE_CLASSES, SAMPLE_IMAGES = 10, 16
Targets = dict[str, NDArray[Any]]


def make_profile(schema: Schema, targets: Targets, columns: Sequence[Column]) -> Profile:
    """Look at each split's targets; `columns` tells what `describe` gave of the training rows of a table."""
    told = [
        column.model_copy(
            update={
                "left_out": _left_out(column.name, schema),
                "rare": schema.cleaning.rare_categories.get(column.name, 0),
            }
        )
        for column in columns[:MOST_COLUMNS]
    ]
    return Profile(
        class_rows=_class_rows(schema, targets) if schema.classes else [],
        target_histograms=[] if schema.classes else _target_histograms(targets),
        columns=told,
        columns_left_out=len(columns) - len(told),
    )


def render_profile(schema: Schema, profile: Profile, targets: Targets, train: Table | NDArray[np.uint8]) -> str:
    """Render the page, for images with a sheet of them."""
    samples = "" if isinstance(train, Table) else _sample_images(train, targets["train"], schema)
    return render("profile.html", schema=schema, profile=profile, samples=samples)


def _class_rows(schema: Schema, targets: Targets) -> list[ClassRow]:
    counts = {name: np.bincount(y, minlength=len(schema.classes)) for name, y in targets.items()}
    order: list[int] = list(range(len(schema.classes)))
    if len(order) > MOST_CLASSES:
        order = np.argsort(-counts["train"], kind="stable")[:MOST_CLASSES].tolist()
    return [
        ClassRow(
            name=shortened(schema.classes[index]),
            parts=[
                Part(split=name, count=int(c[index]), share=float(c[index] / c.sum())) for name, c in counts.items()
            ],
        )
        for index in order
    ]


def _target_histograms(targets: Targets) -> list[Histogram]:
    low = min(float(y.min()) for y in targets.values())
    high = max(float(y.max()) for y in targets.values())
    return [
        Histogram(
            split=name,
            heights=_heights(y.astype(np.float64), low, high),
            low=float(y.min()),
            high=float(y.max()),
            mean=float(y.astype(np.float64).mean()),
        )
        for name, y in targets.items()
    ]


def describe(column: Counted) -> Column:
    """Describe one column of the training rows, before it is encoded."""
    values, counts = column
    known = values.drop_nulls()
    told: dict[str, Any] = {}
    if counts is not None:
        told = {"top": _top(counts, len(values))}
    elif len(known):
        told = _range(known)
    return Column(
        name=values.name,
        type=_type_name(values.dtype),
        missing=values.null_count() / len(values),
        distinct=known.n_unique() if counts is None else len(counts),
        **told,
    )


def _top(counts: pl.DataFrame, rows: int) -> list[Category]:
    commonest = counts.sort(["count", "value"], descending=[True, False]).head(TOP_CATEGORIES)
    return [Category(value=shortened(value), share=count / rows) for value, count in commonest.iter_rows()]


def _range(known: pl.Series) -> dict[str, Any]:
    if known.dtype in (pl.Date, pl.Datetime):
        numbers = known.cast(pl.Datetime("us")).to_physical().cast(pl.Float64).to_numpy()
        heights = _heights(numbers, float(numbers.min()), float(numbers.max()))
        return {"low": str(known.min())[:16], "high": str(known.max())[:16], "heights": heights}
    numbers = as_numbers(known)
    finite = numbers[np.isfinite(numbers)]
    if not len(finite):
        return {"low": "-inf", "high": "inf"}
    low, high = float(finite.min()), float(finite.max())
    text = {
        "low": _number(low),
        "high": _number(high),
        "mean": _number(float(np.clip(finite, -1e100, 1e100).mean())),
    }
    bins = int(high - low) + 1 if known.dtype.is_integer() and high - low < BINS else BINS
    return text | {"heights": _heights(finite, low, high, bins)}


def _heights(numbers: NDArray[np.float64], low: float, high: float, bins: int = BINS) -> list[float]:
    """Bin counts between low and high, the fullest bin 1; none for a range that has no width."""
    if not (high > low and np.isfinite(high - low)):
        return []
    places = ((numbers - low) / (high - low) * bins).astype(np.int64).clip(0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    return [round(float(share), 4) for share in counts / counts.max()]


def _sample_images(images: NDArray[np.uint8], y: NDArray[Any], schema: Schema) -> str:
    """Draw the first training images of each class, one class per row, as a PNG in base64."""
    groups = [np.flatnonzero(y == index) for index in range(min(len(schema.classes), SAMPLE_CLASSES))]
    if not groups:
        groups = np.array_split(np.arange(min(len(y), 4 * SAMPLE_IMAGES)), 4)
    _, height, width = schema.input_shape
    sheet = np.zeros((len(groups) * (height + 1), SAMPLE_IMAGES * (width + 1), 3), np.uint8)
    for row, group in enumerate(groups):
        for place, index in enumerate(group[:SAMPLE_IMAGES]):
            top, left = row * (height + 1), place * (width + 1)
            sheet[top : top + height, left : left + width] = as_pixels(images[index])
    return png_base64(stretched(sheet))


def _type_name(dtype: pl.DataType) -> str:
    if dtype.is_integer():
        return "integer"
    if dtype.is_numeric():
        return "number"
    names: dict[Any, str] = {pl.Boolean: "bool", pl.Date: "date", pl.Datetime: "date and time"}
    return names.get(dtype.base_type(), "text" if dtype in (pl.String, pl.Categorical, pl.Enum) else str(dtype).lower())


def _left_out(name: str, schema: Schema) -> Literal["", "constant", "identifier"]:
    if name in schema.cleaning.constant_columns:
        return "constant"
    return "identifier" if name in schema.cleaning.identifier_columns else ""


def _number(value: float) -> str:
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}" if abs(value) >= 10_000 else str(int(value))
    return f"{value:.4g}"
