"""The dataset folder: memory-mapped arrays, one per split and purpose, and the schema that explains them.

schema.json  profile.json  profile.html  contract.json  sample.parquet  leakage.json
quarantine.csv where rows were put aside
train/  validation/  test/      each: x.npy  y.npy  rows.npy  numbers.npy, and groups.npy where rows belong together
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from basekamp.document import load_document
from basekamp.errors import InputError

SCHEMA_VERSION = 1
SPLITS = ("train", "validation", "test")
OPTIONAL = ("groups", "numbers")
FLOAT32_PRECISION = 2.0**-23
CountedIn = Literal["source", "validation"]
"""Whether rows are told by their number in the source, from 1, or by their place in the validation split, from 0."""


class Feature(BaseModel):
    """One column of x: where it comes from and how it was encoded, enough to encode new rows alike."""

    model_config = ConfigDict(frozen=True)

    name: str
    kind: Literal["numeric", "categorical", "indicator"]
    column: str
    part: str = ""
    mean: float = 0.0
    std: float = 1.0
    categories: tuple[str, ...] = ()


class Cleaning(BaseModel):
    """What was taken out of the source, and why."""

    model_config = ConfigDict(frozen=True)

    rows_read: int = 0
    rows_quarantined: int = 0
    duplicates_dropped: int = 0
    missing_target_dropped: int = 0
    dropped_columns: tuple[str, ...] = ()
    constant_columns: tuple[str, ...] = ()
    identifier_columns: tuple[str, ...] = ()
    rare_categories: dict[str, int] = {}
    missing_values: dict[str, int] = {}


class Schema(BaseModel):
    """What the arrays mean. All statistics come from the training split alone.

    `cardinalities` counts the codes of each categorical column, code 0 (missing, rare or unseen) included.
    `pixel_mean` and `pixel_std` are per channel, in raw uint8 units. `floor` says per split what knowing
    nothing reaches: the accuracy of always answering the commonest training class, or the standard
    deviation of the target. `dataset_fingerprint` depends on the content, not on where the source lies.
    """

    model_config = ConfigDict(frozen=True)

    version: int = SCHEMA_VERSION
    source: str
    fingerprint: str
    dataset_fingerprint: str = ""
    target: str
    task: Literal["classification", "regression"]
    kind: Literal["tabular", "image"]
    classes: tuple[str, ...] = ()
    input_shape: tuple[int, ...]
    n_numeric: int = 0
    cardinalities: tuple[int, ...] = ()
    features: tuple[Feature, ...] = ()
    pixel_mean: tuple[float, ...] = ()
    pixel_std: tuple[float, ...] = ()
    target_mean: float = 0.0
    target_std: float = 1.0
    rows: dict[str, int]
    floor: dict[str, float]
    cleaning: Cleaning


class SplitArrays(NamedTuple):
    """One split: x uint8 [n, c, h, w] or float32 [n, d], y int64 or float32 [n], rows and groups uint64 [n] (hashes).

    Rows with one value of `split.group` have one hash in groups; without that setting there are no groups. numbers
    int64 [n] counts the source's rows from 1, without those put aside; a data set made elsewhere may lack it.
    """

    x: NDArray[Any]
    y: NDArray[Any]
    rows: NDArray[np.uint64]
    groups: NDArray[np.uint64] | None = None
    numbers: NDArray[np.int64] | None = None

    def source_rows(self, places: Sequence[int]) -> list[int]:
        """The source's rows at these places of the split; the places themselves where the data set does not tell."""
        return [int(place if self.numbers is None else self.numbers[place]) for place in places]

    @property
    def counted_in(self) -> CountedIn:
        """What `source_rows` tells."""
        return "validation" if self.numbers is None else "source"

    def at(self, chosen: NDArray[np.bool_] | slice) -> "SplitArrays":
        """Some of the rows."""
        return SplitArrays(**{part: values[chosen] for part, values in self._asdict().items() if values is not None})


class Dataset:
    """A dataset folder that was opened; arrays stay on disk until they are touched."""

    def __init__(self, directory: Path, schema: Schema) -> None:
        self.directory = directory
        self.schema = schema

    def split(self, name: str) -> SplitArrays:
        """Map one split into memory, copy-on-write: what is written to the arrays never reaches the disk."""
        with self._opened(name) as folder:
            files = {part: folder / f"{part}.npy" for part in SplitArrays._fields}
            told = {part: file for part, file in files.items() if part not in OPTIONAL or file.exists()}
            return SplitArrays(**{part: np.load(file, mmap_mode="c") for part, file in told.items()})

    def sample(self, name: str, most: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Read x and y of a random choice of a split's rows, always the same; x, which may be large, is not mapped."""
        with self._opened(name) as folder:
            y = np.load(folder / "y.npy", mmap_mode="c")
            rows = np.random.default_rng(0).permutation(len(y))[:most]
            return _rows_at(folder / "x.npy", rows), np.asarray(y[rows])

    @contextmanager
    def _opened(self, name: str) -> Iterator[Path]:
        """Give a split's folder; what cannot be read in it is one sentence."""
        if name not in SPLITS:
            raise InputError(f"there is no split {name!r}: use one of {', '.join(SPLITS)}.")
        folder = self.directory / name
        try:
            yield folder
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"the split {folder} cannot be read ({error}): prepare the data again.") from error


