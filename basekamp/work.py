"""The folder for what can be lost: checkpoints, cached steps, logs. Results never live here."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

VARIABLE = "BASEKAMP_HOME"


def work_directory(*, make: bool = True) -> Path:
    """`$BASEKAMP_HOME`, else `.basekamp` here, which is made, else (read-only, as in a pod) a temporary one.

    Without `make` nothing is made here, and what is not there is a temporary one.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    here = Path.cwd() / ".basekamp"
    with suppress(OSError):
        if make:
            here.mkdir(exist_ok=True)
        if os.access(here, os.W_OK):
            return here
    return Path(tempfile.gettempdir()) / f"basekamp-{os.getuid()}"
