"""The Airflow example, loaded and run by a real Airflow, which $AIRFLOW_PYTHON names: it is too large for our own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from basekamp.records.shelf import RECORD, read_shelf, stem
from basekamp.storage import open_store
from tests.kfp_server import KfpServer
from tests.test_cli import EXPERIMENT, basekamp

PYTHON = os.environ.get("AIRFLOW_PYTHON", "")
EXAMPLE = Path(__file__).parent.parent / "examples" / "airflow_dag.py"
RUN = """
import json, sys
sys.path.insert(0, sys.argv[1])
import airflow_dag
run = airflow_dag.basekamp_experiment().test(run_conf=json.loads(sys.argv[2]))
states = {each.task_id: str(each.state) for each in run.get_task_instances()}
print("STATES", json.dumps(states | {"dag": str(run.state)}))
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="no Airflow: let AIRFLOW_PYTHON name an interpreter that has apache-airflow"),
]


class Recording(dict):
    """The runs of a server; each leaves, when it is made, the record that its attempt once came to."""

    def __init__(self, store, rows) -> None:
        super().__init__()
        self.store, self.rows = store, {row.attempt: row for row in rows}

    def __setitem__(self, run_id, run) -> None:
        super().__setitem__(run_id, run)
        row = self.rows[run["runtime_config"]["parameters"]["attempt"]]
        told = json.loads(self.store.get(stem(row.key) + RECORD))
        new_id = "s" + run_id.replace("-", "")[:12]
        key = (stem(row.key) + RECORD).replace(row.id, new_id)
        name = told["name"].replace(row.id, new_id)
        changed = told | {"id": new_id, "name": name, "key": told["key"].replace(row.id, new_id), "run": f"x/{run_id}"}
        self.store.put(key, json.dumps(changed).encode())


@pytest.fixture
def airflow(tmp_path, s3_env):
    """Runs the DAG over an experiment whose attempts were run once; gives the states of its tasks."""
    (tmp_path / "small.yaml").write_text(EXPERIMENT)
    place = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "BASEKAMP_S3"))}
    done = basekamp("run", "small.yaml", "--store", s3_env, cwd=tmp_path, **place)
    assert done.returncode == 0, done.stdout + done.stderr
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(EXAMPLE.parent),
        "BASEKAMP": str(Path(sys.executable).with_name("basekamp")),
    }
    subprocess.run([PYTHON, "-m", "airflow", "db", "migrate"], env=environment, check=True, capture_output=True)
    store = open_store(s3_env)

    def run(**conf: object) -> tuple[dict[str, str], str]:
        with KfpServer(runs=Recording(store, read_shelf(store, "small").rows)) as server:
            asked = json.dumps({"file": str(tmp_path / "small.yaml"), "store": s3_env, **conf})
            command = [PYTHON, "-c", RUN, str(EXAMPLE.parent), asked]
            told = {**environment, "KFP_ENDPOINT": server.url}
            done = subprocess.run(command, env=told, capture_output=True, text=True, timeout=300)
        lines = [line for line in done.stdout.splitlines() if line.startswith("STATES ")]
        assert lines, done.stdout[-4000:] + done.stderr[-4000:]
        return json.loads(lines[-1].removeprefix("STATES ")), done.stdout + done.stderr

    return run


def test_dag_is_loaded_without_an_error(tmp_path):
    program = (
        "from airflow.dag_processing.dagbag import DagBag\n"
        f"bag = DagBag({str(EXAMPLE)!r})\n"
        "assert not bag.import_errors, bag.import_errors\n"
        "print({dag_id: sorted(dag.task_ids) for dag_id, dag in bag.dags.items()})\n"
    )
    environment = {**os.environ, "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    subprocess.run([PYTHON, "-m", "airflow", "db", "migrate"], env=environment, check=True, capture_output=True)
    done = subprocess.run([PYTHON, "-c", program], env=environment, capture_output=True, text=True)
    assert "{'basekamp_experiment': ['gate', 'submit']}" in done.stdout, done.stdout + done.stderr


def test_dag_passes_when_an_attempt_is_supported_and_fails_when_none_is(airflow):
    states, said = airflow()
    assert states == {"submit": "success", "gate": "success", "dag": "success"}, said
    states, said = airflow(options=["--attempt", "decay"])
    assert states == {"submit": "success", "gate": "failed", "dag": "failed"}, said
    assert "the gate `supported` is not passed: decay refuted." in said