def _rows_at(path: Path, places: NDArray[np.int64]) -> NDArray[Any]:
    with path.open("rb") as file:
        npy.read_magic(file)
        shape, _, dtype = npy.read_array_header_1_0(file)
        begin = file.tell()
        rows = np.empty((len(places), *shape[1:]), dtype)
        flat = rows.reshape(len(places), -1).view(np.uint8)
        for row, place in zip(flat, places.tolist(), strict=True):
            file.seek(begin + place * len(row))
            if file.readinto(row.data) < len(row):
                raise EOFError(f"{path.name} is cut off")
        return rows


def decode_row(row: NDArray[np.float32], features: Sequence[Feature]) -> dict[str, str]:
    """Tell one encoded row float32 [d] in the source's terms, as {name: text}; five digits of a number."""
    told: dict[str, str] = {}
    for value, feature in zip(row.tolist(), features, strict=True):
        if feature.kind == "numeric":
            number = value * feature.std + feature.mean
            is_zero = abs(number) < FLOAT32_PRECISION * (abs(feature.mean) + abs(value) * feature.std)
            told[feature.name] = "0" if is_zero else f"{number:.5g}"
        elif feature.kind == "categorical":
            told[feature.name] = feature.categories[int(value) - 1] if value else "other"
        elif value:  # an indicator follows the number that it is about
            told[feature.name.removesuffix("_missing")] = "missing"
    return told


def load_dataset(directory: Path) -> Dataset:
    """Open a folder that `prepare_data` wrote.

    Raises: InputError when it is no dataset folder, or one of another version.
    """
    directory = Path(directory)
    try:
        schema = load_document(Schema, directory / "schema.json")
    except (OSError, InputError) as error:
        raise InputError(f"{directory} is not a dataset folder: make one with prepare_data.") from error
    if schema.version != SCHEMA_VERSION:
        raise InputError(
            f"{directory} is a dataset of version {schema.version}, this basekamp reads {SCHEMA_VERSION}: "
            "prepare the data again."
        )
    return Dataset(directory, schema)


def with_fewer_rows(data: Dataset, directory: Path, n_rows: int) -> Path:
    """Make a dataset folder of the first `n_rows` training rows, which are a random choice, and all other splits.

    Its statistics stay those of all rows. Gives `directory`.
    """
    directory.mkdir(parents=True)
    for name in SPLITS[1:]:
        (directory / name).symlink_to((data.directory / name).absolute())
    save_split(directory, SPLITS[0], data.split(SPLITS[0]).at(slice(n_rows)))
    rows = {**data.schema.rows, SPLITS[0]: n_rows}
    schema = data.schema.model_copy(
        update={"rows": rows, "dataset_fingerprint": f"{data.schema.dataset_fingerprint}-{n_rows}"}
    )
    (directory / "schema.json").write_text(schema.model_dump_json(), encoding="utf-8")
    return directory


def save_split(directory: Path, name: str, arrays: SplitArrays) -> None:
    """Write one split's arrays into the folder."""
    save_arrays(directory, name, arrays._asdict())


def save_arrays(directory: Path, name: str, arrays: Mapping[str, NDArray[Any] | None]) -> None:
    """Write some of a split's arrays, by their names, into the folder."""
    folder = directory / name
    folder.mkdir(parents=True, exist_ok=True)
    for part, values in arrays.items():
        if values is not None:
            np.save(folder / f"{part}.npy", values, allow_pickle=False)


class RowsFile:
    """x of one split, float32 [n, d], while it is written a batch of rows at a time."""

    def __init__(self, directory: Path, name: str, shape: tuple[int, int]) -> None:
        (directory / name).mkdir(parents=True)
        self._file = (directory / name / "x.npy").open("wb")
        header = {"descr": npy.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(self._file, header)

    def append(self, rows: NDArray[np.float32]) -> None:
        """Write the next rows [m, d]."""
        self._file.write(np.ascontiguousarray(rows).data)

    def close(self) -> None:
        """Let the file be read."""
        self._file.close()


def content_fingerprint(schema: Schema, directory: Path) -> str:
    """Return 16 hex digits over the schema and what is learned from in a folder; the source's place does not enter."""
    digest = hashlib.blake2b(digest_size=8)
    told = schema.model_dump_json(
        exclude={"source": True, "dataset_fingerprint": True, "cleaning": {"rows_quarantined": True}}
    )
    digest.update(told.encode())
    for name in SPLITS:
        for part in SplitArrays._fields:
            if part not in OPTIONAL:
                _each_piece(directory / name / f"{part}.npy", digest.update)
    return digest.hexdigest()


def _each_piece(path: Path, act: Callable[[bytes], None]) -> None:
    with path.open("rb") as file:
        npy.read_magic(file)
        npy.read_array_header_1_0(file)
        while piece := file.read(1 << 20):
            act(piece)
