"""The folder for what can be lost: checkpoints, cached steps, logs. Results never live here."""

import os
import tempfile
from pathlib import Path

VARIABLE = "BASEKAMP_HOME"


def work_directory() -> Path:
    """`$BASEKAMP_HOME`, else `.basekamp` here, else (a read-only folder, as in a pod) a temporary one."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen).absolute()
    if os.access(Path.cwd(), os.W_OK):
        return Path.cwd() / ".basekamp"
    return Path(tempfile.gettempdir()) / "basekamp"
