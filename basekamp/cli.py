"""The command line. Each command reads its input, makes one or two library calls, and shows the result."""

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click

from basekamp import __version__
from basekamp.errors import BasekampError, InputError

DEFAULT_STORE = "./basekamp-store"
STORE_OPTION = click.option("--store", default=DEFAULT_STORE, show_default=True, help="Folder, s3:// or minio:// URL.")
GPUS_OPTION = click.option("--gpus", default="0", show_default=True, help="GPUs to train on; 0 is the CPU.")
JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class Commands(click.Group):
    """Turns every error of ours into one sentence on standard error and its exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a user's mistake never shows a traceback."""
        try:
            return super().invoke(ctx)
        except BasekampError as error:
            click.echo(f"basekamp: {error}", err=True)
            ctx.exit(error.exit_code)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Build a base camp first: a baseline, attempts judged against it, every result findable by its name."""


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--attempt", "attempts", multiple=True, help="Only this attempt; may be given again.")
@STORE_OPTION
@GPUS_OPTION
@click.option("--profile", is_flag=True, help="Write a trace of a few training steps beside each model.")
@click.option(
    "--until-decided",
    "most_seeds",
    default=0,
    show_default=False,
    metavar="N",
    help="Train an undecided attempt again with the seeds that would decide it, at most N.",
)
def run(file: Path, attempts: tuple[str, ...], store: str, gpus: str, profile: bool, most_seeds: int) -> None:
    """Run an experiment on this machine: baseline first if there is none, then each attempt."""
    from rich.console import Console

    from basekamp.cluster.campaign import attempts_to_run, run_experiment
    from basekamp.experiment import load_experiment
    from basekamp.report.terminal import StepDisplay, leaderboard

    experiment = load_experiment(file)
    console = Console(file=sys.stdout)
    where = _store_url(store)
    tried, display = attempts_to_run(experiment, attempts), StepDisplay(console)
    options: dict[str, Any] = {"gpus": gpus, "profile": profile, "most_seeds": most_seeds}
    shelf, made = run_experiment(experiment, store=where, attempts=tried, display=display, **options)
    console.print()
    console.print(leaderboard(_best_first(shelf.rows), width=console.width))
    console.print()
    _tell_reports(made, store, profile=profile)
    click.echo(f"Next: {_runs_command(file, store)}")


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@STORE_OPTION
@GPUS_OPTION
def sweep(file: Path, store: str, gpus: str) -> None:
    """Search the settings of the file's sweep, train the winner on fresh seeds, and judge it against the baseline."""
    from rich.console import Console

    from basekamp.cluster.campaign import run_sweep
    from basekamp.experiment import load_experiment
    from basekamp.report.terminal import StepDisplay, leaderboard

    console = Console(file=sys.stdout)
    shelf, row, page = run_sweep(
        load_experiment(file), store=_store_url(store), gpus=gpus, display=StepDisplay(console)
    )
    console.print()
    console.print(leaderboard(_best_first(shelf.rows), width=console.width))
    click.echo(f"\nreport of all trials: {store.rstrip('/')}/{page}")
    _tell_reports([row], store)
    click.echo(f"Next: {_runs_command(file, store)}")


@main.command()
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

    from basekamp.records.leaderboard import select_rows
    from basekamp.records.shelf import rows_as_json
    from basekamp.report.terminal import leaderboard, rows_as_csv

    rows = select_rows(_best_first(_rows(place, store, all_lineages=all_lineages)), conditions, sort_key)
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


@main.command()
@click.argument("name")
@STORE_OPTION
@JSON_OPTION
def show(name: str, store: str, as_json: bool) -> None:
    """Show one record whole, by its NAME, id or key."""
    from rich.console import Console

    from basekamp.records.shelf import REPORT, find_row, read_record
    from basekamp.report.terminal import record_table
    from basekamp.storage import open_store

    opened = open_store(_store_url(store))
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


