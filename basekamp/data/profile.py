"""The data profile: one page that shows what is in a dataset before anything is trained on it."""

import base64
import struct
import zlib
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from basekamp.data.dataset import Schema, SplitArrays
from basekamp.data.encoding import as_numbers
from basekamp.report.page import render

BINS = 24
MOST_CLASSES = 30
MOST_COLUMNS = 300
TOP_CATEGORIES = 4
LONGEST_TEXT = 40
SAMPLE_CLASSES, SAMPLE_IMAGES = 10, 16


def render_profile(schema: Schema, splits: dict[str, SplitArrays], train: pl.DataFrame | None) -> str:
    """Render the page. `train` holds a table's training rows before encoding, None for images."""
    context: dict[str, Any] = {"schema": schema, "class_rows": [], "target_histograms": []}
    if schema.classes:
        context["class_rows"] = rows = _class_rows(schema, splits)
        context["class_share_max"] = max(part["share"] for row in rows for part in row["parts"])
    else:
        context["target_histograms"] = _target_histograms(splits)
    if train is None:
        context["samples"] = _sample_images(splits["train"], schema)
    else:
        context["columns"] = [_describe(column, schema) for column in train.iter_columns()][:MOST_COLUMNS]
        context["columns_left_out"] = max(0, train.width - MOST_COLUMNS)
    return render("profile.html", **context)


def _class_rows(schema: Schema, splits: dict[str, SplitArrays]) -> list[dict[str, Any]]:
    counts = {name: np.bincount(arrays.y, minlength=len(schema.classes)) for name, arrays in splits.items()}
    order: list[int] = list(range(len(schema.classes)))
    if len(order) > MOST_CLASSES:
        order = np.argsort(-counts["train"], kind="stable")[:MOST_CLASSES].tolist()
    return [
        {
            "name": schema.classes[index],
            "parts": [
                {"split": name, "count": int(c[index]), "share": float(c[index] / c.sum())}
                for name, c in counts.items()
            ],
        }
        for index in order
    ]


def _target_histograms(splits: dict[str, SplitArrays]) -> list[dict[str, Any]]:
    low = min(float(arrays.y.min()) for arrays in splits.values())
    high = max(float(arrays.y.max()) for arrays in splits.values())
    return [
        {
            "split": name,
            "heights": _heights(arrays.y.astype(np.float64), low, high),
            "low": float(arrays.y.min()),
            "high": float(arrays.y.max()),
            "mean": float(arrays.y.astype(np.float64).mean()),
        }
        for name, arrays in splits.items()
    ]


def _describe(column: pl.Series, schema: Schema) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": column.name,
        "type": _type_name(column.dtype),
        "missing": column.null_count() / len(column),
        "distinct": column.drop_nulls().n_unique(),
        "note": _note(column.name, schema),
        "top": [],
        "heights": [],
        "low": "",
        "high": "",
        "mean": "",
    }
    known = column.drop_nulls()
    if known.is_empty():
        return described
    if column.dtype in (pl.String, pl.Boolean, pl.Categorical, pl.Enum):
        described["top"] = _top(known, len(column))
    else:
        described |= _range(known)
    return described


def _top(known: pl.Series, rows: int) -> list[dict[str, Any]]:
    counts = known.cast(pl.String).alias("value").value_counts()
    counts = counts.sort(["count", "value"], descending=[True, False]).head(TOP_CATEGORIES)
    return [{"value": _cut(value), "share": count / rows} for value, count in counts.iter_rows()]


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
    return [float(share) for share in counts / counts.max()]


def _sample_images(train: SplitArrays, schema: Schema) -> str:
    """Draw the first training images of each class, one class per row, as a PNG in base64."""
    groups = [np.flatnonzero(train.y == index) for index in range(min(len(schema.classes), SAMPLE_CLASSES))]
    if not groups:
        groups = np.array_split(np.arange(min(len(train.y), 4 * SAMPLE_IMAGES)), 4)
    channels, height, width = schema.input_shape
    sheet = np.zeros((len(groups) * (height + 1), SAMPLE_IMAGES * (width + 1), 3), np.uint8)
    for row, group in enumerate(groups):
        for place, index in enumerate(group[:SAMPLE_IMAGES]):
            image = train.x[index].transpose(1, 2, 0)
            top, left = row * (height + 1), place * (width + 1)
            sheet[top : top + height, left : left + width] = image[..., :3] if channels > 2 else image[..., :1]
    stretched = sheet.astype(np.float64) * 255 / max(1, int(sheet.max()))
    return base64.b64encode(_png(stretched.astype(np.uint8))).decode()


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """uint8 [h, w, 3] as a PNG file. Source: PNG specification, third edition, sections 5 and 11."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width, _ = pixels.shape
    lines = np.zeros((height, 1 + 3 * width), np.uint8)
    lines[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines.tobytes())) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _type_name(dtype: pl.DataType) -> str:
    if dtype.is_integer():
        return "integer"
    if dtype.is_numeric():
        return "number"
    names: dict[Any, str] = {pl.Boolean: "bool", pl.Date: "date", pl.Datetime: "date and time"}
    return names.get(dtype.base_type(), "text" if dtype in (pl.String, pl.Categorical, pl.Enum) else str(dtype).lower())


def _note(name: str, schema: Schema) -> str:
    if name in schema.cleaning.constant_columns:
        return "one value, left out"
    if name in schema.cleaning.identifier_columns:
        return "identifier, left out"
    rare = schema.cleaning.rare_categories.get(name, 0)
    return f"{rare:,} rare" if rare else ""


def _number(value: float) -> str:
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}" if abs(value) >= 10_000 else str(int(value))
    return f"{value:.4g}"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"
