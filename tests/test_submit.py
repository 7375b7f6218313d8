import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kfp.cli.run import create
from kfp.cli.utils.parsing import parse_parameter_value

import basekamp.cluster.endpoint as endpoint
import basekamp.cluster.follow as following
import basekamp.cluster.submit as submission
from basekamp.cluster.access import Access
from basekamp.cluster.arguments import kfp_command, typed_arguments
from basekamp.cluster.compiled import compiled_pipeline
from basekamp.cluster.endpoint import Endpoint
from basekamp.cluster.follow import failure, wait
from basekamp.cluster.submit import Submitted, schedule, submit, succeeded_run
from basekamp.errors import BasekampError, InputError
from tests.kfp_server import KfpServer

KFP = Path(sys.executable).with_name("kfp")
SECRET = "s3cr3t-token"
DEFAULTS = {
    "b": True,
    "d": {"k": 1.0},
    "gpus": "1",
    "l": [1.0, "a"],
    "n": 3,
    "name": "digits",
    "x": 0.5,
}


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compiled") / "types.yaml"
    program = """
import sys, typing
from kfp import compiler, dsl

@dsl.component(base_image="python:3.11", install_kfp_package=False)
def show(a: str, n: int, x: float, b: bool, l: list, d: dict, gpus: str):
    print(a, n, x, b, l, d, gpus)

@dsl.component(base_image="python:3.11", install_kfp_package=False)
def judge(name: str):
    print(name)

@dsl.pipeline(name="types")
def types(name: str, n: int = 3, x: float = 0.5, b: bool = True, l: list = [1, "a"], d: dict = {"k": 1},
          gpus: str = "1", note: typing.Optional[str] = None):
    shown = show(a=name, n=n, x=x, b=b, l=l, d=d, gpus=gpus)
    judge(name=name).after(shown)

compiler.Compiler().compile(types, sys.argv[1])
"""
    source = path.with_name("pipeline_of_all_types.py")
    source.write_text(program)
    subprocess.run([sys.executable, "-W", "ignore", source, path], check=True)
    return path


@pytest.fixture(autouse=True)
def _no_user_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith(("KF_", "KFP_", "SSL_CERT"))]:
        monkeypatch.delenv(name)


def _endpoint(host: str, token: str = "", namespace: str = "") -> Endpoint:
    return Access(host=host, token=token, namespace=namespace).connect()


def _submit(package: Path, host: str, *, token: str = "", namespace: str = "", **options: object) -> Submitted:
    settings: dict = {"experiment": "flights", "run_name": "deeper", **options}
    values = settings.pop("values", {"name": "digits"})
    return submit(package, values, endpoint=_endpoint(host, token, namespace), **settings)


# -- arguments


