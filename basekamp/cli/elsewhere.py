"""Commands that trade with other places: stores and trackers that missed something, results from before."""

import json
import sys

import click

from basekamp.cli.options import DEFAULT_STORE, JSON_OPTION, STORE_OPTION, pair, store_url


@click.command()
@click.option("--store", default="", help="Send as well what runs on a cluster left in this s3:// or minio:// store.")
@JSON_OPTION
def sync(store: str, as_json: bool) -> None:
    """Bring up results that wait for their store, and send trackers what they missed; exit code 1 if something is left.

    Results wait where the store was down at the end of their training; each is judged and recorded once.
    """
    from dataclasses import asdict

    from basekamp.records.waiting import Brought, bring_up
    from basekamp.storage import open_store
    from basekamp.tracking.sync import Delivery
    from basekamp.tracking.sync import sync as send_all

    told: list[Brought | Delivery] = [*bring_up(), *send_all(open_store(store_url(store)) if store else None)]
    lines = [one.text() for one in told] or ["No result waits, and trackers have all there is."]
    click.echo(json.dumps([asdict(one) for one in told], indent=1) if as_json else "\n".join(lines))
    sys.exit(1 if any(one.left for one in told) else 0)


@click.command("import")
@click.argument("kind", type=click.Choice(["csv", "xlsx", "folder", "mlflow", "wandb"]))
@click.argument("place", metavar="FILE|FOLDER|URI")
@click.argument("part", required=False, default="", metavar="[SHEET|EXPERIMENT]")
@click.option("--experiment", required=True, help="Name of the experiment here.")
@click.option("--metric", required=True, help="The deciding metric.")
@click.option("--map", "renamed", multiple=True, metavar="THEIRS=OURS", help="Read a name there as ours.")
@click.option("--percent", "in_percent", is_flag=True, help="Accuracy and its like are in per cent there.")
@STORE_OPTION
@JSON_OPTION
def import_old(
    kind: str,
    place: str,
    part: str,
    experiment: str,
    metric: str,
    renamed: tuple[str, ...],
    in_percent: bool,
    store: str,
    as_json: bool,
) -> None:
    """List old results beside the records: marked as imported, never judged, never champion.

    The rows of a table, files whose names tell their results, an EXPERIMENT of MLflow's, W&B's run folders. What is
    named like a metric is one; `attempt` and `model` are names; the rest are settings.
    """
    from dataclasses import asdict

    from basekamp.imports.result import Reading
    from basekamp.imports.shelf import import_results
    from basekamp.imports.sources import read_source
    from basekamp.storage import open_store

    reading = Reading(metric, dict(pair(text) for text in renamed), in_percent)
    found, source = read_source(kind, place, part)
    told = import_results(open_store(store_url(store)), found, experiment=experiment, source=source, reading=reading)
    if as_json:
        click.echo(json.dumps(asdict(told), indent=1))
    else:
        for sentence in told.left_out:
            click.echo(f"left out: {sentence}", err=True)
        click.echo(f"{len(told.imported)} imported, {told.num_known} there already, {len(told.left_out)} left out.")
        click.echo("Next: basekamp runs" + ("" if store == DEFAULT_STORE else f" --store {store}"))
    sys.exit(1 if told.left_out else 0)
