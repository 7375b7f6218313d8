"""The folder for what can be lost: checkpoints, cached steps, logs. Results never live here."""

import os
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path

from basekamp.errors import InputError

VARIABLE = "BASEKAMP_HOME"
WAITING_VARIABLE = "BASEKAMP_WAITING"
"""`basekamp run` sets it to the folder where results may wait; elsewhere the disk goes with the pod."""


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


def check_work_directory() -> None:
    """Make the folder; raises InputError, before anything runs, where it cannot be written or has no room."""
    from basekamp.storage.protocol import write_probe

    folder = work_directory()
    probe = folder / f".probe-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_probe(probe)
    except OSError as error:
        raise InputError(
            f"the work folder {folder} cannot be used ({error.strerror or error}): make room there, or name another in "
            f"{VARIABLE}."
        ) from error
    finally:
        with suppress(OSError):
            probe.unlink()