def test_typed_arguments_gives_every_parameter(package: Path) -> None:
    arguments = typed_arguments(package, {"name": "digits"})
    assert arguments == DEFAULTS
    assert type(arguments["n"]) is int


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("gpus", 1, "1"),
        ("gpus", 1e-05, "1e-05"),
        ("gpus", True, "true"),
        ("gpus", "", ""),
        ("note", "seen", "seen"),
        ("n", "3", 3),
        ("n", 4.0, 4),
        ("n", "1e3", 1000),
        ("n", -(2**53), -(2**53)),
        ("x", "1e-3", 0.001),
        ("x", 2, 2.0),
        ("b", "False", False),
        ("l", (1, 2), [1, 2]),
        ("l", "[1, 2]", [1, 2]),
        ("d", '{"a": null}', {"a": None}),
    ],
)
def test_typed_arguments_converts_to_declared_type(package: Path, name: str, value: object, expected: object) -> None:
    converted = typed_arguments(package, {"name": "digits", name: value})[name]
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("n", 3.5, "n=3.5 is not allowed: the pipeline takes a whole number"),
        ("n", "three", "n='three' is not allowed: the pipeline takes a whole number"),
        ("n", True, "n=True is not allowed: the pipeline takes a whole number"),
        ("n", 2**53 + 1, r"a whole number of at most 2\^53"),
        ("n", float("nan"), "n=nan is not allowed"),
        ("n", float("inf"), "n=inf is not allowed"),
        ("n", None, "n=None is not allowed"),
        ("x", float("inf"), "x=inf is not allowed: the pipeline takes a finite number"),
        ("x", True, "x=True is not allowed: the pipeline takes a finite number"),
        ("x", 10**400, "the pipeline takes a finite number"),
        ("b", 1, "b=1 is not allowed: the pipeline takes true or false"),
        ("l", {"a": 1}, "the pipeline takes a list of JSON values"),
        ("l", "[1", "l='\\[1' is not allowed"),
        ("l", [float("nan")], "l=\\[nan\\] is not allowed"),
        ("d", [1], "the pipeline takes a mapping of JSON values"),
        ("d", {"a": object}, "the pipeline takes a mapping of JSON values"),
        ("name", ["a" * 100], r"name=\['a{60,75}\.\.\. is not allowed: the pipeline takes text"),
        ("name", None, "name=None is not allowed: the pipeline takes text"),
    ],
)
def test_typed_arguments_refuses_other_type(package: Path, name: str, value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        typed_arguments(package, {"name": "digits", name: value})


def test_typed_arguments_unknown_name_shows_nearest(package: Path) -> None:
    with pytest.raises(InputError, match=r"gpu is not a parameter of .*types\.yaml: did you mean gpus\?"):
        typed_arguments(package, {"name": "digits", "gpu": 1})


def test_typed_arguments_unlike_name_lists_all(package: Path) -> None:
    with pytest.raises(InputError, match="it has b, d, gpus, l, n, name, note, x"):
        typed_arguments(package, {"zzzzzz": 1})


def test_typed_arguments_missing_required_refused(package: Path) -> None:
    with pytest.raises(InputError, match="name is missing: .* gives it no default, so pass a value"):
        typed_arguments(package, {})


@pytest.mark.parametrize("content", ["", "[1]", "a: 1", "root: [", "root: 3", "\x00"])
def test_typed_arguments_other_file_refused(tmp_path: Path, content: str) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(content)
    with pytest.raises(InputError, match=r"other\.yaml is not a compiled pipeline"):
        typed_arguments(other, {})


def test_typed_arguments_no_file_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read .No such file"):
        typed_arguments(tmp_path / "none.yaml", {})


def test_typed_arguments_strange_type_refused(tmp_path: Path) -> None:
    strange = tmp_path / "strange.yaml"
    strange.write_text("root: {inputDefinitions: {parameters: {s: {parameterType: TASK_FINAL_STATUS}}}}")
    with pytest.raises(InputError, match="s has the type TASK_FINAL_STATUS: a pipeline takes STRING"):
        typed_arguments(strange, {"s": 1})


def _read_by_kfp(command: str) -> dict[str, object]:
    words = shlex.split(command)
    assert words[:3] == ["kfp", "run", "create"]
    read = create.make_context("create", words[3:]).params
    pairs = (word.split("=", maxsplit=1) for word in read["args"])
    return {"": read, **{name: parse_parameter_value(text) for name, text in pairs}}


@pytest.mark.parametrize(
    "text",
    ["1", "1.0", "-3", "1e-05", "1_0", "nan", "inf", "NaN", "Infinity", "true", "FALSE", "null", "[1]", "{}"]
    + ['"a"', " 1 ", "", "a b", "it's", "a=b", "$HOME", "-x", "s3://b/k", "line\nbreak", "résumé", "python3"],
)
def test_kfp_command_keeps_string(package: Path, text: str) -> None:
    arguments = typed_arguments(package, {"name": text})
    read = _read_by_kfp(kfp_command(package, arguments, experiment="my flights", run_name="it's deep"))
    chosen = read.pop("")
    assert read == arguments
    assert {name: type(value) for name, value in read.items()} == {k: type(v) for k, v in arguments.items()}
    assert (chosen["experiment_name"], chosen["run_name"]) == ("my flights", "it's deep")
    assert chosen["package_file"] == str(package)


@given(
    st.dictionaries(
        st.from_regex(r"[a-z_]{1,8}", fullmatch=True),
        st.text() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
        | st.booleans() | st.lists(st.text() | st.integers()) | st.dictionaries(st.text(), st.booleans()),
    )
)  # fmt: skip
def test_kfp_command_keeps_any_value(arguments: dict[str, object]) -> None:
    words = shlex.split(kfp_command(Path("p.yaml"), arguments, experiment="e", run_name="r"))[9:]
    pairs = dict(word.split("=", maxsplit=1) for word in words)
    read = {name: parse_parameter_value(text) for name, text in pairs.items()}
    assert read == arguments
    assert {name: type(value) for name, value in read.items()} == {k: type(v) for k, v in arguments.items()}


# -- submit


def test_submit_passes_every_parameter_explicitly(package: Path) -> None:
    with KfpServer() as server:
        done = _submit(package, server.url + "/", values={"name": "digits", "gpus": 2, "n": "7"})
        run = server.runs[done.run_id]
    assert run["runtime_config"]["parameters"] == DEFAULTS | {"gpus": "2", "n": 7}
    assert run["display_name"] == done.run_name == "deeper"
    assert server.experiments[done.experiment_id]["display_name"] == "flights"
    assert done.url == f"{server.url}/#/runs/details/{done.run_id}"


def test_submit_prints_nothing(package: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with KfpServer() as server:
        _submit(package, server.url)
    assert capfd.readouterr() == ("", "")


def test_submit_taken_name_gets_next_number(package: Path) -> None:
    with KfpServer() as server:
        names = [_submit(package, server.url).run_name for _ in range(3)]
        other = _submit(package, server.url, experiment="digits").run_name
    assert names == ["deeper", "deeper-2", "deeper-3"]
    assert other == "deeper"
    assert len(server.experiments) == 2


def test_submit_finds_free_name_over_pages(package: Path) -> None:
    with KfpServer() as server:
        experiment_id = _submit(package, server.url).experiment_id
        for n in range(2, 451):
            name = f"deeper-{n}"
            server.runs[name] = {"run_id": name, "display_name": name, "experiment_id": experiment_id}
        assert _submit(package, server.url).run_name == "deeper-451"


def test_submit_token_accepted(package: Path) -> None:
    with KfpServer(token=SECRET) as server:
        assert _submit(package, server.url, token=SECRET + "\n").run_name == "deeper"


@pytest.mark.parametrize("token", ["", "wrong-" + SECRET])
def test_submit_bad_token_refused(package: Path, token: str) -> None:
    with KfpServer(token=SECRET) as server, pytest.raises(BasekampError) as caught:
        _submit(package, server.url, token=token)
    assert str(caught.value).startswith(f"{server.url} denies access (401: Unauthenticated")
    assert "give a valid token or cookie file" in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("token", ["Bearer " + SECRET, SECRET + "\r\nX-Evil: 1", "schlüssel-" + SECRET])
def test_submit_malformed_token_refused(package: Path, token: str) -> None:
    with (
        KfpServer() as server,
        pytest.raises(InputError, match="token holds a space, a line break") as caught,
    ):
        _submit(package, server.url, token=token)
    assert SECRET not in str(caught.value)


def test_submit_namespace_reaches_experiment(package: Path) -> None:
    with KfpServer(namespaces=("team-a",)) as server:
        done = _submit(package, server.url, namespace="team-a")
    assert server.experiments[done.experiment_id]["namespace"] == "team-a"


def test_submit_namespace_from_pod(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "namespace").write_text("team-a\n")
    monkeypatch.setattr(submission, "_POD_NAMESPACE", tmp_path / "namespace")
    with KfpServer(namespaces=("team-a",)) as server:
        done = _submit(package, server.url)
    assert server.experiments[done.experiment_id]["namespace"] == "team-a"


def test_submit_namespace_from_kfp_context(package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import kfp

    (tmp_path / "context.json").write_text('{"namespace": "team-a"}')
    monkeypatch.setattr(kfp.Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    with KfpServer(namespaces=("team-a",)) as server:
        done = _submit(package, server.url)
    assert server.experiments[done.experiment_id]["namespace"] == "team-a"


@pytest.mark.parametrize(
    ("namespaces", "namespace", "message"),
    [
        (("team-a",), "team-b", r"denies access \(403: .*team-b\): .* a namespace that it may use"),
        (("team-a",), "", "serves several namespaces: say which one"),
        ((), "team-a", r"refuses the run's arguments or namespace \(400: .*single-user mode\)"),
    ],
)
def test_submit_bad_namespace_refused(package: Path, namespaces: tuple[str, ...], namespace: str, message: str) -> None:
    with KfpServer(namespaces=namespaces) as server, pytest.raises(BasekampError, match=message) as caught:
        _submit(package, server.url, namespace=namespace)
    assert str(caught.value).startswith(server.url)
    assert server.runs == {}


def test_submit_bad_value_refused_before_sending(package: Path) -> None:
    with KfpServer() as server, pytest.raises(InputError, match=r"n=3\.5 is not allowed"):
        _submit(package, server.url, values={"name": "digits", "n": 3.5})
    assert server.experiments == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": 1}, r"input parameter name requires type STRING\): correct them"),
        ({"name": "a", "gpus": 1}, "input parameter gpus requires type STRING"),
        ({"name": "a", "n": 3.5}, "input parameter n requires type NUMBER_INTEGER"),
        ({"name": "a", "n": "3"}, "input parameter n requires type NUMBER_INTEGER"),
        ({"name": "a", "n": True}, "input parameter n requires type NUMBER_INTEGER"),
        ({"name": "a", "x": "0.5"}, "input parameter x requires type NUMBER_DOUBLE"),
        ({"name": "a", "x": float("nan")}, "unexpected token NaN"),
        ({"name": "a", "b": 1}, "input parameter b requires type BOOLEAN"),
        ({"name": "a", "l": "[]"}, "input parameter l requires type LIST"),
        ({"name": "a", "d": []}, "input parameter d requires type STRUCT"),
        ({}, "parameter name has neither default nor value"),
        ({"name": "a", "zz": 1}, "the pipeline has no parameter zz"),
    ],
)
def test_submit_reports_server_refusal(
    package: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, object], message: str
) -> None:
    monkeypatch.setattr(submission, "typed_arguments", lambda package, values: dict(values))
    with KfpServer() as server, pytest.raises(InputError, match=message) as caught:
        _submit(package, server.url, values=arguments)
    assert str(caught.value).startswith(f"{server.url} refuses the run's arguments or namespace (400: ")
    assert server.runs == {}


