"""The command line as a user meets it: real processes, a real pipeline run, real files."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from basekamp.cluster.compiled import compiled_pipeline
from basekamp.cluster.package import declared_parameters
from basekamp.evaluation.goals import METRICS
from basekamp.naming import parse_name
from tests.kfp_server import KfpServer

BASEKAMP = Path(sys.executable).with_name("basekamp")
EXPERIMENT = """
experiment: small
data: {source: sklearn:digits, target: digit, split: {validation: 0.3, test: 0.2}}
metric: {name: accuracy}
seeds: 3
baseline: {model: linear, n_epochs: 4, batch_size: 64, lr: 1e-3}
attempts:
  faster:
    hypothesis: Ten times the learning rate learns more in four epochs.
    expect: 0.01
    lr: 1e-2
  decay:
    hypothesis: More weight decay gains ninety points. <script>alert(1)</script>
    expect: 0.9
    weight_decay: 0.01
"""


def basekamp(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BASEKAMP_", "AWS_", "MINIO_"))}
    return subprocess.run(
        [BASEKAMP, *arguments], cwd=cwd, env=kept | environment, capture_output=True, text=True, timeout=280
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder where `basekamp run small.yaml` has run once; its output is in out.txt."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "small.yaml").write_text(EXPERIMENT)
    done = basekamp("run", "small.yaml", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "out.txt").write_text(done.stdout)
    return folder


@pytest.fixture(scope="module")
def rows(place):
    return json.loads(basekamp("runs", "small.yaml", "--json", cwd=place).stdout)


def test_run_makes_baseline_first_then_each_attempt(place):
    lines = (place / "out.txt").read_text().splitlines()
    titles = [line.split(":")[0] for line in lines if line and not line.startswith(" ")]
    assert titles[:3] == ["baseline", "faster", "decay"]
    assert sum("✓ train-model" in line for line in lines) == 3
    assert sum("↺ prepare-data    reused from an earlier run" in line for line in lines) == 2


def test_run_prints_leaderboard_reports_and_the_next_command(place):
    text = (place / "out.txt").read_text()
    assert "supported" in text and "refuted" in text
    reports = [line.split(": ", 1)[1] for line in text.splitlines() if line.startswith("report of ")]
    assert len(reports) == 3 and all((place / path).is_file() for path in reports)
    assert text.splitlines()[-1] == "Next: basekamp runs small.yaml"


def test_second_run_reuses_data_training_and_baseline_and_says_so(place):
    again = basekamp("run", "small.yaml", "--attempt", "faster", cwd=place)
    assert again.returncode == 0
    assert again.stdout.startswith("baseline: reused, accuracy ")
    for step in ("prepare-data", "train-model", "evaluate-model"):
        assert f"↺ {step:<15} reused from an earlier run" in again.stdout
    listed = json.loads(basekamp("runs", "--json", cwd=place).stdout)
    assert [row["attempt"] for row in listed].count("faster") == 2
    first, second = (row for row in listed if row["attempt"] == "faster")
    assert first["verdict"] == second["verdict"] and first["metrics"] == second["metrics"]


def test_runs_json_has_the_promised_keys_and_true_types(rows):
    keys = "name experiment role attempt params metrics n spread difference interval verdict champion key lineage"
    assert [list(row) for row in rows] == [keys.split()] * len(rows)
    baseline, best = rows[0], rows[1]
    assert (baseline["role"], baseline["difference"], baseline["verdict"]) == ("baseline", None, None)
    assert (best["attempt"], best["verdict"], best["params"]["lr"], best["n"]) == ("faster", "supported", 0.01, 3)
    assert best["interval"][0] < best["difference"] < best["interval"][1]
    assert sum(row["champion"] for row in rows) == 1 and best["champion"]


def test_every_number_of_the_listing_is_in_its_record(place, rows):
    for row in rows:
        record = json.loads((place / "basekamp-store" / row["key"]).with_suffix(".json").read_text())
        assert record["name"] == row["name"]
        assert {key: record["params"][key] for key in row["params"]} == row["params"]
        for name, value in row["metrics"].items():
            assert value == pytest.approx(record["evaluation"]["metrics"][name], rel=1e-3)
        assert row["spread"] == pytest.approx(record["evaluation"]["spread"]["accuracy"], rel=1e-2)


def test_names_in_the_store_parse_to_what_the_listing_shows(rows):
    for row in rows:
        fields = parse_name(row["name"]).fields
        assert {key: fields[key] for key in row["params"] if key != "model"} == {
            key: value for key, value in row["params"].items() if key != "model"
        }


def test_runs_csv_filter_and_sort(place):
    table = basekamp("runs", "--csv", "--where", "role=attempt", "--sort", "accuracy", cwd=place).stdout.splitlines()
    column = table[0].split(",").index("accuracy")
    values = [float(line.split(",")[column]) for line in table[1:]]
    assert len(values) >= 2 and values == sorted(values, reverse=METRICS["accuracy"] == "maximize")


def test_runs_refuses_an_unknown_column(place):
    done = basekamp("runs", "--sort", "lrr", cwd=place)
    assert done.returncode == 2 and done.stderr.startswith("basekamp: lrr is no column of these records: use one of")


def test_runs_of_an_empty_store_says_what_to_do(tmp_path):
    done = basekamp("runs", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout == "No record. Next: basekamp run FILE\n"


def test_show_tells_a_record_by_name_id_and_key(place, rows):
    record_id = parse_name(rows[1]["name"]).id
    told = [basekamp("show", text, cwd=place).stdout for text in (rows[1]["name"], record_id, rows[1]["key"])]
    assert told[0] == told[1] == told[2] and told[0].startswith(rows[1]["name"])
    document = json.loads(basekamp("show", record_id, "--json", cwd=place).stdout)
    assert document["comparison"]["verdict"] == "supported" and document["opening"]["passed"] is True


def test_show_tells_how_it_ran(place, rows):
    told = basekamp("show", rows[1]["name"], cwd=place).stdout
    assert re.search(r"\n  samples per second +[0-9,]+ *\n", told)
    assert re.search(r"\n  time +[0-9.]+ s: data [0-9.]+ %, compute [0-9.]+ %, validation", told)
    document = json.loads(basekamp("show", rows[1]["name"], "--json", cwd=place).stdout)
    assert document["training"]["performance"]["samples_per_second"] > 0
    assert document["training"]["performance"]["energy_joules"] is None  # no card, so none is invented


def test_profile_writes_a_trace_beside_the_model_and_says_where(tmp_path):
    (tmp_path / "small.yaml").write_text(EXPERIMENT.partition("attempts:")[0])
    done = basekamp("run", "small.yaml", "--profile", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    told = re.search(r"^trace of baseline: \./(basekamp-store/small/baseline/.*\.gz)$", done.stdout, re.MULTILINE)
    with gzip.open(tmp_path / told[1]) as file:
        assert json.load(file)["traceEvents"]
    assert "trace.json.gz: https://ui.perfetto.dev" in next((tmp_path / ".basekamp" / "logs").glob("*.log")).read_text()
    rows = json.loads(basekamp("runs", "small.yaml", "--json", cwd=tmp_path).stdout)
    assert [row["attempt"] for row in rows] == ["baseline"]


def test_model_of_a_record_loads_with_weights_only(place, rows):
    import torch

    saved = torch.load(place / "basekamp-store" / rows[1]["key"], weights_only=True)
    assert len(saved["state_dicts"]) == rows[1]["n"]


def test_report_shows_a_hostile_hypothesis_as_text(place, rows):
    key = next(row["key"] for row in rows if row["attempt"] == "decay")
    page = (place / "basekamp-store" / key).with_suffix(".html").read_text()
    assert "<script>alert(1)" not in page and "&lt;script&gt;alert(1)" in page


def test_fallback_goes_back_to_the_baseline_and_deletes_nothing(place, rows):
    before = sorted(path.name for path in (place / "basekamp-store").rglob("*.pth"))
    told = json.loads(basekamp("fallback", "small.yaml", "--json", cwd=place).stdout)
    assert told["changed"] and told["champion"] == rows[0]["name"] and Path(told["path"]).is_file()
    assert sorted(path.name for path in (place / "basekamp-store").rglob("*.pth")) == before
    back = json.loads(basekamp("fallback", "small", "--to", rows[1]["name"], "--json", cwd=place).stdout)
    assert back["champion"] == rows[1]["name"]


def test_changed_baseline_is_refused_before_anything_runs(place):
    (place / "changed.yaml").write_text(EXPERIMENT.replace("lr: 1e-3}", "lr: 5e-3}"))
    done = basekamp("run", "changed.yaml", cwd=place)
    assert done.returncode == 2 and "the baseline of small is pinned with lr=0.001" in done.stderr


KILLED_AT_THE_MARK = """
import os, signal, sys
from basekamp.storage.folder import FolderStore
def killed(self, key, source):
    assert "/rebases/" in key
    os.kill(os.getpid(), signal.SIGKILL)
