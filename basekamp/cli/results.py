"""Commands that look at what came out."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from basekamp.cli.options import (
    JSON_OPTION,
    LANGUAGE_OPTION,
    STORE_OPTION,
    experiment_name,
    store_and_experiment,
    store_flag,
    store_url,
)
from basekamp.errors import InputError
from basekamp.language import speaking

if TYPE_CHECKING:
    from basekamp.records.shelf import Shelf

MOST_NAMED = 5
MARKDOWN_OPTION = click.option("--markdown", "as_markdown", is_flag=True, help="Print a Markdown table.")


@click.command()
@click.argument("place", metavar="[FILE|STORE|EXPERIMENT]", required=False)
@STORE_OPTION
@click.option(
    "--where", "conditions", multiple=True, metavar="CONDITION", help="Say 'n_layers>=3 and act=gelu'; may be repeated."
)
@click.option("--sort", "sort_key", help="Hyperparameter, metric or column, -KEY the other way round.")
@click.option("--top", type=click.IntRange(min=1), help="Only so many rows.")
@click.option("--group-by", "group_keys", metavar="KEY[,KEY]", help="Mean, spread and interval of what agrees in KEY.")
@click.option("--only-changed", is_flag=True, help="Only the columns that are not alike in all rows.")
@click.option("--all", "all_lineages", is_flag=True, help="Also what was judged against earlier baselines.")
@click.option("--every-row", is_flag=True, help="All rows of all experiments, not one line for each experiment.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@MARKDOWN_OPTION
@click.option("--xlsx", "workbook", type=click.Path(path_type=Path), help="Write a workbook.")
@JSON_OPTION
def runs(
    place: str | None,
    store: str,
    conditions: tuple[str, ...],
    sort_key: str | None,
    top: int | None,
    group_keys: str | None,
    only_changed: bool,
    all_lineages: bool,
    every_row: bool,
    workbook: Path | None,
    **formats: bool,
) -> None:
    """Show the leaderboard of a store, or of one experiment in it, from the names alone.

    CONDITION compares keys and values with = != < <= > >= and `in (a, b)`, joined by and, or, not and brackets.
    """
    from basekamp.records.leaderboard import best_first, group_rows, joined, select_rows
    from basekamp.report import leaderboard as shown

    if sum([*formats.values(), workbook is not None]) > 1:
        raise InputError("--csv, --markdown, --json and --xlsx are one of a kind: choose one of them.")
    shelves = _shelves(place, store)
    rows = joined([part for shelf in shelves for part in (shelf.every if all_lineages else shelf.rows, shelf.imported)])
    chosen = select_rows(best_first(select_rows(rows, conditions)), (), sort_key, top=None if group_keys else top)
    if workbook:
        from basekamp.report.workbook import write_workbook

        write_workbook(chosen, workbook, only_changed=only_changed)
        click.echo(f"{len(chosen)} records written to {workbook}")
    elif group_keys:
        groups = group_rows(chosen, [key.strip() for key in group_keys.split(",")])[:top]
        if not _tell(shown.groups_as_json(groups), shown.groups_as_sheet(groups), **formats):
            _print(shown.groups_table(groups))
            click.echo("\nNext: basekamp runs with --where for the rows of a group")
    elif _tell(
        shown.rows_as_json(chosen, only_changed=only_changed),
        shown.rows_as_sheet(chosen, only_changed=only_changed),
        **formats,
    ):
        pass
    elif not chosen:
        click.echo("No record." + ("" if rows else " Next: basekamp run FILE"))
    elif len(shelves) > 1 and not (every_row or conditions or sort_key or top):
        _print(shown.experiments_table(shelves))
        click.echo(f"\nNext: basekamp runs {shelves[0].experiment}{store_flag(store)}, or --every-row")
    else:
        _print(shown.leaderboard(chosen, width=_width()))
        best = chosen[0]
        is_named_file = "/" not in best.key
        adopt = f"import folder {place or store} --experiment {best.experiment} --metric {best.metric}"
        click.echo(f"\nNext: basekamp {adopt if is_named_file else f'show {best.id}{store_flag(store)}'}")


@click.command()
@click.argument("place", metavar="[FILE|STORE|EXPERIMENT]", required=False)
@STORE_OPTION
@MARKDOWN_OPTION
@JSON_OPTION
def log(place: str | None, store: str, as_markdown: bool, as_json: bool) -> None:
    """Show the lab book: what was tried, in order, why, and what came of it."""
    from basekamp.records.labbook import read_labbook
    from basekamp.report.labbook import pages_as_json, pages_as_markdown, pages_table
    from basekamp.storage import open_store

    pages = read_labbook(open_store(store_and_experiment(place, store)[0]), _shelves(place, store))
    if as_json:
        click.echo(json.dumps(pages_as_json(pages), indent=1))
    elif as_markdown:
        click.echo(pages_as_markdown(pages))
    elif pages:
        _print(pages_table(pages, width=_width()))
        click.echo(f"\nNext: basekamp search TEXT{store_flag(store)}, before the next idea")
    else:
        click.echo("No record. Next: basekamp run FILE")


@click.command()
@click.argument("text")
@STORE_OPTION
@JSON_OPTION
def search(text: str, store: str, as_json: bool) -> None:
    """Tell whether TEXT was tried already: look for it in every hypothesis, name and setting."""
    from basekamp.records.labbook import read_labbook
    from basekamp.records.labbook import search as find
    from basekamp.report.labbook import hits_as_text, pages_as_json
    from basekamp.storage import open_store

    hits = find(read_labbook(open_store(store_url(store)), _shelves(None, store)), text)
    if as_json:
        click.echo(json.dumps(pages_as_json(hit.page for hit in hits), indent=1))
    elif hits:
        click.echo(hits_as_text(hits))
        click.echo(f"\nNext: basekamp show {hits[0].page.row.id}{store_flag(store)}")
    else:
        click.echo("Nothing of it was tried. Next: an attempt with this hypothesis in the experiment file")


@click.command()
@click.argument("name")
@STORE_OPTION
@click.option(
    "--price", envvar="BASEKAMP_PRICE_PER_HOUR", default="", help="Of a device, say '2.5 EUR': tells the cost."
)
@JSON_OPTION
def show(name: str, store: str, price: str, as_json: bool) -> None:
    """Show one record whole, by its NAME, id or key."""
    from basekamp.records.shelf import REPORT, find_row, read_record
    from basekamp.report.record import imported_table, record_table
    from basekamp.storage import open_store

    opened = open_store(store_url(store))
    row = find_row(opened, name)
    if row.role == "imported":
        if as_json:
            click.echo(opened.get(row.key).decode())
        else:
            _print(imported_table(row))
        return
    record = read_record(opened, row)
    if as_json:
        click.echo(record.model_dump_json(indent=1))
        return
    click.echo(record.name)
    _print(record_table(record, price=price))
    click.echo(f"\nreport: {opened.url}/{row.beside(REPORT)}")


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="A B ...")
@STORE_OPTION
@click.option("--experiment", help="FILE or name, where names mean something in several.")
@click.option("--html", "page", type=click.Path(path_type=Path), help="Write a page as well.")
@LANGUAGE_OPTION
@JSON_OPTION
def compare(
    names: tuple[str, ...], store: str, experiment: str | None, page: Path | None, lang: str | None, as_json: bool
) -> None:
    """Put records side by side: what differs, and how far each is from the first.

    A record is meant by its name, its id, its attempt (the latest of it), or as `baseline` or `champion`.
    """
    from basekamp.records.shelf import read_shelves
    from basekamp.records.side_by_side import choose_rows, put_side_by_side
    from basekamp.report.comparison import comparison_html, comparison_table
    from basekamp.storage import open_store
    from basekamp.storage.protocol import whole_file

    opened = open_store(store_url(store))
    shelves = read_shelves(opened, experiment_name(experiment) if experiment else None)
    told = put_side_by_side(opened, choose_rows(shelves, names))
    if page:
        with whole_file(page) as file, speaking(lang):
            file.write(comparison_html(told).encode())
    if as_json:
        click.echo(json.dumps(told.as_json(), indent=1))
        return
    _print(comparison_table(told))
    click.echo(f"\npage: {page}" if page else "\nNext: the same with --html page.html")


@click.command()
@click.argument("name")
@STORE_OPTION
@JSON_OPTION
def diagnose(name: str, store: str, as_json: bool) -> None:
    """Tell why a record's performance is low: conditions with their evidence, and what to try next."""
    from basekamp.records.shelf import find_row, read_record
    from basekamp.report.diagnosis import diagnosis_as_json, diagnosis_as_text
    from basekamp.storage import open_store

    opened = open_store(store_url(store))
    row = find_row(opened, name)
    if row.role == "imported":
        raise InputError(f"{row.attempt} is imported, and nobody knows how it was trained: name a record.")
    record = read_record(opened, row)
    click.echo(json.dumps(diagnosis_as_json(record), indent=1) if as_json else diagnosis_as_text(record))