@main.command()
@click.argument("place", metavar="FILE|EXPERIMENT")
@STORE_OPTION
@click.option("--to", "target", help="Name or id of the record to go back to; default: the champion before this one.")
@JSON_OPTION
def fallback(place: str, store: str, target: str | None, as_json: bool) -> None:
    """Make the champion before the present one champion again, and print its model's path."""
    from basekamp.records.gate import fall_back
    from basekamp.records.shelf import read_shelf
    from basekamp.storage import open_store

    opened = open_store(_store_url(store))
    shelf = read_shelf(opened, _experiment_name(place))
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


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@STORE_OPTION
@GPUS_OPTION
@JSON_OPTION
def verify(file: Path, store: str, gpus: str, as_json: bool) -> None:
    """Train the pinned baseline again and say whether it reproduces, and what changed; exit code 1 when not."""
    from basekamp.experiment import load_experiment
    from basekamp.records.verify import verify_baseline

    with redirect_stdout(sys.stderr):  # what a training says of its progress
        told = verify_baseline(load_experiment(file), store=_store_url(store), gpus=gpus)
    if as_json:
        click.echo(told.model_dump_json(indent=1))
    else:
        click.echo(told.sentence)
        for what, (recorded, today) in told.changed.items():
            click.echo(f"  {what}: {recorded} then, {today} now")
        click.echo(
            f"Next: {_runs_command(file, store)}"
            if told.reproduces
            else f"Next: basekamp rebase {file}{_store_flag(store)}"
        )
    sys.exit(0 if told.reproduces else 1)


@main.command()
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
    shelf, row = rebase_experiment(load_experiment(file), store=_store_url(store), gpus=gpus, display=display)
    click.echo(f"\n{row.name} is the baseline of {shelf.experiment} from now on, its lineage {shelf.rows[0].lineage}.")
    click.echo(f"Earlier results: {_runs_command(file, store)} --all")
    click.echo(f"Next: basekamp run {file}{_store_flag(store)}")


@main.command()
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

    where, experiment = _store_and_experiment(place, store)
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


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@JSON_OPTION
def check(file: Path, as_json: bool) -> None:
    """Check an experiment file without running anything."""
    from basekamp.experiment import load_experiment

    experiment = load_experiment(file)
    if as_json:
        click.echo(experiment.model_dump_json(indent=1))
        return
    click.echo(
        f"{file} is sound: {experiment.experiment}, {experiment.metric.name}, {len(experiment.attempts)} attempts"
        + (f", a sweep of {experiment.sweep.trials} trials." if experiment.sweep else ".")
    )
    click.echo(f"Next: basekamp run {file}")