FolderStore.put = killed
from basekamp.cli import main
main(sys.argv[1:])
"""


def test_rebase_begins_anew_and_one_that_was_killed_goes_on(tmp_path):
    first = EXPERIMENT.partition("attempts:")[0]
    (tmp_path / "small.yaml").write_text(first)
    assert basekamp("run", "small.yaml", cwd=tmp_path).returncode == 0
    refused = assert_fails("rebase", "small.yaml", cwd=tmp_path)
    assert "the baseline of small is the file's already, by the same code: change its settings" in refused
    (tmp_path / "small.yaml").write_text(first.replace("lr: 1e-3", "lr: 5e-3"))
    command = [sys.executable, "-c", KILLED_AT_THE_MARK, "rebase", "small.yaml"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=280).returncode == -signal.SIGKILL
    assert "is pinned with lr=0.001" in assert_fails("run", "small.yaml", cwd=tmp_path)  # as before
    done = basekamp("rebase", "small.yaml", cwd=tmp_path)
    assert done.returncode == 0 and "train-model" not in done.stdout and "its lineage 2" in done.stdout
    listed = [json.loads(basekamp("runs", "--json", *more, cwd=tmp_path).stdout) for more in ((), ("--all",))]
    assert [[(row["params"]["lr"], row["lineage"]) for row in rows] for rows in listed] == [
        [(0.005, 2)],
        [(0.005, 2), (0.001, 1)],
    ]
    assert "lineage" in basekamp("runs", "--all", cwd=tmp_path).stdout.splitlines()[0]
    assert basekamp("run", "small.yaml", cwd=tmp_path).stdout.startswith("baseline: reused")


UNDECIDED = """
experiment: undecided
data: {source: sklearn:digits, target: digit, split: {validation: 0.3, test: 0.2}}
metric: {name: accuracy}
baseline: {model: majority}
attempts:
  short: {hypothesis: A few steps are better than none., expect: 0.05, model: linear, n_epochs: 1, lr: 1e-3}
