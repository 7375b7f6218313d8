"""Commands that look at what came out."""

import json
import sys
from typing import Any

import click

from basekamp.cli.options import JSON_OPTION, STORE_OPTION, store_and_experiment, store_url


@click.command()
@click.argument("place", required=False)
@STORE_OPTION
@click.option("--where", "conditions", multiple=True, metavar="KEY=VALUE", help="Only rows where KEY is VALUE.")
@click.option("--sort", "sort_key", help="Hyperparameter, metric or column; default: the deciding metric.")
@click.option("--all", "all_lineages", is_flag=True, help="Also what was judged against earlier baselines.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@JSON_OPTION
def runs(
    place: str | None,
    store: str,
    conditions: tuple[str, ...],
    sort_key: str | None,
    all_lineages: bool,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Show the leaderboard of a store, or of one experiment FILE in it, from the names alone."""
    from rich.console import Console

    from basekamp.records.leaderboard import best_first, select_rows
    from basekamp.records.shelf import rows_as_json
    from basekamp.report.terminal import leaderboard, rows_as_csv

    rows = select_rows(best_first(_rows(place, store, all_lineages=all_lineages)), conditions, sort_key)
    if as_json:
        click.echo(json.dumps(rows_as_json(rows), indent=1))
    elif as_csv:
        click.echo(rows_as_csv(rows), nl=False)
    elif rows:
        console = Console(file=sys.stdout)
        console.print(leaderboard(rows, width=console.width))
        click.echo(f"\nNext: basekamp show {rows[0].id}")
    else:
        click.echo("No record. Next: basekamp run FILE")


@click.command()
@click.argument("name")
@STORE_OPTION
@JSON_OPTION
def show(name: str, store: str, as_json: bool) -> None:
    """Show one record whole, by its NAME, id or key."""
    from rich.console import Console

    from basekamp.records.shelf import REPORT, find_row, read_record
    from basekamp.report.terminal import record_table
    from basekamp.storage import open_store

    opened = open_store(store_url(store))
    row = find_row(opened, name)
    if row.role == "imported":
        click.echo(opened.get(row.key).decode())
        return
    record = read_record(opened, row)
    if as_json:
        click.echo(record.model_dump_json(indent=1))
        return
    click.echo(record.name)
    Console(file=sys.stdout).print(record_table(record))
    click.echo(f"\nreport: {opened.url}/{row.beside(REPORT)}")


def _rows(place: str | None, store: str, *, all_lineages: bool) -> list[Any]:
    from basekamp.records.shelf import read_shelves
    from basekamp.storage import open_store

    where, experiment = store_and_experiment(place, store)
    shelves = read_shelves(open_store(where), experiment)
    for stranger in (key for shelf in shelves for key in shelf.strangers):
        click.echo(f"no record's name: {stranger}", err=True)
    return [row for shelf in shelves for row in (*(shelf.every if all_lineages else shelf.rows), *shelf.imported)]
