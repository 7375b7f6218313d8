"""prepare-data: one call from a source to a dataset folder."""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from basekamp.data.cleaning import CleanRows, clean_images, clean_table
from basekamp.data.contract import Seen, sampled_rows, see_column, see_images, write_contract
from basekamp.data.dataset import (
    SPLITS,
    Dataset,
    RowsFile,
    Schema,
    content_fingerprint,
    load_dataset,
    save_arrays,
)
from basekamp.data.encoding import Counted, FittedFeatures, encode_features, fit_column, join_features, pixel_statistics
from basekamp.data.facts import PROFILE_FILE, Column
from basekamp.data.images import ImageTable
from basekamp.data.leakage import LEAKAGE_FILE, Rows, find_leakage, row_hashes
from basekamp.data.profile import describe, make_profile, render_profile
from basekamp.data.quarantine import QUARANTINE
from basekamp.data.remote import without_secrets
from basekamp.data.sources import local_files, local_fingerprint, read_local
from basekamp.data.split import Hashes, assign_sides, check_groups, check_sides
from basekamp.data.table import Table
from basekamp.data.version import content_version
from basekamp.errors import InputError

if TYPE_CHECKING:
    from basekamp.experiment import DataSettings


class _Fitted(NamedTuple):
    """The schema's fields that explain the inputs, what fitting them left out, and what was seen of the columns."""

    fields: dict[str, Any]
    cleaning: dict[str, Any]
    columns: list[Column]
    seen: list[Seen]


def prepare_data(settings: "DataSettings", directory: Path, *, fingerprint: str = "") -> Dataset:
    """Read, clean, split and encode a source and write the dataset folder, with its profile, in one step.

    An earlier dataset in `directory` is replaced. With `fingerprint`, the source must still be that one.
    After a refusal nothing new lies in `directory`. A table is read a column or a batch at a time, but with
    `version: content`, for which its rows are sorted in memory.

    Raises: InputError when the settings do not fit the source, or the source changed or cannot be used.
    """
    directory = Path(directory)
    _check_directory(directory)
    with tempfile.TemporaryDirectory(prefix="basekamp-") as scratch:
        files = local_files(settings.source, Path(scratch))
        quarantine = Path(scratch) / QUARANTINE
        if settings.version == "bytes":  # a file that is the wrong one is not read
            found = _expected(local_fingerprint(settings.source, files), fingerprint, settings.source)
        table = read_local(settings.source, files, settings.reading, Path(scratch), quarantine)
        if settings.version == "content":
            found = _expected(content_version(table), fingerprint, settings.source)
        clean = clean_images(table, settings) if isinstance(table, ImageTable) else clean_table(table, settings)
        del table
        with _staging(directory) as staging:
            _write(staging, clean.sorted() if settings.version == "content" else clean, settings, found)
            if quarantine.exists():
                shutil.copyfile(quarantine, staging / QUARANTINE)
    return load_dataset(directory)


def _expected(found: str, fingerprint: str, source: str) -> str:
    """The fingerprint that was found, which must be the expected one, if any."""
    if fingerprint and fingerprint != found:
        raise InputError(
            f"the source {without_secrets(source)} changed (fingerprint {found}, expected "
            f"{fingerprint}): run the experiment again on the new data."
        )
    return found


def _write(staging: Path, clean: CleanRows, settings: "DataSettings", fingerprint: str) -> None:
    """Split and encode rows and write the dataset folder."""
    sides = assign_sides(clean.places, validation=settings.split.validation, test=settings.split.test)
    check_sides(sides, clean.target.y, clean.target.classes)
    chosen = {name: sides == index for index, name in enumerate(SPLITS)}
    if settings.split.group:
        check_groups(settings.split.group, clean.places[chosen["validation"]])
    targets = {name: clean.target.y[rows] for name, rows in chosen.items()}
    train = _rows_of(clean.inputs, chosen["train"])
    fitted = _fit_inputs(train, rare=settings.rare)
    schema = _schema(clean, settings, fitted, targets).model_copy(update={"fingerprint": fingerprint})
    hashes = _write_encoded(staging, clean.inputs, sides, schema) if isinstance(clean.inputs, Table) else clean.rows
    for name, rows in chosen.items():
        arrays = {
            "x": None if isinstance(clean.inputs, Table) else clean.inputs[rows],
            "y": targets[name],
            "rows": clean.rows[rows],
            "groups": clean.places[rows] if settings.split.group else None,
            "numbers": clean.numbers[rows],
        }
        save_arrays(staging, name, arrays)
    with ThreadPoolExecutor(1) as aside:
        content = aside.submit(content_fingerprint, schema, staging)
        write_contract(staging, schema, fitted.seen, targets["train"])
        _write_leakage(staging, schema, clean, sides, hashes, fitted.columns, settings)
    schema = schema.model_copy(update={"dataset_fingerprint": content.result()})
    (staging / "schema.json").write_text(schema.model_dump_json(indent=2) + "\n", encoding="utf-8")
    profile = make_profile(schema, targets, fitted.columns)
    (staging / PROFILE_FILE).write_text(profile.model_dump_json(), encoding="utf-8")
    (staging / "profile.html").write_text(render_profile(schema, profile, targets, train), encoding="utf-8")


