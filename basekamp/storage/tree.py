"""Whole folders in a store: every file is a key below a prefix, at its path."""

from collections.abc import Collection
from pathlib import Path

from basekamp.storage.protocol import Store


def put_tree(store: Store, prefix: str, folder: Path, *, leave_out: Collection[str] = ()) -> None:
    """Write every file of `folder` below `prefix`, in place of what lies there; top-level names can be left out."""
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and relative.parts[0] not in leave_out:
            key = f"{prefix}/{relative.as_posix()}"
            store.delete(key)
            store.put(key, path)


def fetch_tree(store: Store, prefix: str, folder: Path) -> int:
    """Read every key below `prefix` into `folder`, verified; gives how many there were."""
    keys = [entry.key for entry in store.entries(f"{prefix}/")]
    for key in keys:
        store.fetch(key, folder / key.removeprefix(f"{prefix}/"))
    return len(keys)


def delete_tree(store: Store, prefix: str) -> None:
    """Remove every key below `prefix`."""
    for key in [entry.key for entry in store.entries(f"{prefix}/")]:
        store.delete(key)
