"""The Dockerfile's image on a machine without a Docker daemon: a base from Debian's packages, buildah and podman.

Images (4 GB), wheels and settings lie in one folder outside the checkout, `$XDG_CACHE_HOME/basekamp-tests`, so that a
second run is quick; nothing else on the machine is touched. `python -m tests.containers` builds the image and says
how to use it, `python -m tests.containers --remove` removes the folder.

The wheels are what this machine's pip gets for Python 3.11, by its own settings. Where that is a torch with CUDA, set
PIP_EXTRA_INDEX_URL to an index of CPU builds.
"""

import fcntl
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from components import IMAGE

CHECKOUT = Path(__file__).parent.parent
FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "basekamp-tests"
REQUIRE = "BASEKAMP_REQUIRE_CONTAINERS"
TOOLS = ("buildah", "podman", "runc", "debootstrap")
SUITE, SUITE_PYTHON = "bookworm", (3, 11)
BASE = f"localhost/basekamp-tests/base:{SUITE}"
PACKAGE_STAGE = "localhost/basekamp-tests/package:latest"
USER = "1000:1000"
REVISION = "0123abc"
# Handed to the build as a credential would be; it must not be found in the image.
CANARY = "canary-6d1e8b52"
# As a pod under Pod Security "restricted" with a read-only root file system.
RESTRICTED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp")
# Debian's crun refuses hybrid cgroups; without the limits a process may have none higher than its parent's.
SETTINGS = """
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
cgroups = "enabled"
netns = "host"
default_ulimits = ["nofile=1024:4096", "nproc=4096:8192"]
"""


def obstacle() -> str | None:
    """Why containers cannot be built and run here, in one sentence; None when they can."""
    missing = [tool for tool in TOOLS if shutil.which(tool, path=_path()) is None]
    if missing:
        return f"{', '.join(missing)} missing: apt-get install {' '.join(TOOLS)}."
    if os.geteuid() != 0:
        return "not root: debootstrap and podman need it here."
    if sys.version_info[:2] != SUITE_PYTHON:
        return f"Python is {sys.version.split()[0]}: the wheels for {SUITE} need Python 3.11."
    return None


def buildah(*arguments: str, **environment: str) -> str:
    """Run buildah on the folder's images; gives its standard output."""
    return _checked("buildah", *_storage(), *arguments, **environment)


def podman(*arguments: str) -> str:
    """Run podman on the folder's images and containers; gives its standard output."""
    return _checked("podman", *_podman_storage(), *arguments)


@contextmanager
def alone() -> Iterator[None]:
    """Hold the folder against other processes, and clear away containers that a killed one left."""
    with (_made(FOLDER) / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _remove_containers()
        yield


def remove() -> None:
    """Remove the folder with all its images."""
    with alone():
        mounted = FOLDER / "images" / "overlay"  # onto itself, by buildah
        if mounted.is_mount():
            _checked("umount", str(mounted))
        shutil.rmtree(FOLDER)


def build_image() -> str:
    """Build the Dockerfile, or as much of it as has changed, under the name the compiled pipelines use."""
    if not _has_image(BASE):
        _build_base()
    # The named stage keeps the layers of the dependencies; what has no name any more goes.
    _build("--target=package", f"--tag={PACKAGE_STAGE}")
    _build(f"--tag={IMAGE}")
    buildah("rmi", "--prune")
    return IMAGE


def build_refused(flavour: str) -> str:
    """Build a flavour that the Dockerfile does not know; gives what the build said."""
    try:
        _build(f"--build-arg=FLAVOUR={flavour}", "--target=dependencies")
    except RuntimeError as error:
        return str(error)
    raise AssertionError(f"the build took FLAVOUR={flavour}")


def run_in_image(*command: str, user: str = USER, options: tuple[str, ...] = RESTRICTED) -> str:
    """Run a command as a restricted pod would, without a network; gives its standard output."""
    return podman("run", "--rm", "--network=none", f"--user={user}", *options, IMAGE, *command)


def image_settings() -> dict[str, Any]:
    """What the image says of itself: user, labels, environment, command."""
    (told,) = json.loads(podman("image", "inspect", IMAGE))
    return dict(told["Config"])


def image_layers() -> list[tuple[int, str]]:
    """Bytes and command of each step of the image, the newest first."""
    told = json.loads(podman("history", "--no-trunc", "--format=json", IMAGE))
    return [(step["size"], step["CreatedBy"]) for step in told]


def image_bytes() -> int:
    """Size of the image, unpacked."""
    return int(json.loads(podman("image", "inspect", IMAGE))[0]["Size"])


@contextmanager
def docker_api() -> Iterator[str]:
    """Serve the Docker API for the folder's images; gives its address for DOCKER_HOST."""
    place = Path(tempfile.mkdtemp(prefix="basekamp-"))  # short: a socket path ends at 107 bytes
    command = ["podman", *_podman_storage(), "system", "service", "--time=0", f"unix://{place}/api"]
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=_environment())
        try:
            _wait_until_served(process, place)
            yield f"unix://{place}/api"
        finally:
            process.terminate()
            process.wait()
            _remove_containers()
            shutil.rmtree(place)


