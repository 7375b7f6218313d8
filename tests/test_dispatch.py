"""`basekamp submit` against a stand-in for the API server, from the command line in."""

import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

import basekamp.cluster.follow as following
from basekamp.cli import main
from basekamp.cluster.access import SERVICE_PROXY, Access
from basekamp.cluster.compiled import compiled_pipeline
from basekamp.cluster.dispatch import Order, RunFailedError, plan_runs, submit_experiment
from basekamp.cluster.package import image_of
from basekamp.data.sources import source_fingerprint
from basekamp.errors import BasekampError, InputError
from basekamp.experiment import load_experiment
from basekamp.report.cluster_run import RunDisplay
from tests.kfp_server import KfpServer

KFP = Path(sys.executable).with_name("kfp")
STORE = "s3://bucket/records"
DIGEST = "sha256:" + "0123456789abcdef" * 4
IMAGE = f"registry.example.com/basekamp@{DIGEST}"
EXPERIMENT = """
experiment: small
data: {source: sklearn:digits, target: digit}
metric: {name: accuracy}
baseline: {model: linear}
attempts:
  faster: {hypothesis: Faster learns more., expect: 0.01, lr: 1e-2}
  decay: {hypothesis: "It's 5 % better.", expect: 0.05, weight_decay: 0.01}
"""


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An experiment file in a folder of its own, where nothing of the user's is set and polls are quick."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KUBECONFIG", "KFP_ENDPOINT", "KFP_TOKEN", "KUBERNETES_SERVICE_HOST", "BASEKAMP_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(following, "FIRST_POLL_SECONDS", 0.01)
    (tmp_path / "small.yaml").write_text(EXPERIMENT)
    return tmp_path / "small.yaml"


def basekamp_submit(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["submit", "small.yaml", "--store", STORE, *arguments])


def parameters(server: KfpServer) -> dict[str, dict[str, object]]:
    return {run["display_name"]: run["runtime_config"]["parameters"] for run in server.runs.values()}


def untimed(output: str) -> list[str]:
    """The lines without the seconds that a task took."""
    return [re.sub(r" \d+ s$", "", line) for line in output.splitlines()]


# -- runs


def test_submit_sends_baseline_then_attempts_with_links_to_each() -> None:
    with KfpServer() as server:
        done = basekamp_submit("--host", server.url)
    assert done.exit_code == 0, done.output
    ids = {run["display_name"]: key for key, run in server.runs.items()}
    assert list(ids) == ["baseline", "faster", "decay"]
    assert untimed(done.output) == [
        f"baseline: {server.url}/#/runs/details/{ids['baseline']}",
        "baseline",
        "  … prepare-data    running",
        "  … check-data      running",
        "  … measure-ladder  running",
        "  … train-model     running",
        "  … evaluate-model  running",
        "  … compare-models  running",
        "  ✓ prepare-data    succeeded",
        "  ✓ check-data      succeeded",
        "  ✓ measure-ladder  succeeded",
        "  ✓ train-model     succeeded",
        "  ✓ evaluate-model  succeeded",
        "  ✓ compare-models  succeeded",
        "baseline: SUCCEEDED",
        f"faster: {server.url}/#/runs/details/{ids['faster']}",
        f"  beside the baseline: {server.url}/#/compare?runlist={ids['baseline']},{ids['faster']}",
        f"decay: {server.url}/#/runs/details/{ids['decay']}",
        f"  beside the baseline: {server.url}/#/compare?runlist={ids['baseline']},{ids['decay']}",
        f"Next: basekamp runs small.yaml --store {STORE}",
    ]


def test_submit_compares_with_the_baseline_that_the_cluster_has() -> None:
    with KfpServer() as server:
        basekamp_submit("--host", server.url, "--attempt", "baseline")
        [baseline] = server.runs
        told = json.loads(basekamp_submit("--host", server.url, "--attempt", "faster", "--json").output)
        again = json.loads(basekamp_submit("--host", server.url, "--attempt", "faster", "--json").output)
    assert [(run["run_name"], run["state"], run["error"]) for run in told + again] == [
        ("faster", "SUBMITTED", ""),
        ("faster-2", "SUBMITTED", ""),
    ]
    assert told[0]["comparison"].endswith(f"/#/compare?runlist={baseline},{told[0]['run_id']}")
    assert len(server.runs) == 3


