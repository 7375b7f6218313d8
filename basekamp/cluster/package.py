"""A compiled pipeline as a file: read it, and write copies with another image or without caching."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from basekamp.errors import InputError

Document = dict[str, Any]

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times faster

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = rf"(?:localhost|{_LABEL}(?=:)|{_LABEL}(?:\.{_LABEL})+)(?::\d{{1,5}})?"
_PIECE = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:{_HOST}/)?{_PIECE}(?:/{_PIECE})*(?::\w[\w.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?", re.ASCII
)
"""Source: github.com/distribution/reference, regexp.go."""


def check_image(image: str) -> str:
    """Give `image` back when it is a well-formed image reference; whether it exists is not asked."""
    if not _REFERENCE.fullmatch(image) or len(image) > 400:
        raise InputError(
            f"{image!r} is not an image reference: write registry/name:tag, or better registry/name@sha256:DIGEST."
        )
    return image


def with_image(package: Path, image: str, folder: Path) -> Path:
    """Write a copy of a compiled pipeline into `folder` where every step runs in `image`; gives its path.

    Raises InputError for a malformed reference, an unreadable package, or one whose steps run in no container.
    """
    check_image(image)
    documents = read_package(package)
    containers = list(_containers(documents, package))
    for container in containers:
        container["image"] = image
    return _write_copy(package, documents, folder)


def without_caching(package: Path, folder: Path) -> Path:
    """Write a copy of a compiled pipeline into `folder` where no task is ever reused; gives its path."""
    documents = read_package(package)
    spec = _pipeline(documents)
    for part in (spec["root"], *(spec.get("components") or {}).values()):
        for task in ((part.get("dag") or {}).get("tasks") or {}).values():
            task["cachingOptions"] = {}
    return _write_copy(package, documents, folder)


def image_of(package: Path) -> str:
    """The image that the pipeline's steps run in, or the first of several."""
    return str(next(_containers(read_package(package), package))["image"])


def read_package(package: Path) -> list[Document]:
    """Read the documents of a compiled pipeline: its specification and, for some, its platform's."""
    try:
        documents = list(yaml.load_all(package.read_text(encoding="utf-8"), Loader=_LOADER))
        _pipeline(documents)["root"].get("dag")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"{package} cannot be read ({reason}): give a compiled pipeline's YAML.") from error
    except (yaml.YAMLError, UnicodeDecodeError, StopIteration, TypeError, AttributeError) as error:
        raise InputError(
            f"{package} is not a compiled pipeline: it has no `root`; write it anew with basekamp compile."
        ) from error
    return documents


def declared_parameters(package: Path) -> dict[str, Document]:
    """The pipeline's parameters, each with its `parameterType` and, where it has one, its `defaultValue`."""
    root = _pipeline(read_package(package))["root"]
    return dict((root.get("inputDefinitions") or {}).get("parameters") or {})


def _pipeline(documents: list[Document]) -> Document:
    return next(document for document in documents if "root" in document)


def _containers(documents: list[Document], package: Path) -> Iterator[Document]:
    """Every step's container; importers and the like have none."""
    executors = (_pipeline(documents).get("deploymentSpec") or {}).get("executors") or {}
    containers = [executor["container"] for executor in executors.values() if "container" in executor]
    if not containers:
        raise InputError(f"{package} has no step that runs in a container: give a compiled pipeline's YAML.")
    yield from containers


def _write_copy(package: Path, documents: list[Document], folder: Path) -> Path:
    """Write under a name that tells the content, so that two submissions at once cannot mix their copies."""
    text = yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True)
    path = folder / f"{package.stem}-{hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}.yaml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({error.strerror or type(error).__name__}): choose another folder."
        ) from error
    return path
