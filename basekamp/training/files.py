"""Files that are replaced as a whole: a reader sees all of the old one or all of the new one, after a kill too."""

import os
from pathlib import Path


def replace_file(path: Path, *parts: bytes | memoryview, durable: bool = True) -> None:
    """Write the parts as one file: temporary file, fsync (where `durable`), rename. Makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            for part in parts:
                file.write(part)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files that killed processes left beside `path`."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        leftover.unlink(missing_ok=True)
