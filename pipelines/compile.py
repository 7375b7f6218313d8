"""Compile every pipeline to the YAML beside it: `python -m pipelines.compile [--check]`."""

import sys
import tempfile
from pathlib import Path

from kfp import compiler

from pipelines.sweep import sweep
from pipelines.train_and_compare import train_and_compare

FOLDER = Path(__file__).parent
PIPELINES = (train_and_compare, sweep)


def compile_all(folder: Path = FOLDER) -> list[Path]:
    """Compile each pipeline into `folder` as <function>.yaml; gives the paths."""
    paths = []
    for pipeline in PIPELINES:
        path = folder / f"{pipeline.name.replace('-', '_')}.yaml"
        compiler.Compiler().compile(pipeline, str(path))
        paths.append(path)
    return paths


def stale() -> list[str]:
    """Names of committed YAML files that differ from what their pipeline compiles to now."""
    with tempfile.TemporaryDirectory() as folder:
        return [path.name for path in compile_all(Path(folder)) if path.read_text() != _committed(path.name)]


def _committed(name: str) -> str:
    path = FOLDER / name
    return path.read_text() if path.exists() else ""


def main(arguments: list[str]) -> int:
    """Compile, or with --check only tell what is stale (exit code 1 when something is)."""
    if arguments == ["--check"]:
        old = stale()
        print(f"stale: {', '.join(old)}: run `basekamp compile`." if old else "The compiled YAML is fresh.")
        return 1 if old else 0
    print("\n".join(str(path) for path in compile_all()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