@click.command()
@click.argument("place", metavar="FILE|EXPERIMENT")
@STORE_OPTION
@click.option("-o", "--output", "page", type=click.Path(path_type=Path), help="Default: EXPERIMENT.html here.")
@LANGUAGE_OPTION
def report(place: str, store: str, page: Path | None, lang: str | None) -> None:
    """Write the report of an experiment: one page of all that was tried, to keep or to send."""
    from basekamp.records.story import read_story
    from basekamp.report.experiment import experiment_html
    from basekamp.storage import open_store
    from basekamp.storage.protocol import whole_file

    story = read_story(open_store(store_url(store)), experiment_name(place))
    page = page or Path(f"{story.shelf.experiment}.html")
    with whole_file(page) as file, speaking(lang):
        file.write(experiment_html(story).encode())
    click.echo(f"{page}: {len(story.shelf.rows)} records. It loads nothing: open it in a browser, or send it.")


def _shelves(place: str | None, store: str) -> "list[Shelf]":
    """The experiments asked for, and a folder's own named files; what is no record is told on standard error."""
    from basekamp.imports.named_files import read_named_files
    from basekamp.records.shelf import read_shelves
    from basekamp.storage import open_store

    where, experiment = store_and_experiment(place, store)
    shelves = read_shelves(open_store(where), experiment)
    if experiment is None and "://" not in where and (named_files := read_named_files(Path(where))):
        shelves.append(named_files)
    strangers = [key for shelf in shelves for key in shelf.strangers]
    if strangers:
        named = ", ".join(ascii(key)[1:-1] for key in strangers[:MOST_NAMED])
        more = ", …" if len(strangers) > MOST_NAMED else ""
        click.echo(f"{len(strangers)} files are no records' names: {named}{more}", err=True)
    return shelves


def _tell(told: list[dict[str, Any]], sheet: Any, *, as_csv: bool, as_markdown: bool, as_json: bool) -> bool:
    """Print in the format asked for; False when none was."""
    from basekamp.report.leaderboard import sheet_as_csv, sheet_as_markdown

    if as_json:
        click.echo(json.dumps(told, indent=1))
    elif as_csv:
        click.echo(sheet_as_csv(sheet), nl=False)
    elif as_markdown:
        click.echo(sheet_as_markdown(sheet))
    return as_json or as_csv or as_markdown


def _width() -> int:
    from rich.console import Console

    return Console(file=sys.stdout).width


def _print(told: Any) -> None:
    from rich.console import Console

    Console(file=sys.stdout).print(told)
