"""Fifty model files that nobody should load: they run code, take all memory, or are not what they say.

`python -m tests.hostile_models FOLDER` loads every file of a folder, without much memory, and prints what came of it.
"""

import collections
import io
import json
import os
import pickle
import pickletools
import resource
import struct
import subprocess
import sys
import tarfile
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from basekamp.errors import InputError

ROOM_BYTES = 1 << 30
"""What loading may take beyond what Python and torch take: the honest file needs less than a tenth."""

DATA = "archive/data.pkl"
Saved = dict[str, Any]


class Call:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def hostile_models(honest: bytes, trees: bytes, canary: Path) -> dict[str, bytes]:
    """Each file by what it does. `honest` and `trees` are model files of ours; code that runs makes `canary`."""
    files = _programs(honest, canary) | _zip_tricks(honest) | _sizes(honest) | _misfits(honest) | _trees(trees)
    return files | _other_formats(honest, canary)


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def rewritten(honest: bytes, change: Callable[[str, bytes], bytes], **options: Any) -> bytes:
    """The same entries with other contents."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(honest)) as old, zipfile.ZipFile(buffer, "w", **options) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return buffer.getvalue()


def with_pickle(honest: bytes, content: bytes) -> bytes:
    return rewritten(honest, lambda name, old: content if name == DATA else old)


def with_entry(honest: bytes, name: str, content: bytes, **options: Any) -> bytes:
    buffer = io.BytesIO(honest)
    with zipfile.ZipFile(buffer, "a", **options) as archive, warnings.catch_warnings(action="ignore"):  # a name twice
        archive.writestr(name, content)
    return buffer.getvalue()


def changed(honest: bytes, change: Callable[[Saved], object]) -> bytes:
    """An archive of torch.save like the honest one but for what `change` does to its content."""
    content = torch.load(io.BytesIO(honest), weights_only=True)
    change(content)
    return saved(content)


def _programs(honest: bytes, canary: Path) -> dict[str, bytes]:
    """Pickles that run code: as the whole file, as the archive's pickle, and through what torch can be asked for."""
    touch = f"open({str(canary)!r}, 'w').close()"
    shell = f"touch {canary}"
    calls = {
        "os.system": Call(os.system, shell),
        "exec": Call(exec, touch),
        "eval": Call(eval, touch),
        "Popen": Call(subprocess.Popen, ["touch", str(canary)]),
        "pickle in pickle": Call(pickle.loads, pickle.dumps(Call(os.system, shell))),
        "torch.load in pickle": Call(torch.load, str(canary)),
    }
    inside = {f"archive, {name}": with_pickle(honest, pickle.dumps(call, 2)) for name, call in calls.items()}
    whole = {f"whole file, protocol {i}": pickle.dumps(Call(os.system, shell), i) for i in (0, 2, 4)}
    words = f"(S{shell!r}\nios\nsystem\n.".encode()  # INST
    opcodes = {
        "archive, opcode INST": with_pickle(honest, words),
        "archive, opcode STACK_GLOBAL": with_pickle(honest, pickle.dumps(Call(exec, touch), 4)),
        "archive, a subclass of tensors": with_pickle(honest, b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n."),
    }
    legacy = io.BytesIO()
    torch.save({"format": 1, "weights": Call(os.system, shell)}, legacy, _use_new_zipfile_serialization=False)
    own = {
        "model: os:system": _own(honest, "os:system", command=shell),
        "model: subprocess:Popen": _own(honest, "subprocess:Popen", args=shell, shell=True),
        "model: a function that is there, and builds no network": _own(honest, "stranger:run"),
    }
    return {**whole, **inside, **opcodes, "before zip": legacy.getvalue(), **own}


def _own(honest: bytes, reference: str, /, **options: Any) -> bytes:
    return changed(honest, lambda content: content["hyperparameters"].update(model=reference, options=options))


def _zip_tricks(honest: bytes) -> dict[str, bytes]:
    evil = pickle.dumps(Call(os.system, "true"), 2)
    longer = bytearray(honest)
    first = honest.index(b"PK\1\2")
    longer[first + 20 : first + 28] = struct.pack("<2I", 0xFFFFFFF0, 0xFFFFFFF0)
    encrypted = bytearray(honest)
    encrypted[first + 8] |= 1
    overlapping = bytearray(honest)
    second = honest.index(b"PK\1\2", first + 4)
    overlapping[second + 42 : second + 46] = honest[first + 42 : first + 46]
    many = io.BytesIO()
    with zipfile.ZipFile(many, "w") as archive:
        for number in range(150_000):
            archive.writestr(zipfile.ZipInfo(f"archive/data/{'0' * 60}{number}"), b"")
    return {
        "zip, data.pkl twice": with_entry(honest, DATA, evil),
        "zip, DATA.PKL beside data.pkl": with_entry(honest, "archive/DATA.PKL", evil),
        "zip, two folders": with_entry(honest, "other/data.pkl", evil),
        "zip, above its folder": with_entry(honest, "archive/../../data.pkl", evil),
        "zip, compiled program": with_entry(honest, "archive/constants.pkl", evil),
        "zip, compressed bomb": with_entry(honest, "archive/data/9", bytes(1 << 28), compression=zipfile.ZIP_DEFLATED),
        "zip, 4 GiB declared": bytes(longer),
        "zip, encrypted": bytes(encrypted),
        "zip, one entry over another": bytes(overlapping),
        "zip, something before it": evil + honest,
        "zip, something behind it": honest + evil,
        "zip, another end in its comment": honest[:-2] + struct.pack("<H", 22) + honest[-22:],
        "zip, 150,000 entries": many.getvalue(),
        "zip, cut off": honest[: len(honest) // 2],
    }


def _sizes(honest: bytes) -> dict[str, bytes]:
    """A few bytes that ask for all memory, or for all time."""

    def widen(content: Saved) -> None:
        content["hyperparameters"].update(model="mlp", n_layers=64, width=65536)

    def picture(content: Saved) -> None:
        content["schema"].update(kind="image", input_shape=[1, 1 << 20, 1 << 20], pixel_mean=[0.0], pixel_std=[1.0])

    def stretch(content: Saved) -> None:
        state = content["state_dicts"][0]
        state.update({name: tensor.flatten()[:1].expand(1 << 33) for name, tensor in state.items()})

    def repeat(content: Saved) -> None:
        feature = {"name": "a", "kind": "numeric", "column": "a", "categories": ["x"] * 10_000}
        content["schema"]["features"] = [feature] * 10_000

    def nest(content: Saved) -> None:
        value: list[Any] = []
        for _ in range(60):
            value = [value, value]
        content["hyperparameters"]["options"] = value

    steps = pickletools.optimize(pickle.dumps({"format": 1, "steps": list(range(1_200_000))}, 2))
    return {
        "size, a network of 1 TB": changed(honest, widen),
        "size, one number shown as 8 billion": changed(honest, stretch),
        "size, images of a terapixel": changed(honest, picture),
        "size, a feature 10,000 times": changed(honest, repeat),
        "size, two lists in two lists": changed(honest, nest),
        "size, a million replicates": changed(
            honest, lambda all: all.update(state_dicts=all["state_dicts"][:1] * 1_000_000)
        ),
        "size, a pickle of a million steps": with_pickle(honest, steps),
    }


def _misfits(honest: bytes) -> dict[str, bytes]:
    """Archives of torch.save without harm, whose weights do not fit."""

    def each_weight(change: Callable[[torch.Tensor], object]) -> Callable[[Saved], None]:
        def apply(content: Saved) -> None:
            state = content["state_dicts"][0]
            state.update({name: change(tensor) for name, tensor in state.items()})

        return apply

    return {
        "weights of another shape": changed(honest, each_weight(lambda tensor: tensor[:1].clone())),
        "weights of another type": changed(honest, each_weight(lambda tensor: tensor.to(torch.complex64))),
        "sparse weights": changed(honest, each_weight(lambda tensor: tensor.to_sparse())),
        "weights that are lists": changed(honest, each_weight(lambda tensor: tensor.tolist())),
        "no replicates": changed(honest, lambda content: content.update(state_dicts=[])),
        "settings that nobody knows": changed(honest, lambda content: content["hyperparameters"].update(depth=3)),
    }


def _trees(trees: bytes) -> dict[str, bytes]:
    def state(change: Callable[[Saved], object]) -> bytes:
        return changed(trees, lambda content: change(content["state_dicts"][0]))

    return {
        "a tree that leads out of itself": state(lambda all: all["left"].fill_(1 << 20)),
        "a tree that asks for another column": state(lambda all: all["feature"].fill_(1 << 20)),
    }


def _other_formats(honest: bytes, canary: Path) -> dict[str, bytes]:
    """What other programs keep weights in."""
    header = (
        b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}'
    )
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        evil = pickle.dumps(Call(os.system, f"touch {canary}"), 2)
        entry = tarfile.TarInfo("pickle")
        entry.size = len(evil)
        archive.addfile(entry, io.BytesIO(evil))
    ordered = collections.OrderedDict(w=torch.zeros(1))
    return {
        "safetensors with a key twice": struct.pack("<Q", len(header)) + header + bytes(4),
        "safetensors with a header of 2^62 bytes": struct.pack("<Q", 1 << 62) + header,
        "tar": tar.getvalue(),
        "weights alone": saved(ordered),
        "noise": bytes(range(256)) * 64,
    }


def _load(path: Path) -> dict[str, Any]:
    """What came of one file; `growth_bytes`: by how much the most memory ever held has grown."""
    from basekamp.training.model_file import load_models

    before, began = _peak(), time.perf_counter()
    try:
        load_models(path, torch.device("cpu"))
        outcome = "loaded"
    except InputError as error:
        outcome = f"refused: {error}"
    except BaseException as error:
        outcome = f"{type(error).__name__}: {error}"
    return {"outcome": outcome, "seconds": time.perf_counter() - began, "growth_bytes": _peak() - before}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(folder: Path) -> None:
    paths = sorted(folder.glob("*.pth"), key=lambda path: path.stem != "honest")  # the honest one brings everything in
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + ROOM_BYTES, held + ROOM_BYTES))
    for path in paths:
        print(json.dumps({"name": path.stem, **_load(path)}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
