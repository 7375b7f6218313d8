#!/usr/bin/env python3
"""Every object of ours as manifests/ renders it, a file for base and for each variant; Kubeflow's own are left out."""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.manifest_graph import VARIANTS, Manifest, copy_manifests, render, render_variant


def rendered(manifests: Path) -> Iterator[tuple[str, list[Manifest]]]:
    """Each file's name and its objects, from a folder that `copy_manifests` made with the stub of Kubeflow."""
    theirs = [each for part in (manifests.parent / "kfp").iterdir() if part.is_dir() for each in render(part)]
    known = {(each["kind"], each["metadata"]["name"]) for each in theirs}
    yield "base", render(manifests / "base")
    for variant in VARIANTS:
        objects = render_variant(manifests, variant)
        yield variant, [each for each in objects if (each["kind"], each["metadata"]["name"]) not in known]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for name, objects in rendered(copy_manifests(Path(folder) / "copy")):
            Path(sys.argv[1], f"{name}.yaml").write_text(yaml.safe_dump_all(objects))
