"""Arrays from a .npz file that may be a stranger's: what it declares is compared with what it holds before numpy reads.

A few kilobytes of zip can unpack to any size, and a header of a few bytes can ask for an array of any size.
"""

import io
import math
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any, BinaryIO

from numpy.lib import format as npy
from numpy.typing import NDArray

MOST_BYTES = 2 << 30
_END_BYTES, _LOCATOR_BYTES, _MOST_DIRECTORY_BYTES = 22, 20, 4096


def load_arrays(content: bytes, names: Sequence[str], *, optional: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """Read exactly these arrays of numbers, and the optional ones that are there, as numpy.savez_compressed wrote them.

    Raises ValueError, with a reason to put into brackets, for anything else and for more than 2 GiB.
    """
    _check_end(content)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            held = [each.orig_filename for each in entries]
            wanted = [*names, *(name for name in optional if f"{name}.npy" in held)]
            if sorted(held) != sorted(f"{name}.npy" for name in wanted):
                raise ValueError(f"it does not hold {', '.join(names)} alone")
            declared = sum(each.file_size for each in entries)
            if declared > MOST_BYTES:
                raise ValueError(f"it declares {declared:,} bytes, more than {MOST_BYTES:,}")
            for each in entries:
                with archive.open(each) as member:
                    _check_header(member, each)  # type: ignore[arg-type]
            return {name: _read(archive, name) for name in wanted}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, RuntimeError) as error:
        raise ValueError("its archive is damaged") from error


def _check_end(content: bytes) -> None:
    """A directory of a few names, right before the end: a long one would be read whole before it is looked at."""
    end = content[-_END_BYTES:]
    has_locator = content[-_END_BYTES - _LOCATOR_BYTES :].startswith(b"PK\6\7")
    length = int.from_bytes(end[12:16], "little")
    if not end.startswith(b"PK\5\6") or end[-2:] != b"\0\0" or has_locator or length > _MOST_DIRECTORY_BYTES:
        raise ValueError("it is no archive of a few arrays")


def _check_header(member: BinaryIO, entry: zipfile.ZipInfo) -> None:
    if npy.read_magic(member) != (1, 0):
        raise ValueError(f"{entry.filename} is no array of numbers")
    shape, _, dtype = npy.read_array_header_1_0(member)
    if dtype.kind not in "uif" or min(shape, default=0) < 0:
        raise ValueError(f"{entry.filename} is no array of numbers")
    if math.prod(shape) * dtype.itemsize != entry.file_size - member.tell():
        raise ValueError(f"{entry.filename} declares another size than it has")


def _read(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    with archive.open(f"{name}.npy") as member:
        array: NDArray[Any] = npy.read_array(member, allow_pickle=False)
    return array
