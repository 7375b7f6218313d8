"""The validation examples that a model is most wrong about, small enough to stand in a record.

They show rows of the data: `BASEKAMP_EXAMPLES=0` keeps them out of records.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from basekamp.data.dataset import CountedIn, Dataset, Schema, decode_row
from basekamp.data.facts import shortened
from basekamp.data.png import as_pixels, png_base64, stretched
from basekamp.document import load_document
from basekamp.evaluation.evaluate import Predictions

WORST_FILE = "worst.json"
VARIABLE = "BASEKAMP_EXAMPLES"
MOST_EXAMPLES, MOST_VALUES, LARGEST_SIDE = 12, 24, 40
SMALLEST_CHANCE = 1e-7


class Example(BaseModel):
    """One example: what it is, and what all replicates together say.

    right and answer: class names, or values in the target's unit; chance: the probability given to the right class,
    None for regression. image: a PNG in base64, "" for a table, whose row is in `values`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    row: int
    right: str
    answer: str
    chance: float | None
    loss: float
    image: str = ""
    values: dict[str, str] = {}


class Worst(BaseModel):
    """Examples, the highest loss first: the cross-entropy, or the distance to the target."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    counted_in: CountedIn
    examples: list[Example]


def find_worst(data: Dataset, predictions: Predictions) -> Worst:
    """Look at the validation split; none where the environment says so."""
    split = data.split("validation")
    if os.environ.get(VARIABLE, "") == "0":
        return Worst(counted_in=split.counted_in, examples=[])
    mean = predictions.outputs.mean(axis=0, dtype=np.float64)
    losses = _losses(mean, predictions)
    places = np.argsort(-losses, kind="stable")[:MOST_EXAMPLES].tolist()
    examples = [
        Example(
            row=row,
            **_told(data.schema, mean[place], predictions.targets[place]),
            loss=round(float(losses[place]), 6),
            **_shown(data.schema, np.asarray(split.x[place])),
        )
        for place, row in zip(places, split.source_rows(places), strict=True)
    ]
    return Worst(counted_in=split.counted_in, examples=examples)


def read_worst(directory: Path) -> Worst | None:
    """Read what `evaluate_model` wrote beside the evaluation; None where it was not asked to."""
    path = directory / WORST_FILE
    return load_document(Worst, path) if path.is_file() else None


def _losses(mean: NDArray[np.float64], predictions: Predictions) -> NDArray[np.float64]:
    targets = predictions.targets
    losses: NDArray[np.float64] = (
        np.abs(mean - targets)
        if mean.ndim == 1
        else -np.log(np.maximum(mean[np.arange(len(targets)), targets], SMALLEST_CHANCE))
    )
    return losses


def _told(schema: Schema, output: NDArray[np.float64], target: float) -> dict[str, Any]:
    if schema.task == "regression":
        return {"right": f"{target:.6g}", "answer": f"{float(output):.6g}", "chance": None}
    names = [shortened(name) for name in schema.classes]
    return {
        "right": names[int(target)],
        "answer": names[int(output.argmax())],
        "chance": round(float(output[int(target)]), 6),
    }


def _shown(schema: Schema, x: NDArray[np.float32]) -> dict[str, Any]:
    if schema.kind == "image":
        return {"image": png_base64(stretched(as_pixels(x)), most_side=LARGEST_SIDE)}
    values = list(decode_row(x, schema.features).items())[:MOST_VALUES]
    return {"values": {shortened(name): shortened(value) for name, value in values}}