def test_submit_dead_port_refused(package: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(BasekampError, match=f"{url} cannot be reached .Connection refused.: check the address"):
        _submit(package, url)
    assert capfd.readouterr() == ("", "")


def test_submit_silent_endpoint_refused(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(BasekampError, match=f"{url} cannot be reached"):
            _submit(package, url)


def _other_server(status: int, kind: str, content: str) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Location", "http://127.0.0.1:1/login?state=" + SECRET)
            self.end_headers()
            self.wfile.write(content.encode())

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server


@pytest.mark.parametrize(
    ("status", "kind", "content", "message"),
    [
        (200, "text/html", "<html>login</html>", "is not a Kubeflow Pipelines API .it answers with a page"),
        (200, "application/json", '{"hello": 1}', "is not a Kubeflow Pipelines API"),
        (200, "application/json", "not json", "is not a Kubeflow Pipelines API"),
        (200, "application/json", "[1]", "is not a Kubeflow Pipelines API"),
        (302, "text/html", "", "is not a Kubeflow Pipelines API .it answers with 302"),
        (404, "text/html", "<html>none</html>", "is not a Kubeflow Pipelines API .it answers with 404"),
        (403, "text/html", "<html>no</html>", r"denies access \(403\): give a valid token"),
        (403, "application/json", f'{{"message": "{SECRET} is bad"}}', r"\(403: \*\*\* is bad\)"),
        (400, "application/json", '{"error": "' + "a" * 999 + '"}', r"\(400: a{297}\.\.\.\)"),
        (409, "application/json", '{"message": "exists"}', r"refuses the request \(409: exists\): correct"),
        (429, "text/plain", "slowly", r"fails to answer \(429\): try again"),
        (500, "text/plain", "boom", r"fails to answer \(500\): try again"),
    ],
)
def test_submit_other_server_refused(package: Path, status: int, kind: str, content: str, message: str) -> None:
    server = _other_server(status, kind, content)
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        with pytest.raises(BasekampError, match=message) as caught:
            _submit(package, url, token=SECRET)
    finally:
        server.shutdown()
        server.server_close()
    assert str(caught.value).startswith(url)
    assert SECRET not in str(caught.value)


def test_submit_wrong_path_refused(package: Path) -> None:
    with KfpServer() as server, pytest.raises(BasekampError, match="/wrong is not a Kubeflow Pipelines API"):
        _submit(package, server.url + "/wrong")


def test_submit_browser_address_accepted(package: Path) -> None:
    with KfpServer() as server:
        assert _submit(package, server.url + "/#/experiments").url.startswith(server.url + "/#/runs/")


@pytest.mark.parametrize("host", ["#", "localhost:8080", "ftp://kfp", "http://", "http://[::1", "http://kfp:ten"])
def test_submit_bad_address_refused(package: Path, host: str) -> None:
    with pytest.raises(InputError, match="is not an endpoint: give its full address"):
        _submit(package, host)


def test_submit_password_in_address_refused(package: Path) -> None:
    with pytest.raises(InputError, match="holds a user name or password: give a token") as caught:
        _submit(package, f"http://me:{SECRET}@localhost")
    assert SECRET not in str(caught.value)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    made = subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "-", "-subj", "/CN=127.0.0.1"]
        + ["-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"],
        check=True,
        capture_output=True,
    )
    path.write_bytes(made.stdout)
    return path


