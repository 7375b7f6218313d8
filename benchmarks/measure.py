"""How everything here is measured: in turns, several times, the median quoted, with the machine and the versions."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def in_turns(candidates: Mapping[str, Callable[[], float]], *, repeats: int) -> dict[str, list[float]]:
    """What each candidate measures of itself, `repeats` times, one after the other in turns (A B C A B C …).

    So a machine whose speed drifts slows all of them alike. The first turn warms up and is not counted.
    """
    measured: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(repeats + 1):
        for name, measure in candidates.items():
            value = measure()
            if turn:
                measured[name].append(value)
                print(f"  {name} {value:.4g}", flush=True)
    return measured


def seconds(act: Callable[[], Any]) -> float:
    """How long one call takes."""
    begin = time.perf_counter()
    act()
    return time.perf_counter() - begin


def summary(values: list[float]) -> dict[str, float]:
    """Median, lowest and highest of repeated measurements, and how many there are."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def ratios(measured: Mapping[str, list[float]], *, to: str) -> dict[str, dict[str, float]]:
    """Each candidate's measurements over those of `to` of the same turn."""
    return {
        name: summary([one / other for one, other in zip(values, measured[to], strict=True)])
        for name, values in measured.items()
    }


def machine(*packages: str) -> dict[str, Any]:
    """What a figure depends on: processor, cores, memory, GPU, system and versions."""
    told = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "system": _system(),
        "gpu": _gpu(),
        "python": platform.python_version(),
    }
    return {**told, **{name: _version(name) for name in packages}}


def write(name: str, result: Mapping[str, Any]) -> None:
    """Write the numbers to `results/<name>.json`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {path}")


def table(rows: list[list[str]]) -> str:
    """Rows of text as a Markdown table; the first is its head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    found = {line.split(":")[0].strip(): line.split(":")[1].strip() for line in lines if ":" in line}
    return f"{found.get('model name', platform.processor())} (family {found.get('cpu family', '?')})"


def _system() -> str:
    release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    return f"{release.get('PRETTY_NAME', platform.system())}, Linux {platform.release()}"


def _gpu() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
