import copy

import pytest
import yaml

from basekamp.cluster.arguments import typed_arguments
from basekamp.cluster.compiled import compiled_pipeline
from basekamp.cluster.plan import pipeline_values
from basekamp.experiment import load_experiment
from basekamp.models.source import code_version
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
    for name in ("exec-prepare-data", "exec-train-model", "exec-compare-models"):
        (secret,) = documents[1][name]["secretAsEnv"]
        assert secret["secretName"] == "mlpipeline-minio-artifact"
    containers = [executor["container"] for executor in documents[0]["deploymentSpec"]["executors"].values()]
    assert all("env" not in container for container in containers)


def test_compare_models_is_never_cached(documents):
    tasks = documents[0]["root"]["dag"]["tasks"]
    cached = {name: task.get("cachingOptions", {}).get("enableCache", False) for name, task in tasks.items()}
    assert {name for name, is_cached in cached.items() if not is_cached} == {"compare-models"}
    assert len(cached) == 5


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
