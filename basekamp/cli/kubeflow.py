"""Commands for Kubeflow Pipelines."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from basekamp.cli.options import GPUS_OPTION, JSON_OPTION, STORE_OPTION, pair, store_url


@click.command()
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
    order = Order(**options | {"placement": dict(pair(text) for text in options["placement"])})
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


@click.command()
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


@click.command()
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

    checks = check_all(store=store_url(store), **place)
    click.echo(json.dumps(checks_as_json(checks), indent=1) if as_json else as_table(checks))
    sys.exit(exit_code(checks))
