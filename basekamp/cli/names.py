"""Commands that read and write self-describing file names."""

import json
import sys

import click

from basekamp.cli.options import JSON_OPTION, pair


@click.group()
def name() -> None:
    """Read and write self-describing file names."""


@name.command("parse")
@click.argument("names", nargs=-1, required=True)
@click.option("--alias", "aliases", multiple=True, metavar="KEY=OTHER", help="Read KEY as OTHER.")
@JSON_OPTION
def name_parse(names: tuple[str, ...], aliases: tuple[str, ...], as_json: bool) -> None:
    """Split each NAME into model, fields, extension, id and how many fields were cut."""
    from dataclasses import asdict

    from basekamp.naming import parse_name

    renamed = dict(pair(alias) for alias in aliases)
    parsed = [asdict(parse_name(text, aliases=renamed)) for text in names]
    if as_json:
        click.echo("\n".join(json.dumps(told) for told in parsed))
        return
    for told in parsed:
        fields = "".join(f"\n  {key} = {value!r}" for key, value in told["fields"].items())
        click.echo(
            f"{told['model']} ({told['extension']}, id {told['id'] or 'none'}, {told['cut']} fields cut){fields}"
        )


@name.command("format")
def name_format() -> None:
    """Write the name of each JSON object on standard input, one a line: {model, fields, extension, id}."""
    from basekamp.naming import format_name, name_from_json

    for line in sys.stdin:
        if line.strip():
            click.echo(format_name(name_from_json(line)))
