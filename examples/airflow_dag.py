"""Schedule an experiment through Kubeflow Pipelines, and fail when the verdict gate fails. For Airflow 3.

Copy this file into Airflow's DAG folder. `basekamp` may live in an environment of its own: let the variable BASEKAMP of
the workers name the command. How it reaches Kubeflow and the store is said by its usual variables (KFP_ENDPOINT,
KFP_TOKEN, BASEKAMP_S3_ENDPOINT, AWS_ACCESS_KEY_ID, …), which the workers get from their own Secret.
"""

import json
import os
import subprocess
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import Param, dag, task
from airflow.sdk.exceptions import AirflowFailException

PARAMS = {
    "file": Param("examples/digits.yaml", type="string", description="The experiment file, as the workers see it."),
    "store": Param("minio://mlpipeline/basekamp", type="string", description="Where the records live."),
    "options": Param([], type="array", description="More options of `basekamp submit`, such as ['--gpus', '1']."),
    "gate": Param(
        "supported",
        enum=["supported", "champion", "none"],
        description="Fail unless one attempt of this run is supported, or became champion; none lets all pass.",
    ),
}


def basekamp(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command; what it says on standard error goes to the task's log."""
    done = subprocess.run([os.environ.get("BASEKAMP", "basekamp"), *arguments], stdout=subprocess.PIPE, text=True)
    if done.returncode not in (0, 1):
        raise AirflowFailException(f"basekamp {arguments[0]} ended with {done.returncode}: its log says why.")
    return done


@dag(schedule="0 6 * * 1", start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False, params=PARAMS, max_active_runs=1)
def basekamp_experiment() -> None:
    """Submit the experiment every Monday morning, wait for its runs, and judge them by their verdicts."""

    @task
    def submit(params: dict[str, Any] | None = None) -> list[dict[str, str]]:
        """Submit the baseline where there is none, then each attempt; fails when a run fails."""
        assert params is not None, "Airflow gives them"
        words = ["--store", params["store"], "--wait", "--json", *params["options"]]
        runs = json.loads(basekamp("submit", params["file"], *words).stdout)
        failed = [f"{run['run_name']}: {run['state']} {run['url']}" for run in runs if run["state"] != "SUCCEEDED"]
        if failed:
            raise AirflowFailException("; ".join(failed))
        return runs

    @task
    def gate(runs: list[dict[str, str]], params: dict[str, Any] | None = None) -> dict[str, str]:
        """Give the verdict of each attempt; fails when the gate that is asked for is not passed."""
        assert params is not None, "Airflow gives them"
        store = ("--store", params["store"])
        attempts = {run["attempt"]: run["run_id"] for run in runs if run["attempt"] != "baseline"}
        rows = json.loads(basekamp("runs", params["file"], *store, "--json").stdout)
        verdicts, champions = {}, []
        for row in (row for row in rows if row["attempt"] in attempts and row["role"] == "attempt"):
            record = json.loads(basekamp("show", row["name"], *store, "--json").stdout)
            if record["run"].endswith(attempts[row["attempt"]]):
                verdicts[row["attempt"]] = row["verdict"]
                champions += [row["attempt"]] if row["champion"] else []
        passed = {"supported": "supported" in verdicts.values(), "champion": bool(champions), "none": True}
        if not passed[params["gate"]]:
            told = ", ".join(f"{attempt} {verdict}" for attempt, verdict in verdicts.items()) or "no verdict"
            raise AirflowFailException(f"the gate `{params['gate']}` is not passed: {told}.")
        return verdicts

    gate(submit())


basekamp_experiment()
