"""JSON documents, which may be a stranger's: bounded, no key given twice, finite numbers, and what the schema knows.

Their text is data: it is measured and parsed, never evaluated.
"""

import json
import math
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from basekamp.errors import InputError
from basekamp.storage import Store

MOST_BYTES = 128 << 20
MOST_VALUES, MOST_KEYS = 4 << 20, 1 << 18
"""As many numbers as 100,000 epochs of ten seeds leave in their curves; keys, lists and objects cost far more each."""


class Strict(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Document = TypeVar("Document", bound=BaseModel)


def fetch_document(model: type[Document], store: Store, key: str) -> Document:
    """Read the document under a key; raises InputError, or StoreError."""
    return read_document(model, store.get(key, most_bytes=MOST_BYTES), f"{key} in {store.url}")


def load_document(model: type[Document], path: Path) -> Document:
    """Read the document in a file; raises InputError, or OSError."""
    with path.open("rb") as stream:
        return read_document(model, stream.read(min(MOST_BYTES, path.stat().st_size) + 1), str(path))


def read_document(model: type[Document], content: bytes, name: str) -> Document:
    """Read a document; raises InputError, which calls it `name`, for what this release does not write."""
    try:
        _check(content)
        return model.model_validate_json(content)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{name} is no {model.__name__.lower().strip('_')} that this basekamp reads ({_reason(error)}): "
            "use the release that wrote it, or move the file away."
        ) from error


def _check(content: bytes) -> None:
    """Refuse what would parse without an error, or only at the price of all memory."""
    if len(content) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES:,} bytes")
    if content.count(b",") > MOST_VALUES:
        raise ValueError(f"more than {MOST_VALUES:,} values")
    if sum(content.count(sign) for sign in (b":", b"[", b"{")) > MOST_KEYS:
        raise ValueError(f"more than {MOST_KEYS:,} keys, lists and objects")
    json.loads(content, object_pairs_hook=_once, parse_float=_finite, parse_constant=_finite)


def _once(pairs: list[tuple[str, object]]) -> None:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key is given twice")


def _finite(text: str) -> None:
    if not math.isfinite(float(text)):
        raise ValueError(f"{text[:20]} is no finite number")


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return f"{error.error_count()} problems"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return "it is not JSON" if isinstance(error, json.JSONDecodeError | UnicodeDecodeError) else str(error)