def run_pipeline(package: Path, values: Mapping[str, object], *, root: Path, environment: Mapping[str, str]) -> None:
    """Run a compiled pipeline through kfp's DockerRunner at $DOCKER_HOST, each step as a restricted pod would.

    `root` gets the steps' artifacts and must be writable for every user: this runner mounts a folder and knows no
    bucket. A step that fails is an error, but of any kind: podman has removed its container by the time kfp asks how
    it ended, which kfp takes for success.
    """
    from docker.types import Ulimit
    from kfp import components, local

    runner = local.DockerRunner(
        user=USER,
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        tmpfs={"/tmp": ""},
        network_mode="host",
        environment=dict(environment),
        ulimits=[Ulimit(name="nofile", soft=1024, hard=4096), Ulimit(name="nproc", soft=4096, hard=8192)],
    )
    before = local.config.LocalExecutionConfig.instance
    local.init(runner=runner, pipeline_root=str(root), workspace_root=str(root / "workspace"))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Task .* have no effect in the current local runner")
            components.load_component_from_file(str(package))(**values)
    finally:
        local.config.LocalExecutionConfig.instance = before


def _build(*arguments: str) -> None:
    given = {
        "BASE_IMAGE": BASE,
        "PIP_ARGS": f"--no-index --find-links /wheels --trusted-host {CANARY}.invalid",
        "VERSION": _version(),
        "REVISION": REVISION,
    }
    options = [f"--build-arg={name}={value}" for name, value in given.items()]
    volume = f"--volume={_wheels()}:/wheels:ro"
    # --layers keeps each step for the next build; the network is for nothing, but a namespace of its own needs more.
    buildah(
        "build", "--layers", "--network=host", volume, *options, *arguments, str(CHECKOUT), BASEKAMP_PASSWORD=CANARY
    )


def _version() -> str:
    from basekamp import __version__

    return __version__


def _build_base() -> None:
    """A minimal Debian with Python, which stands in for the public image; takes about a minute."""
    with tempfile.TemporaryDirectory(dir=_made(FOLDER)) as root:
        include = "--include=python3,python3-venv,ca-certificates"
        _checked("debootstrap", "--variant=minbase", include, SUITE, root)
        for package in Path(root, "var/cache/apt/archives").glob("*.deb"):
            package.unlink()
        container = buildah("from", "scratch").strip()
        buildah("add", container, root, "/")
        buildah("commit", "--rm", container, BASE)


def _wheels() -> Path:
    """A folder with a wheel of all that the build installs, made once for each set of requirements."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    wanted = project["build-system"]["requires"] + project["project"]["dependencies"]
    wanted += project["project"]["optional-dependencies"]["examples"]
    constraints = CHECKOUT / "constraints.txt"
    key = hashlib.sha256(json.dumps([wanted, constraints.read_text()]).encode()).hexdigest()[:16]
    folder = FOLDER / "wheels" / key
    if not folder.exists():
        shutil.rmtree(folder.parent, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=_made(folder.parent)) as scratch:
            options = ["--quiet", "--wheel-dir", f"{scratch}/new", "--constraint", str(constraints)]
            _checked(sys.executable, "-m", "pip", "wheel", *options, *wanted)
            Path(scratch, "new").rename(folder)
    return folder


def _remove_containers() -> None:
    if (FOLDER / "images").exists():
        podman("rm", "--all", "--force")
        buildah("rm", "--all")


def _has_image(name: str) -> bool:
    command = ["podman", *_podman_storage(), "image", "exists", name]
    return subprocess.run(command, env=_environment()).returncode == 0


def _storage() -> list[str]:
    return [f"--root={FOLDER}/images", f"--runroot={FOLDER}/run", "--storage-driver=overlay"]


def _podman_storage() -> list[str]:
    return [*_storage(), f"--tmpdir={FOLDER}/run/podman"]


def _environment(**more: str) -> dict[str, str]:
    settings = _made(FOLDER) / "containers.conf"
    if not settings.exists() or settings.read_text() != SETTINGS:
        settings.write_text(SETTINGS)
    return {**os.environ, "PATH": _path(), "CONTAINERS_CONF": str(settings), "BUILDAH_RUNTIME": "runc", **more}


def _path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _checked(*command: str, **environment: str) -> str:
    done = subprocess.run(command, env=_environment(**environment), capture_output=True, text=True, cwd=CHECKOUT)
    if done.returncode != 0:
        said = (done.stdout + done.stderr)[-4000:]
        raise RuntimeError(f"{' '.join(command)} ended with exit code {done.returncode}:\n{said}")
    return done.stdout


def _wait_until_served(process: "subprocess.Popen[bytes]", place: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with closing(socket.socket(socket.AF_UNIX)) as attempt:
            if attempt.connect_ex(str(place / "api")) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"podman did not serve (exit code {process.poll()}):\n{(place / 'log').read_text()[-2000:]}")


if __name__ == "__main__":
    if sys.argv[1:] == ["--remove"]:
        remove()
        sys.exit(0)
    if why_not := obstacle():
        sys.exit(f"tests.containers: {why_not}")
    with alone():
        print(f"{build_image()}: {image_bytes() / 1e9:.2f} GB")
        for size, step in image_layers():
            print(f"{size / 1e6:>9.1f} MB  {step[:100]}")
    print("\nRun it: CONTAINERS_CONF=" + str(FOLDER / "containers.conf"), "podman", *_podman_storage(), "run", IMAGE)