def test_submit_unknown_certificate_refused(package: Path, certificate: Path) -> None:
    with (
        KfpServer(certificate=certificate) as server,
        pytest.raises(BasekampError, match=f"{server.url} cannot be trusted .*SSL_CERT_FILE"),
    ):
        _submit(package, server.url)


def test_submit_own_certificate_accepted(package: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with KfpServer(certificate=certificate) as server:
        assert _submit(package, server.url).url.startswith("https://")


# -- wait


@pytest.mark.parametrize("outcome", ["SUCCEEDED", "FAILED", "CANCELED"])
def test_wait_gives_final_state(package: Path, outcome: str) -> None:
    with KfpServer(outcome=outcome) as server:
        done = _submit(package, server.url)
        assert wait(done, endpoint=_endpoint(server.url), poll_seconds=0.01) == outcome


def test_wait_reports_each_change_once(package: Path) -> None:
    changes: list[tuple[str, dict[str, str]]] = []
    with KfpServer(outcome="FAILED", failing_polls=3) as server:
        done = _submit(package, server.url)
        wait(done, endpoint=_endpoint(server.url), poll_seconds=0.01, on_change=lambda *change: changes.append(change))
    assert changes == [
        ("PENDING", {}),
        ("RUNNING", {"judge": "RUNNING", "show": "RUNNING"}),
        ("FAILED", {"show": "SUCCEEDED", "judge": "FAILED"}),
    ]


def test_wait_long_outage_raises(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "OUTAGE_POLLS", 2)
    with KfpServer(failing_polls=3) as server:
        done = _submit(package, server.url)
        with pytest.raises(BasekampError, match=r"fails to answer \(503: upstream connect error\): try again"):
            wait(done, endpoint=_endpoint(server.url), poll_seconds=0.01)


def test_wait_dead_port_raises_at_once() -> None:
    with pytest.raises(BasekampError, match="cannot be reached"):
        wait(Submitted("id", "deeper", "e", "u"), endpoint=_endpoint("http://127.0.0.1:1"))


def test_wait_timeout_says_run_goes_on(package: Path) -> None:
    with KfpServer(outcome="RUNNING") as server:
        done = _submit(package, server.url)
        with pytest.raises(BasekampError, match=r"deeper is still RUNNING after 0\.1 s: it goes on; .*runs/d"):
            wait(done, endpoint=_endpoint(server.url), poll_seconds=0.01, timeout_seconds=0.1)


def test_wait_unknown_run_refused() -> None:
    with (
        KfpServer() as server,
        pytest.raises(BasekampError, match=r"refuses the request \(404: .*gone not fo"),
    ):
        wait(Submitted("gone", "deeper", "e", "u"), endpoint=_endpoint(server.url))


def test_wait_bad_token_refused(package: Path) -> None:
    with KfpServer(token=SECRET) as server:
        done = _submit(package, server.url, token=SECRET)
        with pytest.raises(BasekampError, match="denies access .401"):
            wait(done, endpoint=_endpoint(server.url, "old"))


def test_wait_loop_shows_least_done_iteration() -> None:
    from types import SimpleNamespace as Thing

    states = ["SUCCEEDED", "FAILED", None, "SUCCEEDED"]
    tasks = [Thing(display_name="train", state=state) for state in states]
    details = Thing(task_details=tasks[2:])
    assert following._task_states(Thing(run_details=details)) == {"train": "PENDING"}
    details = Thing(task_details=tasks)
    assert following._task_states(Thing(run_details=details)) == {"train": "FAILED"}


# -- why a run failed


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "judge failed"),
        ({"task_error": "exit  code\n137."}, "judge failed (exit code 137)"),
        ({"run_error": "deadline"}, "judge failed; deadline"),
        ({"task_error": "a" * 400}, f"judge failed ({'a' * 297}...)"),
    ],
)
def test_failure_names_failed_task_and_what_the_api_tells(package: Path, settings: dict, told: str) -> None:
    with KfpServer(outcome="FAILED", **settings) as server:
        done, at = _submit(package, server.url), _endpoint(server.url)
        wait(done, endpoint=at, poll_seconds=0.01)
        assert failure(done, endpoint=at) == told