"""


def test_until_decided_looks_again_with_more_seeds_and_counts_the_look(tmp_path):
    (tmp_path / "undecided.yaml").write_text(UNDECIDED.replace("lr: 1e-3", "lr: 1e-3, batch_size: 64"))
    done = basekamp("run", "undecided.yaml", "--until-decided", "12", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    seeds = int(re.search(r"short: undecided with 3 seeds, once more with (\d+)\n", done.stdout)[1])
    rows = json.loads(basekamp("runs", "undecided.yaml", "--sort", "n", "--json", cwd=tmp_path).stdout)[1:]
    assert [(row["n"], row["verdict"]) for row in rows] == [(3, "inconclusive"), (seeds, "supported")]
    records = [json.loads(basekamp("show", row["key"], "--json", cwd=tmp_path).stdout) for row in rows]
    assert [record["comparison"]["judged_before"] for record in records] == [0, 1]


def assert_fails(*arguments: str, cwd: Path) -> str:
    done = basekamp(*arguments, cwd=cwd)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stdout + done.stderr
    return done.stderr


def test_another_question_is_no_rebase(place):
    (place / "other.yaml").write_text(EXPERIMENT.replace("name: accuracy", "name: f1"))
    told = assert_fails("rebase", "other.yaml", cwd=place)
    assert told.startswith("basekamp: metric=f1 is another question than the one of small, and a rebase keeps the")
    assert "is pinned with metric=accuracy" in assert_fails("run", "other.yaml", cwd=place)


BAD_FILES = {
    "missing target column": ({"target: digit": "target: digits"}, "digits"),
    "unknown key": ({"seeds: 3": "seed: 3"}, "did you mean seeds?"),
    "unknown model": ({"model: linear": "model: liner"}, "linear"),
    "n_layers 0": (
        {"lr: 1e-2": "model: mlp\n    n_layers: 0"},
        "n_layers=0 is not allowed: use 1 or more, or model: linear",
    ),
    "unknown source": ({"sklearn:digits": "sklearn:digit"}, "sklearn:digit"),
    "unknown metric": ({"name: accuracy": "name: acuracy"}, "accuracy"),
}


@pytest.mark.parametrize("changes, said", BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_experiment_file_is_one_sentence(tmp_path, changes, said):
    text = EXPERIMENT
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "bad.yaml").write_text(text)
    assert_refused(tmp_path, "run", "bad.yaml", said=said)


BAD_DATA = {
    "target with one class": ("x,y\n" + "".join(f"{n},a\n" for n in range(200)), "single value"),
    "empty file": ("", "empty"),
    "header only": ("x,y\n", "no row"),
    "ragged csv": ("x,y\n1,a\n2,b,c\n", "line 3"),
    "mostly missing target": ("x,y\n" + "".join(f"{n},\n" for n in range(200)), "no value"),
}


@pytest.mark.parametrize("data, said", BAD_DATA.values(), ids=BAD_DATA.keys())
def test_bad_data_is_one_sentence(tmp_path, data, said):
    (tmp_path / "data.csv").write_text(data)
    (tmp_path / "bad.yaml").write_text(
        EXPERIMENT.replace("sklearn:digits", "data.csv").replace("target: digit", "target: y")
    )
    assert_refused(tmp_path, "run", "bad.yaml", said=said)


def test_unwritable_store_is_one_sentence(tmp_path):
    (tmp_path / "small.yaml").write_text(EXPERIMENT)
    (tmp_path / "file").write_text("in the way")
    assert_refused(tmp_path, "run", "small.yaml", "--store", "file/store", said="file/store")


def test_dead_s3_endpoint_is_one_sentence(tmp_path):
    keys = {"AWS_ACCESS_KEY_ID": "an-id", "AWS_SECRET_ACCESS_KEY": "a-secret-word"}
    environment = {"BASEKAMP_S3_ENDPOINT": "http://127.0.0.1:9", **keys}
    done = assert_refused(tmp_path, "runs", "s3://bucket", said="http://127.0.0.1:9", **environment)
    assert "a-secret-word" not in done.stdout + done.stderr


def test_unknown_attempt_is_one_sentence(tmp_path):
    (tmp_path / "small.yaml").write_text(EXPERIMENT)
    assert_refused(tmp_path, "run", "small.yaml", "--attempt", "fastr", said="did you mean faster?")


def test_gpu_that_is_missing_is_one_sentence(tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    (tmp_path / "small.yaml").write_text(EXPERIMENT)
    assert_refused(tmp_path, "run", "small.yaml", "--gpus", "1", said='use gpus="0"')


def assert_refused(folder: Path, *arguments: str, said: str, **environment: str) -> subprocess.CompletedProcess[str]:
    done = basekamp(*arguments, cwd=folder, **environment)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and done.stderr.startswith("basekamp: ")
    assert not [path for path in folder.rglob("*") if path.suffix in {".pth", ".npz", ".html"} and "store" in str(path)]
    return done


def test_check_names_experiment_and_next_command(place):
    done = basekamp("check", "small.yaml", cwd=place)
    assert done.stdout == "small.yaml is sound: small, accuracy, 2 attempts.\nNext: basekamp run small.yaml\n"


def test_name_parse_and_format_are_inverse(tmp_path):
    names = [
        "model.n_layers-10.n_epochs-100.act-leaky_relu.loss-0.0312.accuracy-98.1.pth",
        "m.ok-true.id-r6fhjqmz5s0ae.pth",
    ]
    parsed = basekamp("name", "parse", *names, "--json", cwd=tmp_path).stdout
    first = json.loads(parsed.splitlines()[0])
    fields = {"n_layers": 10, "n_epochs": 100, "act": "leaky_relu", "loss": 0.0312, "accuracy": 98.1}
    assert first == {"model": "model", "fields": fields, "extension": "pth", "id": None, "cut": 0}
    written = subprocess.run([BASEKAMP, "name", "format"], input=parsed, capture_output=True, text=True, cwd=tmp_path)
    assert written.stdout.splitlines() == names


def test_name_parse_reads_an_alias(tmp_path):
    done = basekamp("name", "parse", "m.act-relu.pth", "--alias", "act=act_func", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["fields"] == {"act_func": "relu"}


@pytest.mark.parametrize("text", ["no_extension", "a/b.n-1.pth", ".hidden.pth"])
def test_name_that_does_not_parse_is_one_sentence(tmp_path, text):
    done = basekamp("name", "parse", text, cwd=tmp_path)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("text", ["not json", "[1]", '{"fields": {}}', '{"model": "m", "fields": {"a b": 1}}'])
def test_json_that_is_no_name_is_one_sentence(tmp_path, text):
    done = subprocess.run([BASEKAMP, "name", "format"], input=text, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("basekamp: ") and "Traceback" not in done.stderr


def test_submit_sends_every_parameter_and_waits_with_a_true_exit_code(tmp_path):
    (tmp_path / "small.yaml").write_text(EXPERIMENT)
    with KfpServer() as server:
        done = basekamp("submit", "small.yaml", "--host", server.url, "--wait", "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        sent = [run["runtime_config"]["parameters"] for run in server.runs.values()]
    assert [run["run_name"] for run in told] == ["baseline", "faster", "decay"]
    assert {run["state"] for run in told} == {"SUCCEEDED"}
    assert [parameters["lr"] for parameters in sent] == [0.001, 0.01, 0.001]
    assert {frozenset(parameters) for parameters in sent} == {frozenset(declared_parameters(compiled_pipeline()))}
    assert {parameters["gpus"] for parameters in sent} == {"0"}


def test_submit_reports_a_failed_baseline(tmp_path):
    (tmp_path / "small.yaml").write_text(EXPERIMENT)
    with KfpServer(outcome="FAILED") as server:
        done = basekamp("submit", "small.yaml", "--host", server.url, cwd=tmp_path)
    assert done.returncode == 2 and "the baseline ended as FAILED" in done.stderr


def test_submit_refuses_a_store_that_a_cluster_cannot_reach(tmp_path):
    (tmp_path / "small.yaml").write_text(EXPERIMENT)
    assert_refused(tmp_path, "submit", "small.yaml", "--host", "http://127.0.0.1:9", "--store", "./here", said="./here")


def test_sweep_makes_a_record_on_fresh_seeds_and_a_report_of_all_trials(place):
    sweep = "sweep: {model: mlp, n_layers: 1, over: {lr: [1e-3, 3e-2, log], width: [8, 16]}, trials: 6, method: tpe}\n"
    (place / "swept.yaml").write_text(EXPERIMENT + sweep)
    refused = basekamp("sweep", "swept.yaml", "--store", "elsewhere", cwd=place)
    assert refused.returncode == 2
    assert "small has no baseline in " in refused.stderr and "`basekamp run FILE --attempt baseline`" in refused.stderr
    done = basekamp("sweep", "swept.yaml", cwd=place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("✓ train-trials") == 5 and "Next: basekamp runs swept.yaml" in done.stdout
    told = dict(line.split(": ", 1) for line in done.stdout.splitlines() if line.startswith("report of "))
    assert (place / told["report of all trials"]).read_text().count("<polyline") >= 6
    record = json.loads((place / told["report of sweep"]).with_suffix(".json").read_text())
    assert [replicate["seed"] for replicate in record["training"]["replicates"]] == [1000, 1001, 1002]
    assert record["params"]["model"] == "mlp" and record["hypothesis"].startswith("Another choice of lr, width")
    (trials,) = (place / "basekamp-store/small/sweeps").glob("*/trials")
    before = sorted(path.name for path in trials.iterdir())
    assert len(before) == 6
    again = basekamp("sweep", "swept.yaml", cwd=place)
    assert again.returncode == 0, again.stderr
    assert sorted(path.name for path in trials.iterdir()) == before
    assert "no record's name" not in basekamp("runs", cwd=place).stderr
