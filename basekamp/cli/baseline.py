"""Commands about the baseline and the champion: what all else rests on."""

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

import click

from basekamp.cli.options import (
    GPUS_OPTION,
    JSON_OPTION,
    STORE_OPTION,
    experiment_name,
    runs_command,
    store_and_experiment,
    store_flag,
    store_url,
)
from basekamp.errors import InputError


@click.command()
@click.argument("place", metavar="FILE|EXPERIMENT")
@STORE_OPTION
@click.option("--to", "target", help="Name or id of the record to go back to; default: the champion before this one.")
@JSON_OPTION
def fallback(place: str, store: str, target: str | None, as_json: bool) -> None:
    """Make the champion before the present one champion again, and print its model's path."""
    from basekamp.records.gate import fall_back
    from basekamp.records.shelf import read_shelf
    from basekamp.storage import open_store

    opened = open_store(store_url(store))
    shelf = read_shelf(opened, experiment_name(place))
    row = shelf.find(target) if target else shelf.before_champion
    if row is None or shelf.champion is None:
        raise InputError(f"{shelf.experiment} has no baseline in {opened.url}: make one with `basekamp run FILE`.")
    changed = row.id != shelf.champion.id
    if changed:
        fall_back(opened, shelf, row)
    path = f"{opened.url}/{row.key}"
    if as_json:
        click.echo(json.dumps({"champion": row.name, "changed": changed, "path": path}))
        return
    click.echo(f"{row.attempt} is {'again' if changed else 'already'} the champion of {shelf.experiment}:\n{path}")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@STORE_OPTION
@GPUS_OPTION
@JSON_OPTION
def verify(file: Path, store: str, gpus: str, as_json: bool) -> None:
    """Train the pinned baseline again and say whether it reproduces, and what changed; exit code 1 when not."""
    from basekamp.experiment import load_experiment
    from basekamp.records.verify import verify_baseline

    with redirect_stdout(sys.stderr):  # what a training says of its progress
        told = verify_baseline(load_experiment(file), store=store_url(store), gpus=gpus)
    if as_json:
        click.echo(told.model_dump_json(indent=1))
    else:
        click.echo(told.sentence)
        for what, (recorded, today) in told.changed.items():
            click.echo(f"  {what}: {recorded} then, {today} now")
        click.echo(
            f"Next: {runs_command(file, store)}"
            if told.reproduces
            else f"Next: basekamp rebase {file}{store_flag(store)}"
        )
    sys.exit(0 if told.reproduces else 1)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@STORE_OPTION
@GPUS_OPTION
def rebase(file: Path, store: str, gpus: str) -> None:
    """Begin anew from the file's changed baseline; what was judged against the one before stays readable."""
    from rich.console import Console

    from basekamp.cluster.campaign import rebase_experiment
    from basekamp.experiment import load_experiment
    from basekamp.report.terminal import StepDisplay

    display = StepDisplay(Console(file=sys.stdout))
    shelf, row = rebase_experiment(load_experiment(file), store=store_url(store), gpus=gpus, display=display)
    click.echo(f"\n{row.name} is the baseline of {shelf.experiment} from now on, its lineage {shelf.rows[0].lineage}.")
    click.echo(f"Earlier results: {runs_command(file, store)} --all")
    click.echo(f"Next: basekamp run {file}{store_flag(store)}")


@click.command()
@click.argument("place", metavar="[FILE|STORE]", required=False)
@STORE_OPTION
@click.option("--keep", default=10, show_default=True, help="The best attempts of each experiment stay.")
@click.option("--older-than", default="30d", show_default=True, help="What is younger stays: 12h, 30d, 8w.")
@click.option("--yes", is_flag=True, help="Remove; without it, only tell what would go.")
@JSON_OPTION
def gc(place: str | None, store: str, keep: int, older_than: str, yes: bool, as_json: bool) -> None:
    """Remove models and predictions of old attempts, and old checkpoints.

    Baselines, whatever was champion once, and every record stay. Checkpoints are looked at when no FILE is given.
    """
    from basekamp.records.gc import find_waste, make_policy, remove_waste, waste_as_json
    from basekamp.report.performance import size
    from basekamp.storage import open_store

    where, experiment = store_and_experiment(place, store)
    opened, policy = open_store(where), make_policy(keep, older_than)
    waste = find_waste(opened, policy, experiment=experiment)
    if yes:
        waste = list(remove_waste(opened, waste))
    if as_json:
        click.echo(json.dumps({"removed": yes, "files": waste_as_json(waste)}, indent=1))
        return
    for one in waste:
        click.echo(f"{size(one.size_bytes):>10}  {one.place}")
    told = f"{len(waste)} files, {size(sum(one.size_bytes for one in waste))}"
    if not waste:
        click.echo("Nothing to remove: all that is left is young, among the best, or what a result rests on.")
    else:
        click.echo(f"{told}: removed." if yes else f"{told} would be removed. Next: the same with --yes")