@main.command("compile")
@click.option("--check", "only_check", is_flag=True, help="Only tell whether the committed YAML is fresh.")
@click.option("--image", default="", help="Write a copy whose steps run in this image instead.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=".", help="Folder of that copy.")
def compile_pipelines(only_check: bool, image: str, output: Path) -> None:
    """Compile the pipelines of this checkout to YAML."""
    import subprocess

    from basekamp.cluster.compiled import checkout, compiled_pipeline
    from basekamp.cluster.package import with_image

    if image:
        click.echo(with_image(compiled_pipeline(), image, output))
        return

    command = [sys.executable, "-m", "pipelines.compile", *(["--check"] if only_check else [])]
    sys.exit(subprocess.run(command, cwd=checkout()).returncode)


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--host", envvar="KFP_ENDPOINT", default="", help="Address of the Kubeflow Pipelines API; $KFP_ENDPOINT.")
@click.option("--token", envvar="KFP_TOKEN", default="", help="Bearer token; better given as $KFP_TOKEN.")
@click.option("--cookie-file", type=click.Path(path_type=Path), help="A browser's cookies.txt, or a line name=value.")
@click.option("--kube-context", default="", help="Without --host: context of the kubeconfig to go through.")
@click.option("--namespace", default="", help="Namespace of a multi-user Kubeflow.")
@click.option("--attempt", "attempts", multiple=True, help="Only this attempt; may be given again.")
@click.option("--sweep", is_flag=True, help="The sweep of the file, instead of its attempts.")
@click.option("--store", default="minio://mlpipeline/basekamp", show_default=True, help="s3:// or minio:// URL.")
@GPUS_OPTION
@click.option("--set", "placement", multiple=True, metavar="KEY=VALUE", help="gpu_type, memory, node_selector, ...")
@click.option("--image", default="", help="Image of the steps, best by digest: registry/name@sha256:...")
@click.option("--cache/--no-cache", "caching", default=True, show_default=True, help="Reuse steps of earlier runs.")
@click.option("--recurring", "cron", default="", metavar="CRON", help="Repeat, say '0 6 * * 1', in the server's time.")
@click.option("--wait", "waits", is_flag=True, help="Wait for the end; exit code 1 when a run fails.")
@click.option("--dry-run", is_flag=True, help="Print the plain `kfp run create` lines and send nothing.")
@JSON_OPTION
def submit(file: Path, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Submit an experiment to Kubeflow Pipelines: each attempt one run, named after it."""
    from rich.console import Console

    from basekamp.cluster.access import Access
    from basekamp.cluster.dispatch import Order, plain_commands, submit_experiment
    from basekamp.experiment import load_experiment
    from basekamp.report.cluster_run import RunDisplay

    experiment = load_experiment(file)
    way = ("host", "token", "cookie_file", "kube_context", "namespace")
    access = Access(**{key: options.pop(key) for key in way})
    order = Order(**options | {"placement": dict(_pair(text) for text in options["placement"])})
    if dry_run:
        lines = plain_commands(experiment, order)
        click.echo(json.dumps(lines, indent=1) if as_json else "\n".join(lines.values()))
        click.echo("Nothing was sent. The baseline's line is for a cluster that has none yet.", err=True)
        return
    display = RunDisplay(Console(file=sys.stdout, quiet=as_json))
    told = submit_experiment(experiment, order, access=access, display=display)
    failed = [run for run in told if order.waits and run["state"] != "SUCCEEDED"]
    if as_json:
        click.echo(json.dumps(told, indent=1))
    elif failed:
        click.echo(f"Next: basekamp why {failed[0]['run_id']}")
    else:
        click.echo(f"Next: basekamp runs {file} --store {order.store}")
    if failed:
        sys.exit(1)


@main.command()
@click.argument("run_id", metavar="RUN")
@click.option("--namespace", default="kubeflow", show_default=True, help="Namespace of the run's pods.")
@click.option("--kube-context", default="", help="Context of the kubeconfig; default: the current one.")
@JSON_OPTION
def why(run_id: str, namespace: str, kube_context: str, as_json: bool) -> None:
    """Tell why a RUN on the cluster (its id, its name or a pod's name) is stuck or failed, and what to do."""
    from basekamp.cluster.kube import connect_cluster
    from basekamp.cluster.why import explain, findings_as_json, findings_as_text

    findings = explain(run_id, namespace=namespace, client=connect_cluster(context=kube_context))
    click.echo(json.dumps(findings_as_json(findings), indent=1) if as_json else findings_as_text(findings))


@main.command()
@click.option("--host", envvar="KFP_ENDPOINT", default="", help="Address of the Kubeflow Pipelines API; $KFP_ENDPOINT.")
@click.option("--token", envvar="KFP_TOKEN", default="", help="Bearer token; better given as $KFP_TOKEN.")
@click.option("--namespace", default="", help="Namespace of the runs' pods.")
@STORE_OPTION
@click.option("--image", default="", help="Image of the steps.")
@click.option("--cluster", is_flag=True, help="Check the cluster too.")
@JSON_OPTION
def doctor(store: str, as_json: bool, **place: Any) -> None:
    """Check that this machine, and with --cluster the cluster, have what a run needs; exit code 1 when not."""
    from basekamp.cluster.doctor import as_json as checks_as_json
    from basekamp.cluster.doctor import as_table, check_all, exit_code

    checks = check_all(store=_store_url(store), **place)
    click.echo(json.dumps(checks_as_json(checks), indent=1) if as_json else as_table(checks))
    sys.exit(exit_code(checks))


@main.command()
@click.option("--store", default="", help="Send as well what runs on a cluster left in this s3:// or minio:// store.")
@JSON_OPTION
def sync(store: str, as_json: bool) -> None:
    """Send trackers what they missed while they were down; exit code 1 when something is left."""
    from dataclasses import asdict

    from basekamp.storage import open_store
    from basekamp.tracking.sync import sync as send_all

    told = send_all(open_store(_store_url(store)) if store else None)
    lines = [delivery.text() for delivery in told] or ["Trackers have all there is."]
    click.echo(json.dumps([asdict(delivery) for delivery in told], indent=1) if as_json else "\n".join(lines))
    sys.exit(1 if any(delivery.left for delivery in told) else 0)


@main.command("import")
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

    reading = Reading(metric, dict(_pair(text) for text in renamed), in_percent)
    found, source = read_source(kind, place, part)
    told = import_results(open_store(_store_url(store)), found, experiment=experiment, source=source, reading=reading)
    if as_json:
        click.echo(json.dumps(asdict(told), indent=1))
    else:
        for sentence in told.left_out:
            click.echo(f"left out: {sentence}", err=True)
        click.echo(f"{len(told.imported)} imported, {told.num_known} there already, {len(told.left_out)} left out.")
        click.echo("Next: basekamp runs" + ("" if store == DEFAULT_STORE else f" --store {store}"))
    sys.exit(1 if told.left_out else 0)


@main.group()
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

    renamed = dict(_pair(alias) for alias in aliases)
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


def _tell_reports(rows: list[Any], store: str, *, profile: bool = False) -> None:
    """Where the report of each record lies, and its trace if one was asked for."""
    from basekamp.records.shelf import REPORT, TRACE, holds
    from basekamp.storage import open_store

    for row in rows:
        click.echo(f"report of {row.attempt}: {store.rstrip('/')}/{row.beside(REPORT)}")
        if profile:
            has_trace = holds(open_store(_store_url(store)), row.beside(TRACE))
            told = f"{store.rstrip('/')}/{row.beside(TRACE)}" if has_trace else "none, it took too few steps"
            click.echo(f"trace of {row.attempt}: {told}")


def _runs_command(file: Path, store: str) -> str:
    return f"basekamp runs {file}{_store_flag(store)}"


def _store_flag(store: str) -> str:
    return "" if store == DEFAULT_STORE else f" --store {store}"


def _rows(place: str | None, store: str, *, all_lineages: bool) -> list[Any]:
    from basekamp.records.shelf import read_shelves
    from basekamp.storage import open_store

    where, experiment = _store_and_experiment(place, store)
    shelves = read_shelves(open_store(where), experiment)
    for stranger in (key for shelf in shelves for key in shelf.strangers):
        click.echo(f"no record's name: {stranger}", err=True)
    return [row for shelf in shelves for row in (*(shelf.every if all_lineages else shelf.rows), *shelf.imported)]


def _best_first(rows: Any) -> list[Any]:
    from basekamp.records.leaderboard import best_first

    return best_first(rows)


def _store_and_experiment(place: str | None, store: str) -> tuple[str, str | None]:
    """A place is an experiment file, or else a store of its own."""
    if place is not None and Path(place).is_file():
        return _store_url(store), _experiment_name(place)
    return _store_url(place or store), None


def _experiment_name(place: str) -> str:
    """The name in an experiment file, or the name itself."""
    from basekamp.experiment import load_experiment

    return load_experiment(place).experiment if Path(place).is_file() else place


def _store_url(store: str) -> str:
    """A folder's URL made absolute, since steps may run elsewhere."""
    return store if "://" in store else str(Path(store).absolute())


def _pair(text: str) -> tuple[str, str]:
    key, found, value = text.partition("=")
    if not found:
        raise InputError(f"{text} is no KEY=VALUE pair: write, say, act=act_func.")
    return key, value