def test_failure_before_any_task_says_so(package: Path) -> None:
    with KfpServer(outcome="FAILED") as server:
        assert "does not tell which task" in failure(_submit(package, server.url), endpoint=_endpoint(server.url))


# -- the baseline's run


def test_succeeded_run_gives_the_first_that_succeeded(package: Path) -> None:
    with KfpServer() as server:
        at = _endpoint(server.url)
        assert succeeded_run(endpoint=at, experiment="flights", run_name="deeper") == ""
        for day, (name, state) in enumerate(
            [("deeper", "FAILED"), ("deeper-3", "SUCCEEDED"), ("deeper-er", "SUCCEEDED"), ("deeper-2", "SUCCEEDED")]
        ):
            run = server.runs[_submit(package, server.url).run_id]
            run.update(display_name=name, state=state, created_at=f"2026-01-0{9 - day}T00:00:00Z")
        assert server.runs[succeeded_run(endpoint=at, experiment="flights", run_name="deeper")]["display_name"] == (
            "deeper-2"
        )


# -- schedule


def _schedule(package: Path, host: str, cron: str) -> Submitted:
    return schedule(
        package, {"name": "digits"}, endpoint=_endpoint(host), experiment="flights", job_name="deeper", cron=cron
    )


def test_schedule_creates_recurring_run_named_like_a_run(package: Path) -> None:
    with KfpServer() as server:
        first, second = (_schedule(package, server.url, "30 6 * * mon") for _ in range(2))
        jobs = server.recurring_runs
        assert server.runs == {}
    assert [first.run_name, second.run_name] == ["deeper", "deeper-2"]
    assert first.url == f"{server.url}/#/recurringrun/details/{first.run_id}"
    job = jobs[first.run_id]
    assert job["trigger"] == {"cron_schedule": {"cron": "0 30 6 * * mon"}}
    assert (job["mode"], job["no_catchup"], job["max_concurrency"]) == ("ENABLE", True, 1)
    assert job["runtime_config"]["parameters"] == DEFAULTS


