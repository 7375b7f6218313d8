"""Commands that train: one experiment, its sweep; and what must hold before."""

import sys
from pathlib import Path
from typing import Any

import click

from basekamp.cli.options import GPUS_OPTION, JSON_OPTION, STORE_OPTION, runs_command, store_url


@click.command()
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
    from basekamp.records.leaderboard import best_first
    from basekamp.report.leaderboard import leaderboard
    from basekamp.report.terminal import StepDisplay

    experiment = load_experiment(file)
    console = Console(file=sys.stdout)
    where = store_url(store)
    tried, display = attempts_to_run(experiment, attempts), StepDisplay(console)
    options: dict[str, Any] = {"gpus": gpus, "profile": profile, "most_seeds": most_seeds}
    shelf, made = run_experiment(experiment, store=where, attempts=tried, display=display, **options)
    console.print()
    console.print(leaderboard(best_first(shelf.rows), width=console.width))
    console.print()
    _tell_reports(made, store, profile=profile)
    click.echo(f"Next: {runs_command(file, store)}")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@STORE_OPTION
@GPUS_OPTION
def sweep(file: Path, store: str, gpus: str) -> None:
    """Search the settings of the file's sweep, train the winner on fresh seeds, and judge it against the baseline."""
    from rich.console import Console

    from basekamp.cluster.campaign import run_sweep
    from basekamp.experiment import load_experiment
    from basekamp.records.leaderboard import best_first
    from basekamp.report.leaderboard import leaderboard
    from basekamp.report.terminal import StepDisplay

    console = Console(file=sys.stdout)
    shelf, row, page = run_sweep(load_experiment(file), store=store_url(store), gpus=gpus, display=StepDisplay(console))
    console.print()
    console.print(leaderboard(best_first(shelf.rows), width=console.width))
    click.echo(f"\nreport of all trials: {store.rstrip('/')}/{page}")
    _tell_reports([row], store)
    click.echo(f"Next: {runs_command(file, store)}")


@click.command()
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


@click.command("compile")
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


def _tell_reports(rows: list[Any], store: str, *, profile: bool = False) -> None:
    """Where the report of each record lies, and its trace if one was asked for."""
    from basekamp.records.shelf import REPORT, TRACE, holds
    from basekamp.storage import open_store

    for row in rows:
        click.echo(f"report of {row.attempt}: {store.rstrip('/')}/{row.beside(REPORT)}")
        if profile:
            has_trace = holds(open_store(store_url(store)), row.beside(TRACE))
            told = f"{store.rstrip('/')}/{row.beside(TRACE)}" if has_trace else "none, it took too few steps"
            click.echo(f"trace of {row.attempt}: {told}")