def test_submit_passes_image_and_fingerprint_among_the_parameters() -> None:
    with KfpServer() as server:
        done = basekamp_submit("--host", server.url, "--image", IMAGE, "--gpus", "2")
        assert done.exit_code == 0, done.output
    for run in server.runs.values():
        executors = run["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"].values()
        assert {executor["container"]["image"] for executor in executors} == {IMAGE}
        assert run["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]
    for sent in parameters(server).values():
        assert (sent["image"], sent["gpus"]) == (IMAGE, "2")
        assert sent["data_fingerprint"] == source_fingerprint("sklearn:digits") != ""


def test_submit_without_image_passes_the_one_of_the_package() -> None:
    with KfpServer() as server:
        basekamp_submit("--host", server.url, "--attempt", "baseline")
    assert {sent["image"] for sent in parameters(server).values()} == {image_of(compiled_pipeline())}


@pytest.mark.parametrize(
    ("options", "expected"), [((), {False, True}), (("--cache",), {False, True}), (("--no-cache",), {False})]
)
def test_submit_cache_is_on_unless_turned_off(options: tuple[str, ...], expected: set[bool]) -> None:
    with KfpServer() as server:
        basekamp_submit("--host", server.url, "--attempt", "baseline", *options)
        [run] = server.runs.values()
    spec = run["pipeline_spec"].get("pipeline_spec", run["pipeline_spec"])
    tasks = spec["root"]["dag"]["tasks"].values()
    assert {task["cachingOptions"].get("enableCache", False) for task in tasks} == expected


# -- waiting


def test_submit_wait_ends_0_when_every_run_succeeded() -> None:
    with KfpServer() as server:
        done = basekamp_submit("--host", server.url, "--wait")
    assert done.exit_code == 0
    assert [line for line in done.output.splitlines() if line.endswith(": SUCCEEDED")] == [
        "baseline: SUCCEEDED",
        "faster: SUCCEEDED",
        "decay: SUCCEEDED",
    ]


def test_submit_wait_ends_1_when_one_run_failed_and_says_why() -> None:
    with KfpServer(outcomes={"faster": "FAILED"}, task_error="OOMKilled") as server:
        done = basekamp_submit("--host", server.url, "--wait")
    lines = untimed(done.output)
    assert done.exit_code == 1
    assert "  ✗ compare-models  failed" in lines
    assert "faster: FAILED, compare-models failed (OOMKilled)" in lines and "decay: SUCCEEDED" in lines
    failed = next(key for key, run in server.runs.items() if run["display_name"] == "faster")
    assert lines[-1] == f"Next: basekamp why {failed}"


def test_submit_wait_sends_every_attempt_before_it_waits_for_one() -> None:
    with KfpServer() as server:
        lines = basekamp_submit("--host", server.url, "--wait").output.splitlines()
    assert lines.index("faster") > next(n for n, line in enumerate(lines) if line.startswith("decay: http"))


def test_submit_wait_json_tells_states_and_errors() -> None:
    with KfpServer(outcomes={"decay": "CANCELED", "faster": "FAILED"}, run_error="deadline exceeded") as server:
        done = basekamp_submit("--host", server.url, "--wait", "--json")
    assert done.exit_code == 1
    assert [(run["attempt"], run["state"], run["error"]) for run in json.loads(done.output)] == [
        ("baseline", "SUCCEEDED", ""),
        ("faster", "FAILED", "compare-models failed; deadline exceeded"),
        ("decay", "CANCELED", ""),
    ]


@pytest.mark.parametrize(("options", "exit_code"), [((), 2), (("--wait",), 1)])
def test_submit_failed_baseline_stops_the_attempts(options: tuple[str, ...], exit_code: int) -> None:
    with KfpServer(outcome="FAILED", task_error="OOMKilled") as server:
        done = basekamp_submit("--host", server.url, *options)
    assert done.exit_code == exit_code and len(server.runs) == 1
    assert "the baseline ended as FAILED (compare-models failed (OOMKilled)): mend it first, see http" in done.stderr


def test_submit_failed_baseline_raises_by_its_kind(file: Path) -> None:
    display = RunDisplay(Console(quiet=True))
    with KfpServer(outcome="CANCELED") as server:
        access = Access(host=server.url)
        with pytest.raises(RunFailedError, match="the baseline ended as CANCELED: mend it first"):
            submit_experiment(load_experiment(file), Order(STORE, waits=True), access=access, display=display)


def test_run_display_draws_tasks_in_a_terminal() -> None:
    out = io.StringIO()
    display = RunDisplay(Console(file=out, force_terminal=True, width=60))
    with display.follow("faster") as on_change:
        on_change("PENDING", {})
        on_change("RUNNING", {"other": "PENDING", "train-model": "RUNNING", "prepare-data": "SUCCEEDED"})
        running = out.getvalue()
        on_change("FAILED", {"train-model": "FAILED", "prepare-data": "SUCCEEDED", "other": "SKIPPED"})
    last = out.getvalue()[len(running) :].rpartition("faster: failed")[2]
    order = [last.index(line) for line in ("✓ prepare-data", "✗ train-model     failed", "↺ other")]
    assert order == sorted(order)


# -- recurring runs


def test_submit_recurring_schedules_attempts_after_one_baseline() -> None:
    with KfpServer() as server:
        done = basekamp_submit("--host", server.url, "--recurring", "0 6 * * mon")
    assert done.exit_code == 0, done.output
    jobs = list(server.recurring_runs.values())
    assert list(parameters(server)) == ["baseline"]
    assert [job["display_name"] for job in jobs] == ["faster", "decay"]
    assert {job["trigger"]["cron_schedule"]["cron"] for job in jobs} == {"0 0 6 * * mon"}
    assert f"faster, recurring: {server.url}/#/recurringrun/details/{jobs[0]['recurring_run_id']}" in done.output


def test_submit_recurring_reads_the_data_anew_each_time() -> None:
    with KfpServer() as server:
        basekamp_submit("--host", server.url, "--recurring", "0 6 * * *", "--attempt", "faster")
    [job] = server.recurring_runs.values()
    spec = job["pipeline_spec"].get("pipeline_spec", job["pipeline_spec"])
    assert {bool(task["cachingOptions"].get("enableCache")) for task in spec["root"]["dag"]["tasks"].values()} == {
        False
    }
    assert job["runtime_config"]["parameters"]["data_fingerprint"] == ""
    assert parameters(server)["baseline"]["data_fingerprint"] != ""


# -- the plain lines


def test_submit_dry_run_prints_plain_lines_and_sends_nothing() -> None:
    with KfpServer() as server:
        done = basekamp_submit("--host", server.url, "--dry-run")
    lines = done.stdout.splitlines()
    start = f"kfp run create -e small -r {{}} -f {compiled_pipeline()} "
    assert done.exit_code == 0 and server.experiments == {}
    assert [
        line.startswith(start.format(name)) for line, name in zip(lines, ("baseline", "faster", "decay"), strict=True)
    ]
    assert 'gpus="0"' in shlex.split(lines[0]) and "lr=0.01" in shlex.split(lines[1])
    assert "hypothesis=It's 5 % better." in shlex.split(lines[2])


@pytest.mark.parametrize("options", [(), ("--image", IMAGE, "--no-cache")])
def test_submit_dry_run_line_makes_the_same_run(options: tuple[str, ...]) -> None:
    lines = json.loads(basekamp_submit("--attempt", "faster", "--dry-run", "--json", *options).stdout)
    with KfpServer() as server:
        ours = basekamp_submit("--host", server.url, "--attempt", "faster", *options)
        assert ours.exit_code == 0, ours.output
        words = shlex.split(lines["faster"])[1:]
        done = subprocess.run([KFP, "--endpoint", server.url, *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    _, ours, theirs = server.runs.values()
    for run in (ours, theirs):
        for key in ("run_id", "display_name", "state", "created_at"):
            run.pop(key)
    assert ours == theirs


# -- refusals


REFUSED = {
    "GPU count": (("--gpus", "two"), 'gpus="two" is not a count: use digits'),
    "negative GPU count": (("--gpus", "-1"), 'gpus="-1" is not a count'),
    "foreign digits": (("--gpus", "٣"), "is not a count"),
    "image": (("--image", "not an image!"), "'not an image!' is not an image reference: write registry/name:tag"),
    "schedule": (("--recurring", "every day"), "'every day' is not a schedule"),
    "hour": (("--recurring", "0 25 * * *"), "is no hour: use 0 to 23"),
    "endless wait": (("--recurring", "0 6 * * *", "--wait"), "A recurring run has no end to wait for"),
    "endless dry run": (("--recurring", "0 6 * * *", "--dry-run"), "No plain line makes this recurring run"),
    "local store": (("--store", "./here"), "./here is a folder of this machine"),
    "local store URL": (("--store", "file:///here"), "file:///here is a folder of this machine"),
    "attempt": (("--attempt", "fastr"), "did you mean faster?"),
    "missing cookie file": (("--cookie-file", "none.txt"), "none.txt cannot be read (No such file or directory)"),
    "folder as cookie file": (("--cookie-file", "."), "cannot be read (Is a directory)"),
    "token with a space": (("--token", "Bearer abc"), "The token holds a space"),
    "two ways": (("--kube-context", "kind"), "are two ways to one endpoint"),
}


@pytest.mark.parametrize(("options", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_submit_bad_input_is_one_sentence_and_sends_nothing(options: tuple[str, ...], said: str) -> None:
    with KfpServer() as server:
        done = basekamp_submit("--host", server.url, *options)
    assert (done.exit_code, done.stdout, server.experiments) == (2, "", {})
    assert said in done.stderr
    assert done.stderr.startswith("basekamp: ") and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("settings", "options", "said"),
    [
        ({"token": "right-token"}, ("--token", "wrong-token"), "denies access (401: "),
        ({"token": "right-token"}, (), "denies access (401: "),
        ({"cookie": "session=right"}, (), "denies access (401: "),
        ({"namespaces": ("team-a",)}, (), "serves several namespaces: say which one the run belongs to, with --name"),
        ({"namespaces": ("team-a",)}, ("--namespace", "team-b"), "not authorized in namespace team-b"),
        ({}, ("--namespace", "team-b"), "refuses the run's arguments or namespace (400: "),
        ({"prefix": "/pipeline"}, (), "is not a Kubeflow Pipelines API"),
    ],
)
def test_submit_refused_endpoint_is_one_sentence(settings: dict, options: tuple[str, ...], said: str) -> None:
    with KfpServer(**settings) as server:
        done = basekamp_submit("--host", server.url, *options)
    assert (done.exit_code, done.stdout, server.runs) == (2, "", {})
    assert said in done.stderr and len(done.stderr.splitlines()) == 1
    assert "wrong-token" not in done.stderr


def test_submit_dead_endpoint_is_one_sentence() -> None:
    done = basekamp_submit("--host", "http://127.0.0.1:9")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "http://127.0.0.1:9 cannot be reached (Connection refused)" in done.stderr


def test_submit_without_host_goes_by_kubeconfig_and_tells_how_to_open_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    with KfpServer(prefix=SERVICE_PROXY, token="kube-token") as server:
        (tmp_path / "kubeconfig").write_text(
            f"""clusters: [{{name: c, cluster: {{server: "{server.url}"}}}}]
users: [{{name: u, user: {{token: kube-token}}}}]
contexts: [{{name: kind, context: {{cluster: c, user: u}}}}]
current-context: kind
"""
        )
        done = basekamp_submit("--attempt", "baseline")
    assert done.exit_code == 0, done.output
    first, second = done.output.splitlines()[:2]
    assert first == "The links open after: kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80"
    assert second.startswith("baseline: http://localhost:8080/#/runs/details/")


@pytest.mark.parametrize("settings", [{"gpus": "two"}, {"image": "not an image!"}, {"cron": "soon"}, {"store": "here"}])
def test_order_refuses_when_made(settings: dict) -> None:
    with pytest.raises(InputError):
        Order(**{"store": STORE, **settings})


def test_failed_run_is_no_refusal() -> None:
    assert (RunFailedError.exit_code, BasekampError.exit_code) == (1, 2)


def test_placement_is_typed_and_part_of_every_run(file: Path) -> None:
    told = {"memory": "16Gi", "node_selector": '{"pool": "a100"}', "tolerations": '[{"key": "gpu"}]'}
    for run in plan_runs(load_experiment(file), Order("s3://b", placement=told)).values():
        assert run.arguments["memory"] == "16Gi" and run.arguments["gpu_type"] == "nvidia.com/gpu"
        assert run.arguments["node_selector"] == {"pool": "a100"}
        assert run.arguments["tolerations"] == [{"key": "gpu"}]


@pytest.mark.parametrize("key", ["lr", "gpus", "memry"])
def test_placement_that_changes_results_or_is_unknown_is_refused(key: str) -> None:
    with pytest.raises(InputError, match=f"{key} cannot be set here: use one of gpu_type, "):
        Order("s3://b", placement={key: "1"})


def test_several_nodes_have_the_gpus_and_the_waiting_pod_none(file: Path) -> None:
    planned = plan_runs(load_experiment(file), Order("s3://b", gpus="4", placement={"nodes": "2"}))
    asked = {(run.arguments["nodes"], run.arguments["node_gpus"], run.arguments["gpus"]) for run in planned.values()}
    assert asked == {("2", "4", "0")}


# -- sweeps

SWEEP = "sweep: {model: mlp, over: {lr: [1e-3, 1e-1, log], width: [8, 16]}, trials: 6, method: random}\n"


@pytest.fixture
def swept(file: Path) -> None:
    file.write_text(EXPERIMENT + SWEEP)


def test_sweep_without_a_baseline_on_the_cluster_is_refused(swept: None) -> None:
    with KfpServer() as server:
        done = basekamp_submit("--host", server.url, "--sweep")
    assert done.exit_code == 2
    assert "small has no baseline on the cluster" in done.output
    assert "`basekamp submit FILE --attempt baseline --wait`" in done.output
    assert not server.runs


def test_sweep_is_one_run_with_every_parameter(swept: None) -> None:
    with KfpServer() as server:
        basekamp_submit("--host", server.url, "--attempt", "baseline")
        arguments = ("--sweep", "--gpus", "1", "--set", "packs=8")
        done = basekamp_submit("--host", server.url, *arguments)
    assert done.exit_code == 0, done.output
    assert [run["display_name"] for run in server.runs.values()] == ["baseline", "sweep"]
    given = parameters(server)["sweep"]
    assert given["packs"] == 8 and given["gpus"] == given["evaluation_gpus"] == "1"
    assert json.loads(str(given["settings"]))["model"] == "mlp"
    assert json.loads(str(given["sweep"]))["over"] == {"lr": [1e-3, 1e-1, "log"], "width": [8, 16]}
    assert given["hypothesis"] == "Another choice of lr, width beats the baseline."
    assert "beside the baseline: " in done.output


def test_dry_run_of_a_sweep_prints_its_one_line(swept: None) -> None:
    done = basekamp_submit("--sweep", "--dry-run")
    assert done.exit_code == 0
    (line,) = [line for line in done.output.splitlines() if line.startswith("kfp run create")]
    assert "-r sweep" in line and "sweep.yaml" in line


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--sweep", "--attempt", "faster"], "A sweep is one run of its own: leave out --attempt and --recurring"),
        (["--sweep", "--recurring", "0 6 * * 1"], "A sweep is one run of its own"),
        (["--set", "packs=8"], "packs cannot be set here: use one of gpu_type"),
    ],
)
def test_sweep_together_with_what_it_cannot_have_is_refused(swept: None, arguments: list[str], sentence: str) -> None:
    done = basekamp_submit("--dry-run", *arguments)
    assert done.exit_code == 2 and sentence in done.output


def test_sweep_that_the_file_does_not_have_is_refused() -> None:
    done = basekamp_submit("--dry-run", "--sweep")
    assert done.exit_code == 2 and "small has no sweep: add a block such as" in done.output
