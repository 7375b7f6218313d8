"""Which code a result comes from, told without importing any of it."""

import hashlib
import platform
import sys
from importlib.machinery import PathFinder
from importlib.metadata import version
from pathlib import Path

from basekamp import __version__
from basekamp.hyperparameters import is_own_model

PACKAGE = Path(__file__).parent.parent
PACKAGES = ("torch", "numpy", "polars", "scikit-learn")


def code_version(model: str) -> str:
    """The release and a digest of the code that runs: this package, and the package of a model of the user's own."""
    files = sorted(PACKAGE.rglob("*.py"))
    if is_own_model(model):
        files += _module_files(model.partition(":")[0])
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{__version__}+{digest.hexdigest()[:12]}"


def software_versions(model: str) -> dict[str, str]:
    """What a result depends on beside its data and settings: the code, with a digest of it, and packages."""
    return {
        "basekamp": __version__,
        "code": code_version(model),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def _module_files(module: str) -> list[Path]:
    """The Python files of a module's top-level package; the current directory counts as on the path."""
    spec = PathFinder.find_spec(module.partition(".")[0], [str(Path.cwd()), *sys.path])
    if spec is None:
        return []
    folders = [Path(folder) for folder in spec.submodule_search_locations or []]
    alone = [Path(spec.origin)] if spec.origin and not folders else []
    return alone + sorted(path for folder in folders for path in folder.rglob("*.py"))
