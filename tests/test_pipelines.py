import copy
import json

import pytest
import yaml

from basekamp.cluster.arguments import typed_arguments
from basekamp.cluster.compiled import compiled_pipeline
from basekamp.cluster.plan import pipeline_values, sweep_values
from basekamp.experiment import load_experiment
from basekamp.models.source import code_version
from basekamp.sweeps.rounds import MOST_PACKS, ROUNDS
from basekamp.sweeps.trials import TRIAL_SEED
from pipelines.compile import main, stale


@pytest.fixture(scope="module")
def documents():
    pipeline, platform = yaml.safe_load_all(compiled_pipeline().read_text())
    return pipeline, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def test_committed_yaml_is_fresh():
    assert stale() == []


def test_check_tells_of_stale_yaml(monkeypatch, tmp_path, capsys):
    (tmp_path / "train_and_compare.yaml").write_text("old")
    monkeypatch.setattr("pipelines.compile.FOLDER", tmp_path)
    assert main(["--check"]) == 1
    assert "stale: train_and_compare.yaml, sweep.yaml: run `basekamp compile`." in capsys.readouterr().out


def test_every_parameter_is_described(documents):
    parameters = documents[0]["root"]["inputDefinitions"]["parameters"]
    assert [name for name, told in parameters.items() if not told.get("description")] == []


def test_gpus_cpu_and_memory_are_string_parameters_of_the_steps_that_use_them(documents):
    pipeline, _ = documents
    parameters = pipeline["root"]["inputDefinitions"]["parameters"]
    resources = ("gpus", "gpu_type", "evaluation_gpus", "cpu", "memory")
    assert {parameters[name]["parameterType"] for name in resources} == {"STRING"}
    executors = pipeline["deploymentSpec"]["executors"]
    counts = {"train-model": "gpus", "evaluate-model": "evaluation_gpus", "compare-models": "evaluation_gpus"}
    for step, count in counts.items():
        accelerator = executors[f"exec-{step}"]["container"]["resources"]["accelerator"]
        assert accelerator["resourceType"].endswith("--gpu_type']}}") and f"--{count}'" in accelerator["resourceCount"]
    for executor in executors.values():
        asked = executor["container"]["resources"]
        assert "--memory'" in asked["resourceMemoryLimit"] and "--cpu'" in asked["resourceCpuRequest"]


def test_nothing_trains_before_the_data_are_checked(documents, sweep_documents):
    tasks = documents[0]["root"]["dag"]["tasks"]
    assert "check-data" in tasks["train-model"]["dependentTasks"]
    assert "check-data" in sweep_documents[0]["root"]["dag"]["tasks"]["plan-sweep"]["dependentTasks"]


def test_training_is_retried_and_placed_by_parameters(documents):
    pipeline, executors = documents
    assert pipeline["root"]["dag"]["tasks"]["train-model"]["retryPolicy"]["maxRetryCount"] == 2
    training = executors["exec-train-model"]
    assert training["nodeSelector"]["nodeSelectorJson"]["componentInputParameter"] == "node_selector"
    assert training["tolerations"][0]["tolerationJson"]["componentInputParameter"] == "tolerations"


def test_shared_memory_is_mounted_where_torch_trains(documents):
    mounts = documents[1]["exec-train-model"]["emptyDirMounts"]
    assert [(mount["mountPath"], mount["medium"]) for mount in mounts] == [("/dev/shm", "Memory")]


def test_credentials_come_from_the_clusters_secret_only(documents):
    for name in ("exec-prepare-data", "exec-check-data", "exec-train-model", "exec-compare-models"):
        secret, *of_trackers = documents[1][name]["secretAsEnv"]
        assert secret["secretName"] == "mlpipeline-minio-artifact"
        trackers = [] if name in ("exec-prepare-data", "exec-check-data") else [("basekamp-tracking", True)]
        assert [(each["secretName"], each["optional"]) for each in of_trackers] == trackers
    containers = [executor["container"] for executor in documents[0]["deploymentSpec"]["executors"].values()]
    assert all("env" not in container for container in containers)


def test_what_looks_into_the_store_is_never_cached(documents):
    tasks = documents[0]["root"]["dag"]["tasks"]
    cached = {name: task.get("cachingOptions", {}).get("enableCache", False) for name, task in tasks.items()}
    assert {name for name, is_cached in cached.items() if not is_cached} == {"check-data", "compare-models"}
    assert len(cached) == 6


@pytest.mark.parametrize("file", ["examples/digits.yaml", "examples/flights.yaml"])
def test_every_parameter_of_every_attempt_is_passed_explicitly(file):
    experiment = load_experiment(file)
    package = compiled_pipeline()
    declared = next(yaml.safe_load_all(package.read_text()))["root"]["inputDefinitions"]["parameters"]
    for attempt in ["baseline", *experiment.attempts]:
        values = pipeline_values(experiment, attempt, store="s3://bucket", data_fingerprint="f")
        assert values.keys() == declared.keys()
        assert typed_arguments(package, values) == values