def _write_leakage(
    staging: Path,
    schema: Schema,
    clean: CleanRows,
    sides: NDArray[np.int8],
    hashes: Hashes,
    columns: list[Column],
    settings: "DataSettings",
) -> None:
    n_train = schema.rows["train"]
    rows = Rows(
        inputs=clean.inputs if isinstance(clean.inputs, Table) else None,
        dates=clean.dates,
        y=clean.target.y,
        numbers=clean.numbers,
        sides=sides,
        hashes=hashes,
        per_value={column.name: n_train * (1 - column.missing) / max(column.distinct, 1) for column in columns},
    )
    is_random = not (settings.split.group or settings.split.time)
    leakage = find_leakage(Dataset(staging, schema), rows, is_random=is_random)
    (staging / LEAKAGE_FILE).write_text(leakage.model_dump_json(indent=1), encoding="utf-8")


def _schema(clean: CleanRows, settings: "DataSettings", fitted: _Fitted, targets: dict[str, NDArray[Any]]) -> Schema:
    train = targets["train"].astype(np.float64)
    is_regression = clean.target.task == "regression"
    return Schema(
        source=without_secrets(settings.source),
        fingerprint="",
        target=settings.target,
        task=clean.target.task,
        classes=clean.target.classes,
        target_mean=float(train.mean()) if is_regression else 0.0,
        target_std=(float(train.std()) or 1.0) if is_regression else 1.0,
        rows={name: len(y) for name, y in targets.items()},
        floor=_floor(targets, clean.target.classes),
        cleaning=clean.cleaning.model_copy(update=fitted.cleaning),
        **fitted.fields,
    )


def _rows_of(inputs: Table | NDArray[np.uint8], rows: NDArray[np.bool_]) -> Table | NDArray[np.uint8]:
    return inputs.only(rows, inputs.columns) if isinstance(inputs, Table) else inputs[rows]


def _fit_inputs(train: Table | NDArray[np.uint8], *, rare: int) -> _Fitted:
    """Look at the training rows, at each column of a table once."""
    chosen = sampled_rows(train.height if isinstance(train, Table) else len(train))
    if not isinstance(train, Table):
        mean, std = pixel_statistics(train)
        fields: dict[str, Any] = {"kind": "image", "input_shape": train.shape[1:], "pixel_mean": mean, "pixel_std": std}
        return _Fitted(fields, {}, [], see_images(train, chosen))

    def look(values: pl.Series) -> tuple[FittedFeatures, Column, Seen]:
        column = Counted.of(values)
        return fit_column(column, rare=rare), describe(column), see_column(column, chosen)

    fitted, columns, seen = map(list, zip(*train.map_columns(look), strict=True))
    found = join_features(fitted)
    sizes = tuple(len(f.categories) + 1 for f in found.features if f.kind == "categorical")
    fields = {
        "kind": "tabular",
        "input_shape": (len(found.features),),
        "n_numeric": len(found.features) - len(sizes),
        "cardinalities": sizes,
        "features": found.features,
    }
    cleaning = {name: value for name, value in found._asdict().items() if name != "features"}
    return _Fitted(fields, cleaning, columns, seen)


def _write_encoded(staging: Path, inputs: Table, sides: NDArray[np.int8], schema: Schema) -> Hashes:
    """Encode a table batch by batch into x of each split; gives the hash of each encoded row."""
    hashes = np.empty(len(sides), np.uint64)
    shapes = {name: (schema.rows[name], len(schema.features)) for name in SPLITS}
    with ExitStack() as opened:
        files = [opened.enter_context(closing(RowsFile(staging, name, shape))) for name, shape in shapes.items()]
        start = 0
        for x, encoded in inputs.map_batches(partial(_encoded, schema)):
            part = slice(start, start + len(x))
            hashes[part] = encoded
            for index, file in enumerate(files):
                file.append(x[sides[part] == index])
            start = part.stop
    return hashes


def _encoded(schema: Schema, batch: pl.DataFrame) -> tuple[NDArray[np.float32], Hashes]:
    x = encode_features(batch, schema.features)
    return x, row_hashes(x)


def _floor(targets: dict[str, NDArray[Any]], classes: tuple[str, ...]) -> dict[str, float]:
    if not classes:
        return {name: float(y.astype(np.float64).std()) for name, y in targets.items()}
    commonest = int(np.bincount(targets["train"]).argmax())
    return {name: float((y == commonest).mean()) for name, y in targets.items()}


def _check_directory(directory: Path) -> None:
    if directory.is_dir() and any(directory.iterdir()) and not (directory / "schema.json").is_file():
        raise InputError(f"{directory} holds other files: name an empty or new folder for the dataset.")
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory} is a file: name an empty or new folder for the dataset.")


@contextmanager
def _staging(directory: Path) -> Iterator[Path]:
    """Give a folder beside the place that is renamed into it at the end, so that a reader never sees a part."""
    directory = directory.absolute()
    staging = directory.with_name(f".{directory.name}-{uuid.uuid4().hex[:8]}")
    try:
        staging.mkdir(parents=True)
        yield staging
        _swap(staging, directory)
    except OSError as error:
        raise InputError(
            f"the dataset cannot be written to {directory} ({error.strerror or error}): "
            "check the space and the rights there."
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _swap(staging: Path, directory: Path) -> None:
    if not (directory / "schema.json").is_file():
        os.rename(staging, directory)
        return
    old = staging.with_name(f"{staging.name}-old")
    os.rename(directory, old)
    os.rename(staging, directory)
    shutil.rmtree(old)
