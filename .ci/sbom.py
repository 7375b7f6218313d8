#!/usr/bin/env python3
"""What the image holds beside Python, written into a folder: basekamp.cdx.json (CycloneDX 1.6) and licences.txt.

Told from the environment of `make test`, whose versions are those of constraints.txt: the packages that basekamp needs
and those that these need, without the tools of development.
"""

import json
import re
import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

EXTRAS_OF_THE_IMAGE = frozenset({"examples"})


def closure(name: str, extras: frozenset[str]) -> dict[str, tuple[Distribution, list[str]]]:
    """Every package that this one needs, itself first: what is installed, and the names of what it needs."""
    found: dict[str, tuple[Distribution, list[str]]] = {}
    waiting = [(name, extras)]
    seen = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        installed = distribution(name)
        needed = [
            (canonical(each.name), frozenset(each.extras))
            for each in map(Requirement, installed.requires or [])
            if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in extras | {""})
        ]
        before = found.get(name, (installed, []))[1]
        found[name] = installed, sorted({*before, *(each for each, _ in needed)})
        waiting += needed
    return found


def canonical(name: str) -> str:
    """The one spelling of a package's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licence(installed: Distribution) -> str:
    """What the package says of its licence, in one line."""
    told = installed.metadata
    classified = [each.rpartition(" :: ")[2] for each in told.get_all("Classifier") or [] if each.startswith("License")]
    said = (told.get("License") or "").strip()
    short = said if len(said) < 80 and "\n" not in said else ""  # some give the whole text
    return told.get("License-Expression") or short or ", ".join(classified) or "not told"


def reference(name: str, installed: Distribution) -> str:
    """The package's URL, which is also its reference in the document."""
    return f"pkg:pypi/{name}@{installed.version.partition('+')[0]}"


def bill(packages: dict[str, tuple[Distribution, list[str]]]) -> dict[str, object]:
    """The CycloneDX document; the first package is what it is about."""
    parts = [
        {
            "type": "application" if number == 0 else "library",
            "bom-ref": reference(name, installed),
            "name": name,
            "version": installed.version,
            "licenses": [{"license": {"name": licence(installed)}}],
            "purl": reference(name, installed),
        }
        for number, (name, (installed, _)) in enumerate(packages.items())
    ]
    dependencies = [
        {"ref": reference(name, installed), "dependsOn": [reference(each, packages[each][0]) for each in needed]}
        for name, (installed, needed) in packages.items()
    ]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": parts[0]},
        "components": parts[1:],
        "dependencies": dependencies,
    }


if __name__ == "__main__":
    packages = closure("basekamp", EXTRAS_OF_THE_IMAGE)
    folder = Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    (folder / "basekamp.cdx.json").write_text(json.dumps(bill(packages), indent=1) + "\n")
    lines = [f"{name} {installed.version}: {licence(installed)}" for name, (installed, _) in sorted(packages.items())]
    (folder / "licences.txt").write_text("\n".join(lines) + "\n")
    print(f"{len(packages)} packages: {folder}/basekamp.cdx.json, {folder}/licences.txt")
