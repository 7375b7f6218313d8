"""Options and words that several commands share."""

from pathlib import Path

import click

from basekamp.errors import InputError
from basekamp.language import LANGUAGES, VARIABLE

DEFAULT_STORE = "./basekamp-store"
STORE_OPTION = click.option("--store", default=DEFAULT_STORE, show_default=True, help="Folder, s3:// or minio:// URL.")
GPUS_OPTION = click.option("--gpus", default="0", show_default=True, help="GPUs to train on; 0 is the CPU.")
LANGUAGE_OPTION = click.option(
    "--lang", type=click.Choice(LANGUAGES), help=f"The page's language; default: {VARIABLE}, else en."
)
JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def runs_command(file: Path, store: str) -> str:
    """The command that lists the experiment of a file."""
    return f"basekamp runs {file}{store_flag(store)}"


def store_flag(store: str) -> str:
    """The option that says the store again where it is not the default."""
    return "" if store == DEFAULT_STORE else f" --store {store}"


def store_and_experiment(place: str | None, store: str) -> tuple[str, str | None]:
    """A place is an experiment file, a store of its own (a URL or a folder), or an experiment's name in the store."""
    if place is None:
        return store_url(store), None
    if Path(place).is_file():
        return store_url(store), experiment_name(place)
    is_name = "/" not in place and not Path(place).is_dir()
    return (store_url(store), place) if is_name else (store_url(place), None)


def experiment_name(place: str) -> str:
    """The name in an experiment file, or the name itself."""
    from basekamp.experiment import load_experiment

    return load_experiment(place).experiment if Path(place).is_file() else place


def store_url(store: str) -> str:
    """A folder's URL made absolute, since steps may run elsewhere."""
    return store if "://" in store else str(Path(store).absolute())


def pair(text: str) -> tuple[str, str]:
    """Split KEY=VALUE; raises InputError for a text without '='."""
    key, found, value = text.partition("=")
    if not found:
        raise InputError(f"{text} is no KEY=VALUE pair: write, say, act=act_func.")
    return key, value
