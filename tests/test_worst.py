"""The examples that a model is most wrong about: chosen by loss, told in the source's terms, small, escaped."""

import base64
import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from basekamp.data.dataset import Dataset
from basekamp.data.facts import Category, ClassRow, Column, Part, Profile
from basekamp.data.prepare import prepare_data
from basekamp.evaluation.evaluate import Predictions
from basekamp.evaluation.worst import Example, Worst, find_worst
from basekamp.experiment import DataSettings
from basekamp.language import speaking
from basekamp.records.record import Record
from basekamp.report.attempt import attempt_html
from tests.made_records import ATTACK, BASE, BETTER, EMPTY

COLORS = ["red", "green", "blue"]


@pytest.fixture
def table(tmp_path: Path) -> Dataset:
    """400 rows with a number that counts them, a category, missing numbers, and two classes."""
    count = pl.int_range(1, 401, eager=True)
    frame = pl.DataFrame(
        {
            "nth": count,
            "color": [COLORS[i % 3] for i in range(400)],
            "gap": [None if i % 5 == 0 else float(i % 7) for i in range(400)],
            "kind": ["yes" if i % 2 else "no" for i in range(400)],
        }
    )
    frame.write_csv(tmp_path / "rows.csv")
    return prepare_data(DataSettings(source=str(tmp_path / "rows.csv"), target="kind"), tmp_path / "data")


def predictions(data: Dataset, chances: np.ndarray) -> Predictions:
    """Two replicates around these probabilities of the right class."""
    split = data.split("validation")
    y = np.asarray(split.y)
    outputs = np.zeros((2, len(y), 2), np.float32)
    for i, shift in enumerate((-0.01, 0.01)):
        outputs[i, np.arange(len(y)), y] = chances + shift
        outputs[i, np.arange(len(y)), 1 - y] = 1 - chances - shift
    return Predictions(rows=np.asarray(split.rows), targets=y, outputs=outputs)


def test_worst_are_those_of_the_highest_loss_told_as_the_source_tells_them(table: Dataset) -> None:
    numbers = np.asarray(table.split("validation").numbers)
    chances = np.full(len(numbers), 0.9)
    chances[[3, 7]] = 0.2, 0.05
    told = find_worst(table, predictions(table, chances))
    assert (told.counted_in, len(told.examples)) == ("source", 12)
    assert "0" in [one.values["gap"] for one in told.examples]
    first, second, third = told.examples[:3]
    assert [first.row, second.row] == numbers[[7, 3]].tolist()
    assert (first.chance, first.loss) == (pytest.approx(0.05), pytest.approx(-np.log(0.05), abs=1e-5))
    assert third.chance == pytest.approx(0.9) and third.right == third.answer
    for one in told.examples:
        place = one.row - 1
        assert one.right == ("yes" if place % 2 else "no")
        assert one.values["color"] == COLORS[place % 3]
        assert float(one.values["nth"]) == pytest.approx(one.row, abs=0.01)
        assert one.values["gap"] == ("missing" if place % 5 == 0 else str(place % 7))


def test_worst_of_a_regression_is_the_largest_distance(tmp_path: Path) -> None:
    pl.DataFrame({"a": range(300), "y": [i / 3 for i in range(300)]}).write_csv(tmp_path / "rows.csv")
    settings = DataSettings(source=str(tmp_path / "rows.csv"), target="y", task="regression")
    data = prepare_data(settings, tmp_path / "data")
    split = data.split("validation")
    y = np.asarray(split.y)
    outputs = np.stack([y, y])
    outputs[:, 5] -= 40
    told = find_worst(data, Predictions(rows=np.asarray(split.rows), targets=y, outputs=outputs)).examples[0]
    assert (told.loss, told.chance, float(told.right)) == (
        pytest.approx(40, abs=1e-4),
        None,
        pytest.approx(y[5], rel=1e-4),
    )


def test_images_are_small_pngs_of_the_right_examples(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (300, 3, 100, 100), dtype=np.uint8)
    labels = np.arange(300) % 2
    images[:, 0] = np.where(labels[:, None, None], 250, 5)
    np.savez(tmp_path / "images.npz", images=images, labels=labels)
    data = prepare_data(DataSettings(source=str(tmp_path / "images.npz"), target="labels"), tmp_path / "data")
    told = find_worst(data, predictions(data, np.full(data.schema.rows["validation"], 0.5)))
    for one in told.examples:
        with Image.open(io.BytesIO(base64.b64decode(one.image))) as image:
            assert max(image.size) <= 40
            assert (np.asarray(image)[..., 0] > 128).all() == (one.right == "1")
    assert len(told.model_dump_json()) < 100_000


def test_environment_keeps_examples_out(table: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASEKAMP_EXAMPLES", "0")
    assert find_worst(table, predictions(table, np.full(table.schema.rows["validation"], 0.5))).examples == []


def hostile(image: str) -> Record:
    """A record whose examples, values and columns are texts that would run, were they not escaped."""
    values = {} if image else {ATTACK: ATTACK}
    one = Example(row=1, right=ATTACK, answer=ATTACK, chance=0.1, loss=2.3, image=image, values=values)
    column = Column(name=ATTACK, type=ATTACK, missing=0.1, distinct=3, top=[Category(value=ATTACK, share=0.5)])
    part = Part(split=ATTACK, count=3, share=0.5)
    profile = Profile(class_rows=[ClassRow(name=ATTACK, parts=[part])], columns=[column])
    update = {"worst": Worst(counted_in="source", examples=[one]), "profile": profile}
    return BETTER.model_copy(update=update)


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("image", ["", '"><script>alert(1)</script>'])
def test_pages_escape_what_examples_and_columns_say(language: str, image: str) -> None:
    with speaking(language):
        page = attempt_html(hostile(image), BASE, EMPTY)
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    assert ("가장 크게 틀린 곳" in page) == (language == "ko")
