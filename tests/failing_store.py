"""A folder store that fails at one of its calls."""

import pytest

from basekamp.errors import StoreError
from basekamp.storage.folder import FolderStore


def fail_at(patch: pytest.MonkeyPatch, method: str, *, call: int, when: str) -> list[str]:
    """Let the call-th `put` or `delete` fail before or after it acts; gives the keys of all calls so far."""
    act, keys = getattr(FolderStore, method), []

    def failing(self, key, *rest):
        keys.append(key)
        if len(keys) == call and when == "before":
            raise StoreError("the disk is full")
        act(self, key, *rest)
        if len(keys) == call and when == "after":
            raise StoreError("the connection was cut")

    patch.setattr(FolderStore, method, failing)
    return keys
