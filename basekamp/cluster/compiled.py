"""The compiled pipelines: beside the package in a checkout, inside it when installed from a wheel."""

from pathlib import Path

from basekamp.errors import InputError

PACKAGE = Path(__file__).parent.parent


def compiled_pipeline(name: str = "train_and_compare") -> Path:
    """The path of a pipeline's compiled YAML."""
    for folder in (PACKAGE.parent / "pipelines", PACKAGE / "compiled"):
        path = folder / f"{name}.yaml"
        if path.is_file():
            return path
    raise InputError(f"{name}.yaml lies neither in pipelines/ nor in the installed package: run `basekamp compile`.")


def checkout() -> Path:
    """The checkout this package lies in; raises InputError when it was installed from a wheel."""
    if not (PACKAGE.parent / "pipelines" / "compile.py").is_file():
        raise InputError(
            f"{PACKAGE} is no checkout of basekamp, and only a checkout holds the pipelines' source: clone it."
        )
    return PACKAGE.parent
