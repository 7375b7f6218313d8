"""A stand-in for the Kubeflow Pipelines API server: the v2beta1 REST calls that a submission makes.

It checks what the real one checks: the token or cookie (which a proxy before the real one checks), the
namespace, and every argument against the type that the pipeline declares. Stricter on two points: the real
server takes 3.5 for an integer and the driver then fails in the cluster, and it takes a schedule of five
fields and reads the minute as the second; here both are refused at once.
"""

import json
import ssl
import threading
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

API = "/apis/v2beta1"
FITS = {
    "STRING": lambda value: isinstance(value, str),
    "NUMBER_INTEGER": lambda value: _is_number(value) and value == int(value),
    "NUMBER_DOUBLE": lambda value: _is_number(value),
    "BOOLEAN": lambda value: isinstance(value, bool),
    "LIST": lambda value: isinstance(value, list),
    "STRUCT": lambda value: isinstance(value, dict),
}
GRPC_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 500: 13, 503: 14}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _refuse_constant(text: str) -> None:
    raise RefusedError(400, f"proto: syntax error: unexpected token {text}")


class RefusedError(Exception):
    """An answer other than 200; `status` is the HTTP one."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


@dataclass
class KfpServer:
    """A server on a free loopback port, for the length of a `with` block.

    `outcome` is every run's final state; a run moves one state per GET. `namespaces` makes it multi-user.
    `outcomes` overrides it for runs of a name. `task_error` and `run_error` are told of a run that failed.
    `failing_polls` answers 503 to so many GETs of a run after its first. `certificate`, a PEM
    file with its key, makes it https. `prefix` is the path of a proxy, below which alone it answers.
    `cookie`, as `name=value`, must be among the cookies of each request.
    """

    token: str = ""
    cookie: str = ""
    prefix: str = ""
    outcome: str = "SUCCEEDED"
    outcomes: dict[str, str] = field(default_factory=dict)
    task_error: str = ""
    run_error: str = ""
    namespaces: tuple[str, ...] = ()
    failing_polls: int = 0
    certificate: Path | None = None
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    recurring_runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    polls: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> "KfpServer":
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"kfp": self}))
        self._http.daemon_threads = True
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http{'s' if self.certificate else ''}://127.0.0.1:{self._http.server_port}"

    def answer(self, method: str, path: str, query: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
        """Route one call; raises `RefusedError` for any answer other than 200."""
        match (method, path.removeprefix(API).strip("/").split("/")):
            case ("GET", ["healthz"]):
                return {"multi_user": bool(self.namespaces)}
            case ("GET", ["experiments"]):
                self.check_namespace(query.get("namespace", ""))
                return _page("experiments", list(self.experiments.values()), query)
            case ("POST", ["experiments"]):
                self.check_namespace(body.get("namespace", ""))
                return self.create_experiment(body)
            case ("GET", ["experiments", key]):
                return _found(self.experiments, key)
            case ("GET", ["runs"]):
                inside = query.get("experiment_id")
                runs = [run for run in self.runs.values() if inside in (None, run["experiment_id"])]
                return _page("runs", runs, query)
            case ("POST", ["runs"]):
                return self.create_run(body)
            case ("GET", ["runs", key]):
                return self.poll(_found(self.runs, key))
            case ("GET", ["recurringruns"]):
                inside = query.get("experiment_id")
                jobs = [job for job in self.recurring_runs.values() if inside in (None, job["experiment_id"])]
                return _page("recurringRuns", jobs, query)
            case ("POST", ["recurringruns"]):
                return self.create_recurring_run(body)
        raise RefusedError(404, "")

    def check_namespace(self, namespace: str) -> None:
        if not self.namespaces and namespace:
            raise RefusedError(400, "Invalid input error: a namespace cannot be given in single-user mode")
        if self.namespaces and not namespace:
            raise RefusedError(400, "Invalid input error: a namespace is required in multi-user mode")
        if self.namespaces and namespace not in self.namespaces:
            raise RefusedError(403, f"PermissionDenied: not authorized in namespace {namespace}")

    def create_experiment(self, body: dict[str, Any]) -> dict[str, Any]:
        if any(old["display_name"] == body["display_name"] for old in self.experiments.values()):
            raise RefusedError(409, f"Already exist error: experiment {body['display_name']} already exists")
        key = str(uuid.uuid4())
        self.experiments[key] = {**body, "experiment_id": key, "created_at": "2026-01-01T00:00:00Z"}
        return self.experiments[key]

    def create_run(self, body: dict[str, Any]) -> dict[str, Any]:
        self.check_run(body)
        key = str(uuid.uuid4())
        self.runs[key] = {**body, "run_id": key, "state": "PENDING", "created_at": "2026-01-01T00:00:00Z"}
        return self.runs[key]

    def create_recurring_run(self, body: dict[str, Any]) -> dict[str, Any]:
        self.check_run(body)
        cron = body["trigger"]["cron_schedule"]["cron"]
        if len(cron.split()) != 6:
            raise RefusedError(400, f"Invalid input error: Schedule cron is not a supported format: {cron}")
        if not 1 <= int(body["max_concurrency"]) <= 10:
            raise RefusedError(400, "Invalid input error: Max concurrency must be at least 1 and at most 10")
        key = str(uuid.uuid4())
        self.recurring_runs[key] = {**body, "recurring_run_id": key, "created_at": "2026-01-01T00:00:00Z"}
        return self.recurring_runs[key]

    def check_run(self, body: dict[str, Any]) -> None:
        _found(self.experiments, body.get("experiment_id", ""))
        sent = body.get("pipeline_spec") or {}
        spec = sent.get("pipeline_spec", sent)
        if spec.get("schemaVersion") != "2.1.0":
            raise RefusedError(400, f"Invalid input error: pipeline spec of version {spec.get('schemaVersion')}")
        check_arguments(spec, (body.get("runtime_config") or {}).get("parameters") or {})

    def poll(self, run: dict[str, Any]) -> dict[str, Any]:
        count = self.polls[run["run_id"]] = self.polls.get(run["run_id"], 0) + 1
        if 1 < count <= 1 + self.failing_polls:
            raise RefusedError(503, "upstream connect error")
        step = count - 1 if count == 1 else count - 1 - self.failing_polls
        run["state"] = ["PENDING", "RUNNING", self.outcomes.get(run["display_name"], self.outcome)][min(step, 2)]
        if run["state"] == "FAILED" and self.run_error:
            run["error"] = {"code": 13, "message": self.run_error}
        return {**run, "run_details": {"task_details": _task_details(run, self.task_error)}}


def check_arguments(spec: dict[str, Any], given: dict[str, Any]) -> None:
    """Refuse what the real server refuses: missing, ill-typed and unknown arguments, in this order."""
    declared = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    for name, parameter in declared.items():
        kind = parameter["parameterType"]
        if name not in given:
            if not parameter.get("isOptional") and "defaultValue" not in parameter:
                raise RefusedError(400, f"Invalid input error: parameter {name} has neither default nor value")
        elif not FITS[kind](given[name]):
            raise RefusedError(400, f"Invalid input error: input parameter {name} requires type {kind}")
    unknown = [name for name in given if name not in declared]
    if unknown:
        raise RefusedError(400, f"Invalid input error: the pipeline has no parameter {', '.join(unknown)}")


def _task_details(run: dict[str, Any], error: str) -> list[dict[str, Any]]:
    """List the tasks as Argo's nodes show them: with KFP's drivers, the last task failing if the run does."""
    if run["state"] == "PENDING":
        return []
    sent = run["pipeline_spec"]
    tasks = sent.get("pipeline_spec", sent)["root"]["dag"]["tasks"]
    names = sorted(tasks, key=lambda name: (len(tasks[name].get("dependentTasks", [])), name))
    states = ["RUNNING" if run["state"] == "RUNNING" else "SUCCEEDED"] * len(names)
    if run["state"] == "FAILED":
        states[-1] = "FAILED"
    nodes = [("root", run["state"]), ("root-driver", "SUCCEEDED")]
    for name, state in zip(names, states, strict=True):
        nodes += [(f"{name}-driver", "SUCCEEDED"), (name, state), ("executor", state), ("executor(0)", state)]
    details: list[dict[str, Any]] = [
        {"run_id": run["run_id"], "display_name": name, "state": state} for name, state in nodes
    ]
    for task in details if error else []:
        if task["state"] == "FAILED":
            task["state_history"] = [{"state": "FAILED", "error": {"code": 13, "message": error}}]
    return details


def _found(things: dict[str, dict[str, Any]], key: str) -> dict[str, Any]:
    if key not in things:
        raise RefusedError(404, f"ResourceNotFoundError: {key} not found")
    return things[key]


def _page(kind: str, things: list[dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
    for predicate in json.loads(query.get("filter") or "{}").get("predicates", []):
        things = [thing for thing in things if _holds(predicate, thing)]
    start, size = int(query.get("page_token") or 0), int(query.get("page_size") or 20)
    page: dict[str, Any] = {kind: things[start : start + size], "total_size": len(things)}
    if start + size < len(things):
        page["next_page_token"] = str(start + size)
    return page


def _holds(predicate: dict[str, Any], thing: dict[str, Any]) -> bool:
    wanted, value = predicate["stringValue"], thing.get(predicate["key"], "")
    match predicate["operation"]:
        case 1 | "EQUALS":
            return bool(wanted == value)
        case 9 | "IS_SUBSTRING":
            return wanted in value
    raise RefusedError(400, f"Invalid input error: the filter operation {predicate['operation']} is unknown")


class _Handler(BaseHTTPRequestHandler):
    kfp: KfpServer
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet per answer, or each waits 40 ms for an acknowledgement

    def do_GET(self) -> None:
        self._serve(b"{}")

    def do_POST(self) -> None:
        self._serve(self.rfile.read(int(self.headers["Content-Length"])))

    def _serve(self, content: bytes) -> None:
        parts = urlsplit(self.path)
        path = parts.path.removeprefix(self.kfp.prefix)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        try:
            if not (parts.path.startswith(self.kfp.prefix) and path.startswith(API)):
                return self._send(404, b"404 page not found", "text/plain")
            if path != f"{API}/healthz":
                self._check_login()
            body = json.loads(content, parse_constant=_refuse_constant)
            answer, status = self.kfp.answer(self.command, path, query, body), 200
        except RefusedError as refused:
            status = refused.status
            code = GRPC_CODES.get(status, 2)
            answer = {"code": code, "message": str(refused), "details": []}
        self._send(status, json.dumps(answer).encode(), "application/json")

    def _check_login(self) -> None:
        token = self.headers.get("authorization", "").removeprefix("Bearer ")
        if self.kfp.token and token != self.kfp.token:
            raise RefusedError(401, "Unauthenticated: the request's token is missing or invalid")
        cookies = self.headers.get("cookie", "")
        if self.kfp.cookie and self.kfp.cookie not in cookies.split("; "):
            raise RefusedError(401, f"Unauthenticated: no valid session in {cookies}")

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""
