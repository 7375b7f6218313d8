"""Which code a result comes from, told without importing any of it."""

import hashlib
import os
import platform
import subprocess
import sys
from contextlib import suppress
from importlib.machinery import PathFinder
from importlib.metadata import version
from pathlib import Path

from basekamp import __version__
from basekamp.hyperparameters import is_own_model

PACKAGE = Path(__file__).parent.parent
PACKAGES = ("torch", "numpy", "polars", "scikit-learn")
REVISION = "BASEKAMP_REVISION"
"""The variable in which an image tells the commit that it was built from."""
GIT_SECONDS = 5.0


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


def code_commit() -> str:
    """The commit of the image, or else of the checkout that the current directory lies in; "" where nobody knows.

    Changes since the commit, of files that git tracks and of new Python files, add '+' and a digest of them; '+unknown'
    where git cannot tell in time.
    """
    revision = os.environ.get(REVISION, "")
    if revision:
        return "" if revision == "unknown" else revision
    commit = (_git("rev-parse", "HEAD") or b"").decode("ascii", "replace").strip()
    if not commit:
        return ""
    top = os.fsdecode((_git("rev-parse", "--show-toplevel") or b"").rstrip(b"\n"))
    changes = _git("diff", "HEAD")
    new = _git("-C", top, "ls-files", "--others", "--exclude-standard", "-z", "--", "*.py")
    if changes is None or new is None:
        return f"{commit}+unknown"
    digest = hashlib.sha256(changes)
    for name in filter(None, new.split(b"\0")):
        with suppress(OSError):
            digest.update(name + b"\0" + Path(top, os.fsdecode(name)).read_bytes())
    return f"{commit}+{digest.hexdigest()[:12]}" if changes or new else commit


def _git(*command: str) -> bytes | None:
    """What git prints; None without git, outside of a checkout, or when it takes too long."""
    try:
        done = subprocess.run(["git", *command], capture_output=True, timeout=GIT_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None


def _module_files(module: str) -> list[Path]:
    """The Python files of a module's top-level package; the current directory counts as on the path."""
    spec = PathFinder.find_spec(module.partition(".")[0], [str(Path.cwd()), *sys.path])
    if spec is None:
        return []
    folders = [Path(folder) for folder in spec.submodule_search_locations or []]
    alone = [Path(spec.origin)] if spec.origin and not folders else []
    return alone + sorted(path for folder in folders for path in folder.rglob("*.py"))
