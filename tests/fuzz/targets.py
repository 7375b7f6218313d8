"""The targets: each is given bytes, and whatever they are, only errors that a user should see may come out."""

import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from basekamp.data.dataset import Schema
from basekamp.data.prepare import prepare_data
from basekamp.document import read_document
from basekamp.errors import BasekampError
from basekamp.evaluation.evaluate import Evaluation, Predictions
from basekamp.experiment import DataSettings, load_experiment
from basekamp.naming import format_name, id_digest, id_time, name_from_json, parse_name
from basekamp.records.record import Opening, Record
from basekamp.records.waiting import Waiting
from basekamp.sweeps.shelf import Round, Trial
from basekamp.training.results import Training

KINDS = ("csv", "jsonl", "npz", "parquet")
"""Of data files."""

DOCUMENTS = (Record, Schema, Evaluation, Training, Opening, Round, Trial, Waiting)
_SCRATCH = tempfile.TemporaryDirectory(prefix="basekamp-fuzz-")


def name(data: bytes) -> None:
    """A name that parses is written in a form that means the same."""
    text = data.decode("utf-8", "surrogateescape")
    with suppress(BasekampError):
        parsed = parse_name(text)
        again = format_name(parsed)
        assert parsed.cut or repr(parse_name(again)) == repr(parsed) or ".cut-" in again, again
    for read in (name_from_json, id_time, id_digest):
        with suppress(BasekampError):
            read(text)
    with suppress(BasekampError):
        format_name(name_from_json(text))


def experiment(data: bytes) -> None:
    """An experiment file, and the settings of each attempt in it."""
    path = Path(_SCRATCH.name) / "experiment.yaml"
    path.write_bytes(data)
    with suppress(BasekampError):
        loaded = load_experiment(path)
        loaded.model_dump_json()
        for attempt in loaded.attempts:
            loaded.hyperparameters(attempt).effective()


def document(data: bytes) -> None:
    """Every kind of document that a store may hold; the predictions too."""
    for model in DOCUMENTS:
        with suppress(BasekampError):
            json.loads(read_document(model, data, "document").model_dump_json())
    with suppress(BasekampError):
        Predictions.from_bytes(data)


def _reader(kind: str) -> Callable[[bytes], None]:
    """A target of one kind of data file."""

    def read(data: bytes) -> None:
        path = Path(_SCRATCH.name) / f"data.{kind}"
        path.write_bytes(data)
        with suppress(BasekampError):
            prepare_data(DataSettings(source=str(path), target="y"), Path(_SCRATCH.name) / "dataset")

    return read


TARGETS: dict[str, Callable[[bytes], None]] = {
    "name": name,
    "experiment": experiment,
    "document": document,
    **{kind: _reader(kind) for kind in KINDS},
}