def test_schedule_nonsense_refused_before_sending(package: Path) -> None:
    with KfpServer() as server, pytest.raises(InputError, match="'every day' is not a schedule"):
        _schedule(package, server.url, "every day")
    assert server.experiments == {}


# -- the plain command


@pytest.mark.parametrize("verb", ["create", "submit"])
def test_plain_kfp_command_accepted(package: Path, verb: str) -> None:
    arguments = typed_arguments(package, {"name": "1", "n": 5})
    line = kfp_command(package, arguments, experiment="flights", run_name="deeper")
    words = shlex.split(line.replace("run create", f"run {verb}"))[1:]
    with KfpServer() as server:
        done = subprocess.run(
            [KFP, "--endpoint", server.url, "--output", "json", *words],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        [run] = server.runs.values()
    assert run["runtime_config"]["parameters"] == arguments
    assert '"display_name": "deeper"' in done.stdout


def test_plain_kfp_command_unquoted_number_refused(package: Path) -> None:
    words = ["run", "create", "-e", "flights", "-f", str(package), "name=1"]
    with KfpServer() as server:
        done = subprocess.run(
            [KFP, "--endpoint", server.url, *words],
            capture_output=True,
            text=True,
        )
    assert done.returncode == 1
    assert json.dumps("input parameter name requires type STRING")[1:-1] in done.stderr
    assert server.runs == {}


REQUIRED = ["experiment=flights", "source=sklearn:digits", "target=digit", "metric=accuracy", "store=s3://b/k"]


@pytest.mark.parametrize("verb", ["create", "submit"])
def test_plain_kfp_command_accepts_committed_pipeline(verb: str) -> None:
    words = ["run", verb, "-e", "flights", "-f", str(compiled_pipeline()), *REQUIRED]
    words += ["n_layers=3", "lr=1e-2", 'gpus="1"', 'drop=["a", "b"]', 'options="{}"']
    with KfpServer() as server:
        done = subprocess.run([KFP, "--endpoint", server.url, *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        [run] = server.runs.values()
    sent = run["runtime_config"]["parameters"]
    assert sent["n_layers"] == 3 and sent["lr"] == 0.01 and sent["gpus"] == "1"
    assert sent["drop"] == ["a", "b"] and sent["options"] == "{}" and sent["experiment"] == "flights"
