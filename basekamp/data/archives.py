"""Compressed files and archives, unpacked into a scratch folder: bounded in size, and nothing ever leaves the folder.

Members are written under names of our own; of a member's name only the class (its folder) and the suffix are kept.
"""

import stat
import sys
import tarfile
import zipfile
import zlib
from bz2 import BZ2File
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from gzip import GzipFile
from lzma import LZMAError, LZMAFile
from pathlib import Path, PurePosixPath
from typing import IO

from basekamp.errors import InputError

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdError, ZstdFile
else:
    from backports.zstd import ZstdError, ZstdFile

Compressed = GzipFile | BZ2File | LZMAFile | ZstdFile
COMPRESSED: dict[str, Callable[[Path], Compressed]] = {
    ".gz": GzipFile,
    ".bz2": BZ2File,
    ".xz": LZMAFile,
    ".zst": ZstdFile,
}
SHORT = {".tgz": ".gz", ".tbz2": ".bz2", ".txz": ".xz", ".tzst": ".zst"}
"""Suffixes of a compressed tar, and of what compresses it."""

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
MOST_EXPANSION, FREE_BYTES = 200, 256 << 20
MOST_MEMBERS = 2_000_000
PIECE = 1 << 20
_DAMAGES = (
    OSError,
    EOFError,
    zlib.error,
    LZMAError,
    ZstdError,
    zipfile.BadZipFile,
    tarfile.TarError,
    RuntimeError,
    ValueError,
)


def check_expansion(name: str, stored: int, declared: int) -> None:
    """Refuse what would unpack to far more than real data does, before it is unpacked.

    Raises: InputError.
    """
    if declared > max(FREE_BYTES, stored * MOST_EXPANSION):
        raise InputError(
            f"{name} has {stored:,} bytes and unpacks to more than {MOST_EXPANSION} times as many, as a decompression "
            "bomb does: unpack it yourself and name the file, if you trust it."
        )


def inner_suffix(path: Path) -> str:
    """Return what kind of file is left when compression is taken off: `.csv` for t.csv.gz, `.tar` for t.tgz."""
    suffix = path.suffix.lower()
    if suffix in SHORT:
        return ".tar"
    return Path(path.stem).suffix.lower() if suffix in COMPRESSED else suffix


def unpack(path: Path, scratch: Path) -> Path:
    """Take off compression, and open an archive: gives a plain file, or a folder with a sub-folder per class.

    Raises: InputError when it is damaged, a bomb, or holds what is not one table or images.
    """
    suffix = path.suffix.lower()
    if opened := COMPRESSED.get(SHORT.get(suffix, suffix)):
        path = _decompress(path, opened, scratch)
    if path.suffix.lower() == ".zip":
        return _unpack_zip(path, scratch)
    return _unpack_tar(path, scratch) if path.suffix.lower() == ".tar" else path


def _decompress(path: Path, opened: Callable[[Path], Compressed], scratch: Path) -> Path:
    target = scratch / f"{path.stem}{'.tar' if path.suffix.lower() in SHORT else ''}"
    stored = path.stat().st_size
    with _told(path), opened(path) as source, target.open("wb") as out:
        while piece := source.read(PIECE):
            out.write(piece)
            check_expansion(path.name, stored, out.tell())
    return target


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn what a damaged archive raises into one sentence."""
    try:
        yield
    except InputError:
        raise
    except _DAMAGES as error:
        reason = str(error).partition("\n")[0] or "it ends too early"
        raise InputError(f"{path.name} is damaged or cut off ({reason}): fetch or write it again.") from error


def _unpack_zip(path: Path, scratch: Path) -> Path:
    with _told(path), zipfile.ZipFile(path) as archive:
        members = [each for each in archive.infolist() if not each.is_dir()]
        for each in members:
            if stat.S_ISLNK(each.external_attr >> 16):
                raise InputError(f"the member {each.filename!r} of {path.name} is a link: put the file itself there.")
            if each.flag_bits & 1:
                raise InputError(f"the member {each.filename!r} of {path.name} is encrypted: unpack it first.")
        names = {each.filename: each for each in members}
        sizes = {name: each.file_size for name, each in names.items()}
        if len(names) < len(members):
            raise InputError(f"{path.name} holds two members of one name: write it again.")
        return _unpacked(path, scratch, sizes, lambda name: archive.open(names[name]))


def _unpack_tar(path: Path, scratch: Path) -> Path:
    with _told(path), tarfile.open(path, "r:") as archive:
        members: dict[str, tarfile.TarInfo] = {}
        for each in archive:
            if each.isdir():
                continue
            if not each.isreg() or each.issparse():
                raise InputError(f"the member {each.name!r} of {path.name} is a link or no plain file: take it out.")
            if each.name in members:
                raise InputError(f"{path.name} holds {each.name!r} twice: write it again.")
            members[each.name] = each
        sizes = {name: each.size for name, each in members.items()}
        return _unpacked(path, scratch, sizes, lambda name: _required(archive.extractfile(members[name])))


def _required(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None, "only plain files are asked for"
    return stream


def _unpacked(path: Path, scratch: Path, sizes: dict[str, int], opened: Callable[[str], IO[bytes]]) -> Path:
    """Write one table, or images by class, into `scratch`; `sizes` says what each member declares."""
    sizes = {name: size for name, size in sizes.items() if not is_left_by_a_desktop(name)}
    if len(sizes) > MOST_MEMBERS:
        raise InputError(f"{path.name} holds {len(sizes):,} files, at most {MOST_MEMBERS:,} are read: use Parquet.")
    check_expansion(path.name, path.stat().st_size, sum(sizes.values()))
    for name in sizes:
        _check_name(name, path)
    images = [name for name in sizes if PurePosixPath(name).suffix.lower() in IMAGES]
    if len(sizes) == 1 and not images:
        name = next(iter(sizes))
        target = scratch / f"{path.stem}{PurePosixPath(name).suffix.lower()}"
        _copy(opened(name), target, sizes[name], path)
        return target
    if other := [name for name in sizes if name not in images]:
        raise InputError(f"{path.name} holds {other[0]!r} beside other files: pack one table, or images only.")
    if not images:
        raise InputError(f"{path.name} holds no file: pack one table, or images.")
    folder = scratch / f"{path.stem}-images"
    for index, name in enumerate(images):
        inside = PurePosixPath(name)
        target = folder / (inside.parent.name or "-") / f"{index:08}-{inside.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy(opened(name), target, sizes[name], path)
    return folder


def _check_name(name: str, path: Path) -> None:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if name.startswith(("/", "\\")) or ".." in parts or "\0" in name or (parts and ":" in parts[0]):
        raise InputError(f"the member {name!r} of {path.name} leads out of it: pack it again with plain names.")


def is_left_by_a_desktop(name: str) -> bool:
    """Whether a file is one that file managers put beside others, and not the user."""
    return name.startswith("__MACOSX/") or PurePosixPath(name).name in (".DS_Store", "Thumbs.db", "desktop.ini")


def _copy(source: IO[bytes], target: Path, size: int, path: Path) -> None:
    """Copy a member that declares `size` bytes, and not one more."""
    with source, target.open("xb") as out:
        while piece := source.read(PIECE):
            out.write(piece)
            if out.tell() > size:
                raise InputError(f"{path.name} holds more bytes than it declares: write it again.")
    if target.stat().st_size != size:
        raise InputError(f"{path.name} is cut off within {target.name}: fetch or write it again.")
