"""The one place that reads what torch.save wrote, which may be a stranger's: it is looked at before torch opens it.

torch's `weights_only` runs no code of a file. Refused here, before torch sees it, is also what a file could use to
take all memory or time, or to show two readers different things: sizes that it does not hold, entries that lie over
each other or have one name, compression, names in the pickle beyond the few that we write, and pickles without end.
"""

import os
import pickletools
import re
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

MOST_DIRECTORY_BYTES = 16 << 20
"""About 180,000 entries, one for each tensor."""
MOST_PICKLE_BYTES = 64 << 20
MOST_OPCODES, OPCODES_PER_ENTRY = 1 << 20, 64
"""A tensor takes about 30 of the pickle's opcodes, a word or number of the schema one or two."""

_NAME = re.compile(r"[.\w]+(?:/[.\w]+)?", re.ASCII)
_PROGRAM = re.compile(r"code/.*|constants\.pkl", re.IGNORECASE)  # how torch tells TorchScript from weights
_GLOBAL = re.compile(r"collections OrderedDict|torch\._utils _rebuild_tensor_v2|torch [A-Z][A-Za-z0-9]{1,15}Storage")
_UNUSED_OPCODES = frozenset({"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"})

_LOCAL_HEADER_BYTES = 30
_END, _LOCATOR, _END64 = struct.Struct("<4s4H2IH"), struct.Struct("<4sIQI"), struct.Struct("<4sQ2H2I4Q")


def load_archive(source: Path | BinaryIO, device: torch.device) -> Any:
    """Read tensors and plain values; memory stays within what the file holds.

    Raises OSError, or ValueError for what torch.save did not write, with a reason to put into brackets.
    """
    if isinstance(source, Path):
        with source.open("rb") as stream:
            return load_archive(stream, device)
    try:
        check_archive(source)
        source.seek(0)
        value = torch.load(source, map_location=device, weights_only=True)
    except OSError:
        raise
    except ValueError as error:
        raise ValueError(str(error)) from None
    except Exception as error:  # torch raises whatever it stumbles over
        raise ValueError(f"torch refuses it with {type(error).__name__}") from error
    return value


def check_archive(stream: BinaryIO) -> None:
    """Raise ValueError for an archive that torch.save does not write; reads its directory and its pickle alone."""
    start = _directory_start(stream)
    try:
        with zipfile.ZipFile(stream) as archive:
            entries = archive.infolist()
            folder = _check_entries(entries, start)
            pickled = archive.getinfo(f"{folder}/data.pkl")
            if pickled.file_size > MOST_PICKLE_BYTES:
                raise ValueError(f"its pickle takes more than {MOST_PICKLE_BYTES:,} bytes")
            pickle = archive.read(pickled)
    except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError, RuntimeError, UnicodeDecodeError) as error:
        raise ValueError("its directory is damaged") from error
    _check_pickle(pickle, most_opcodes=MOST_OPCODES + OPCODES_PER_ENTRY * len(entries))


def is_dense(tensor: torch.Tensor) -> bool:
    """Whether a tensor has each of its numbers in the file: a few bytes can be shown as a tensor of any size."""
    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout == torch.strided
    return plain and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _directory_start(stream: BinaryIO) -> int:
    """Where the directory begins: it must end where its end record begins, and that must end the file.

    So every reader, torch's and Python's, finds the same one.
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(size - _END.size - _LOCATOR.size - _END64.size, 0))
    tail = stream.read()
    end = tail[-_END.size :]
    if len(tail) < _END.size + _LOCATOR.size + _END64.size or not end.startswith(b"PK\5\6") or end[-2:] != b"\0\0":
        raise ValueError("it is no archive of torch.save")
    *_, length, start, _ = _END.unpack(end)
    stop = size - _END.size
    locator = tail[-_END.size - _LOCATOR.size : -_END.size]
    if locator.startswith(b"PK\6\7"):
        stop = size - len(tail)
        if _LOCATOR.unpack(locator)[2] != stop or not tail.startswith(b"PK\6\6"):
            raise ValueError("its directory has two ends")
        *_, length, start = _END64.unpack(tail[: _END64.size])
    if length > MOST_DIRECTORY_BYTES:
        raise ValueError(f"its directory takes {length:,} bytes, more than {MOST_DIRECTORY_BYTES:,}")
    if start + length != stop:
        raise ValueError("its directory does not end where it says")
    return int(start)


def _check_entries(entries: list[zipfile.ZipInfo], stop: int) -> str:
    """In one folder, stored as they are, one behind the other up to `stop`; gives the folder.

    So all of them together hold no more than the file.
    """
    if len({each.orig_filename.lower() for each in entries}) < len(entries):  # torch looks up without regard to case
        raise ValueError("two entries have one name")
    free, folders = 0, {each.orig_filename.partition("/")[0] for each in entries}
    if len(folders) != 1:
        raise ValueError(f"its entries lie in {len(folders)} folders")
    for each in sorted(entries, key=lambda each: each.header_offset):
        name = each.orig_filename
        inside = name.partition("/")[2]
        if not _NAME.fullmatch(inside) or _PROGRAM.fullmatch(inside):
            raise ValueError(f"an entry is called {name[:40]!r}")
        if each.compress_type != zipfile.ZIP_STORED or each.compress_size != each.file_size or each.flag_bits & 1:
            raise ValueError(f"{name} is compressed or encrypted")
        if each.header_offset < free:
            raise ValueError(f"{name} lies over another entry")
        free = each.header_offset + _LOCAL_HEADER_BYTES + len(name) + each.file_size
        if free > stop:
            raise ValueError(f"{name} declares {each.file_size:,} bytes, more than the file holds")
    return folders.pop()


def _check_pickle(pickle: bytes, *, most_opcodes: int) -> None:
    """Only the names that tensors and plain values need; nothing is built."""
    for number, (opcode, argument, _) in enumerate(pickletools.genops(pickle)):
        if number > most_opcodes:
            raise ValueError(f"its pickle takes more than {most_opcodes:,} steps")
        if opcode.name in _UNUSED_OPCODES or (opcode.name == "GLOBAL" and not _GLOBAL.fullmatch(str(argument))):
            raise ValueError(f"its pickle asks for {str(argument or opcode.name)[:40]!r}")
