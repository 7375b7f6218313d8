"""prepare-data: one call from a source to a dataset folder."""

import os
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from basekamp.data.cleaning import CleanRows, clean_images, clean_table
from basekamp.data.contract import make_contract, training_rows, write_contract
from basekamp.data.dataset import (
    SPLITS,
    Dataset,
    Schema,
    SplitArrays,
    content_fingerprint,
    load_dataset,
    save_split,
)
from basekamp.data.encoding import encode_features, fit_features, pixel_statistics
from basekamp.data.facts import PROFILE_FILE, Profile
from basekamp.data.leakage import LEAKAGE_FILE, Leakage, Rows, find_leakage
from basekamp.data.profile import make_profile, render_profile
from basekamp.data.readers import ImageTable
from basekamp.data.remote import without_secrets
from basekamp.data.sources import local_copy, local_fingerprint, read_local
from basekamp.data.split import assign_sides, check_groups, check_sides
from basekamp.data.version import content_version
from basekamp.errors import InputError

if TYPE_CHECKING:
    from basekamp.experiment import DataSettings


class _Encoded(NamedTuple):
    """All rows' inputs [n, ...] and the schema's fields that explain them."""

    x: NDArray[Any]
    fields: dict[str, Any]
    cleaning: dict[str, Any]


class _Built(NamedTuple):
    """What a dataset folder is made of; train: the training rows as a contract sees them."""

    schema: Schema
    splits: dict[str, SplitArrays]
    leakage: Leakage
    train: pl.DataFrame
    profile: Profile


def prepare_data(settings: "DataSettings", directory: Path, *, fingerprint: str = "") -> Dataset:
    """Read, clean, split and encode a source and write the dataset folder, with its profile, in one step.

    An earlier dataset in `directory` is replaced. With `fingerprint`, the source must still be that one.
    After a refusal nothing new lies in `directory`.

    Raises: InputError when the settings do not fit the source, or the source changed or cannot be used.
    """
    directory = Path(directory)
    _check_directory(directory)
    with tempfile.TemporaryDirectory(prefix="basekamp-") as scratch:
        path = local_copy(settings.source, Path(scratch))
        table, found = _read(settings, path, fingerprint)
        clean = clean_images(table, settings) if isinstance(table, ImageTable) else clean_table(table, settings)
        del table
        _write(directory, _build(clean.sorted() if settings.version == "content" else clean, settings, found))
    return load_dataset(directory)


def _read(settings: "DataSettings", path: Path, fingerprint: str) -> tuple[pl.DataFrame | ImageTable, str]:
    """The table and its fingerprint; a file that is the wrong one by its bytes is not read."""
    table = read_local(settings.source, path) if settings.version == "content" else None
    found = local_fingerprint(settings.source, path) if table is None else content_version(table)
    if fingerprint and fingerprint != found:
        raise InputError(
            f"the source {without_secrets(settings.source)} changed (fingerprint {found}, expected "
            f"{fingerprint}): run the experiment again on the new data."
        )
    return read_local(settings.source, path) if table is None else table, found


def _build(clean: CleanRows, settings: "DataSettings", fingerprint: str) -> _Built:
    sides = assign_sides(clean.places, validation=settings.split.validation, test=settings.split.test)
    check_sides(sides, clean.target.y, clean.target.classes)
    encoded = _encode_inputs(clean, sides == 0, rare=settings.rare)
    groups = clean.places if settings.split.group else None
    whole = SplitArrays(encoded.x, clean.target.y, clean.rows, groups, clean.numbers)
    splits = {name: whole.at(sides == index) for index, name in enumerate(SPLITS)}
    if settings.split.group:
        check_groups(settings.split.group, splits["validation"])
    targets = splits["train"].y.astype(np.float64)
    is_regression = clean.target.task == "regression"
    schema = Schema(
        source=without_secrets(settings.source),
        fingerprint=fingerprint,
        target=settings.target,
        task=clean.target.task,
        classes=clean.target.classes,
        target_mean=float(targets.mean()) if is_regression else 0.0,
        target_std=(float(targets.std()) or 1.0) if is_regression else 1.0,
        rows={name: len(arrays.y) for name, arrays in splits.items()},
        floor=_floor(splits, clean.target.classes),
        cleaning=clean.cleaning.model_copy(update=encoded.cleaning),
        **encoded.fields,
    )
    schema = schema.model_copy(update={"dataset_fingerprint": content_fingerprint(schema, splits)})
    inputs = clean.inputs if isinstance(clean.inputs, pl.DataFrame) else None
    rows = Rows(inputs, clean.dates, clean.target.y, clean.numbers, sides)
    train = None if inputs is None else inputs.filter(pl.Series(sides == 0))
    return _Built(
        schema=schema,
        splits=splits,
        leakage=find_leakage(schema, splits, rows, is_random=not (settings.split.group or settings.split.time)),
        train=training_rows(schema, splits["train"], train),
        profile=make_profile(schema, splits, train),
    )


def _encode_inputs(clean: CleanRows, is_train: NDArray[np.bool_], *, rare: int) -> _Encoded:
    if not isinstance(clean.inputs, pl.DataFrame):
        mean, std = pixel_statistics(clean.inputs[is_train])
        shape = clean.inputs.shape[1:]
        fields: dict[str, Any] = {"kind": "image", "input_shape": shape, "pixel_mean": mean, "pixel_std": std}
        return _Encoded(clean.inputs, fields, {})
    fitted = fit_features(clean.inputs.filter(pl.Series(is_train)), rare=rare)
    sizes = tuple(len(f.categories) + 1 for f in fitted.features if f.kind == "categorical")
    fields = {
        "kind": "tabular",
        "input_shape": (len(fitted.features),),
        "n_numeric": len(fitted.features) - len(sizes),
        "cardinalities": sizes,
        "features": fitted.features,
    }
    cleaning = {name: value for name, value in fitted._asdict().items() if name != "features"}
    return _Encoded(encode_features(clean.inputs, fitted.features), fields, cleaning)


def _floor(splits: dict[str, SplitArrays], classes: tuple[str, ...]) -> dict[str, float]:
    if not classes:
        return {name: float(arrays.y.astype(np.float64).std()) for name, arrays in splits.items()}
    commonest = int(np.bincount(splits["train"].y).argmax())
    return {name: float((arrays.y == commonest).mean()) for name, arrays in splits.items()}


def _check_directory(directory: Path) -> None:
    if directory.is_dir() and any(directory.iterdir()) and not (directory / "schema.json").is_file():
        raise InputError(f"{directory} holds other files: name an empty or new folder for the dataset.")
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory} is a file: name an empty or new folder for the dataset.")


def _write(directory: Path, built: _Built) -> None:
    """Write beside the place and rename into it, so that a reader never sees a part."""
    directory = directory.absolute()
    staging = directory.with_name(f".{directory.name}-{uuid.uuid4().hex[:8]}")
    try:
        staging.mkdir(parents=True)
        for name, arrays in built.splits.items():
            save_split(staging, name, arrays)
        (staging / "schema.json").write_text(built.schema.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (staging / PROFILE_FILE).write_text(built.profile.model_dump_json(), encoding="utf-8")
        page = render_profile(built.schema, built.splits, built.profile)
        (staging / "profile.html").write_text(page, encoding="utf-8")
        (staging / LEAKAGE_FILE).write_text(built.leakage.model_dump_json(indent=1), encoding="utf-8")
        write_contract(staging, make_contract(built.schema, built.train), built.train)
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