def test_code_version_follows_the_users_own_module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = tmp_path / "my_models.py"
    module.write_text("def build(): ...\n")
    before = code_version("my_models:build")
    assert before == code_version("my_models:build") != code_version("mlp")
    module.write_text("def build(): return None\n")
    assert code_version("my_models:build") != before


def test_typed_arguments_leave_the_values_alone():
    values = pipeline_values(load_experiment("examples/digits.yaml"), "baseline", store="s3://b", data_fingerprint="")
    kept = copy.deepcopy(values)
    typed_arguments(compiled_pipeline(), values)
    assert values == kept


# -- the sweep


@pytest.fixture(scope="module")
def sweep_documents():
    pipeline, platform = yaml.safe_load_all(compiled_pipeline("sweep").read_text())
    return pipeline, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def test_every_parameter_of_a_sweep_is_described_and_passed_explicitly(sweep_documents):
    declared = sweep_documents[0]["root"]["inputDefinitions"]["parameters"]
    assert [name for name, told in declared.items() if not told.get("description")] == []
    values = sweep_values(load_experiment("examples/digits.yaml"), store="s3://bucket", data_fingerprint="f")
    assert values.keys() == declared.keys()
    assert typed_arguments(compiled_pipeline("sweep"), values) == values
    assert json.loads(values["settings"])["width"] == 32 and json.loads(values["sweep"])["trials"] == 48


def test_largest_sweep_has_at_most_100_artifacts(sweep_documents):
    """Each task leaves its outputs and its log; a loop runs its tasks for each of at most 12 packs."""
    pipeline, _ = sweep_documents

    def artifacts(dag, times):
        count = 0
        for task in dag["tasks"].values():
            component = pipeline["components"][task["componentRef"]["name"]]
            if "dag" in component:
                count += artifacts(component["dag"], times * (MOST_PACKS if "parameterIterator" in task else 1))
            else:
                count += times * (1 + len(component.get("outputDefinitions", {}).get("artifacts", {})))
        return count

    assert 5 * 12 < artifacts(pipeline["root"]["dag"], 1) <= 100


def test_rounds_of_a_sweep_follow_each_other(sweep_documents):
    tasks = sweep_documents[0]["root"]["dag"]["tasks"]
    plans = [name for name in tasks if name.startswith("plan-sweep")]
    assert len(plans) == ROUNDS
    for number, name in enumerate(plans[1:], 1):
        assert f"for-loop-{number}" in tasks[name]["dependentTasks"]
    assert f"for-loop-{ROUNDS}" in tasks["conclude-sweep"]["dependentTasks"]


def test_packs_of_a_sweep_have_their_gpu_their_nodes_and_the_store(sweep_documents):
    pipeline, executors = sweep_documents
    asked = pipeline["deploymentSpec"]["executors"]["exec-train-trials"]["container"]["resources"]
    assert "--gpus'" in asked["accelerator"]["resourceCount"] and "--memory'" in asked["resourceMemoryLimit"]
    given = executors["exec-train-trials"]
    assert given["nodeSelector"]["nodeSelectorJson"]["componentInputParameter"] == "pipelinechannel--node_selector" or (
        given["nodeSelector"]["nodeSelectorJson"]["componentInputParameter"] == "node_selector"
    )
    assert given["secretAsEnv"][0]["secretName"] == "mlpipeline-minio-artifact"
    loop = pipeline["components"]["comp-for-loop-1"]
    passed = set(loop["dag"]["tasks"]["train-pack"]["inputs"]["parameters"])
    assert {"gpu_type", "cpu", "memory", "node_selector", "tolerations"} <= passed


def test_winner_of_a_sweep_is_trained_on_fresh_seeds(sweep_documents):
    tasks = sweep_documents[0]["root"]["dag"]["tasks"]
    given = tasks["train-model"]["inputs"]["parameters"]
    assert given["first_seed"]["runtimeValue"]["constant"] > TRIAL_SEED
    assert given["overrides"]["taskOutputParameter"]["producerTask"] == "conclude-sweep"


def test_what_depends_on_the_store_is_never_cached(sweep_documents):
    pipeline, _ = sweep_documents
    tasks = {**pipeline["root"]["dag"]["tasks"], **pipeline["components"]["comp-train-pack"]["dag"]["tasks"]}
    names = [name for name in tasks if name.startswith(("plan-sweep", "train-trials", "conclude", "compare"))]
    assert len(names) == ROUNDS + 3
    assert [name for name in names if tasks[name].get("cachingOptions", {}).get("enableCache")] == []
