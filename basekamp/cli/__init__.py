"""The command line. Each command reads its input, makes one or two library calls, and shows the result."""

from typing import Any

import click

from basekamp import __version__
from basekamp.cli.baseline import fallback, gc, rebase, verify
from basekamp.cli.elsewhere import import_old, sync
from basekamp.cli.kubeflow import doctor, submit, why
from basekamp.cli.names import name
from basekamp.cli.results import compare, diagnose, log, report, runs, search, show
from basekamp.cli.running import check, compile_pipelines, run, sweep
from basekamp.errors import BasekampError


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


COMMANDS = (
    run,
    sweep,
    check,
    compile_pipelines,
    runs,
    show,
    compare,
    diagnose,
    log,
    search,
    report,
    fallback,
    verify,
    rebase,
    gc,
    submit,
    why,
    doctor,
    sync,
    import_old,
    name,
)
for command in COMMANDS:
    main.add_command(command)
