from pathlib import Path

import pytest
import yaml

from basekamp.cluster.access import SERVICE_PROXY, Access, read_cookies
from basekamp.cluster.submit import succeeded_run
from basekamp.errors import BasekampError, InputError
from tests.kfp_server import KfpServer

SECRET = "s3cr3t-session"
ADDRESS = "https://kubeflow.example.com/pipeline"
IN_2001, IN_2100 = 1_000_000_000, 4_102_444_800  # fixed, since parallel workers must collect the same test ids


@pytest.fixture(autouse=True)
def _no_user_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KUBECONFIG", "KF_PIPELINES_UI_ENDPOINT", "KF_PIPELINES_ENDPOINT", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)


def _ask(access: Access) -> str:
    return succeeded_run(endpoint=access.connect(), experiment="flights", run_name="baseline")


def _row(*, domain: str = "kubeflow.example.com", path: str = "/", secure: str = "TRUE", expiry: int = 0) -> str:
    tail = "TRUE" if domain.startswith(".") else "FALSE"
    return f"{domain}\t{tail}\t{path}\t{secure}\t{expiry}\tauthservice_session\t{SECRET}=="


# -- cookies


@pytest.mark.parametrize(
    "row",
    [
        _row(),
        _row(domain=".example.com"),
        _row(domain="#HttpOnly_.example.com").replace("\tFALSE\t", "\tTRUE\t", 1),
        _row(path="/pipeline"),
        _row(path="/pipeline/"),
        _row(expiry=IN_2100),
    ],
)
def test_read_cookies_takes_what_is_meant_for_the_address(tmp_path: Path, row: str) -> None:
    file = tmp_path / "cookies.txt"
    file.write_text(f"# Netscape HTTP Cookie File\n\n{_row(domain='other.org')}\n{row}\n")
    assert read_cookies(file, ADDRESS) == f"authservice_session={SECRET}=="


@pytest.mark.parametrize(
    ("row", "address"),
    [
        (_row(domain="example.com"), ADDRESS),
        (_row(domain=".ample.com"), ADDRESS),
        (_row(path="/pipe"), ADDRESS),
        (_row(expiry=IN_2001), ADDRESS),
        (_row(), ADDRESS.replace("https", "http")),
    ],
)
def test_read_cookies_for_elsewhere_or_expired_refused(tmp_path: Path, row: str, address: str) -> None:
    file = tmp_path / "cookies.txt"
    file.write_text(row + "\n")
    with pytest.raises(InputError, match="holds no valid cookie for kubeflow.example.com: log in") as caught:
        read_cookies(file, address)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("line", ["a=b", "Cookie: a=b", "# from my browser\n  a=b  \n"])
def test_read_cookies_takes_one_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "cookie").write_text(line)
    assert read_cookies(tmp_path / "cookie", ADDRESS) == "a=b"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither a cookies.txt nor one line name=value"),
        (SECRET.encode(), "neither a cookies.txt nor one line name=value"),
        (f"a={SECRET}\nb={SECRET}\n".encode(), "neither a cookies.txt nor one line name=value"),
        (_row().replace("\t", " ", 1).encode(), "neither a cookies.txt nor one line name=value"),
        (f"a={SECRET}é".encode(), "holds a letter that no cookie may hold"),
        (f"a={SECRET}\x07".encode(), "holds a letter that no cookie may hold"),
        (b"\xff\xfe\x00", "cannot be read .it is not text"),
    ],
)
def test_read_cookies_other_file_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "cookie").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_cookies(tmp_path / "cookie", ADDRESS)
    assert SECRET not in str(caught.value)


def test_read_cookies_missing_file_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.txt cannot be read \(No such file or directory\)"):
        read_cookies(tmp_path / "none.txt", ADDRESS)


def test_connect_sends_cookie_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "cookies.txt").write_text(_row(domain="127.0.0.1") + "\n")
    with KfpServer(cookie=f"authservice_session={SECRET}==") as server:
        assert _ask(Access(host=server.url, cookie_file=tmp_path / "cookies.txt")) == ""
        assert len(server.experiments) == 1


def test_connect_stale_cookie_refused_and_not_told(tmp_path: Path) -> None:
    (tmp_path / "cookie").write_text(f"session=old-{SECRET}")
    with KfpServer(cookie="session=new") as server, pytest.raises(BasekampError, match="denies access .401") as caught:
        _ask(Access(host=server.url, cookie_file=tmp_path / "cookie"))
    assert "no valid session in session=***): give a valid token or cookie file" in str(caught.value)
    assert SECRET not in str(caught.value)


# -- the way through the Kubernetes API server


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write a kubeconfig for a server's address; its context is called rehearsal."""

    def write(server: str, token: str = SECRET) -> Path:
        path = tmp_path / "kubeconfig"
        document = {
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "rehearsal", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "rehearsal",
        }
        path.write_text(yaml.safe_dump(document))
        monkeypatch.setenv("KUBECONFIG", str(path))
        return path

    return write


@pytest.mark.parametrize("context", ["", "rehearsal"])
def test_connect_goes_through_the_service_proxy(kubeconfig, context: str) -> None:
    with KfpServer(prefix=SERVICE_PROXY, token=SECRET) as server:
        kubeconfig(server.url)
        endpoint = Access(kube_context=context).connect()
        for _ in range(2):  # the Kubernetes client's way to renew a token would set the address back
            assert succeeded_run(endpoint=endpoint, experiment="flights", run_name="baseline") == ""
    assert endpoint.page("runs/details/1") == "http://localhost:8080/#/runs/details/1"
    assert endpoint.ui_command.startswith("kubectl port-forward")


def test_connect_proxy_login_refused_names_the_right(kubeconfig) -> None:
    with KfpServer(prefix=SERVICE_PROXY, token="another") as server:
        kubeconfig(server.url)
        with pytest.raises(BasekampError, match="denies access .401.*must be allowed services/proxy") as caught:
            _ask(Access(kube_context="rehearsal"))
    assert SECRET not in str(caught.value)


def test_connect_proxy_dead_port_names_the_cluster(kubeconfig) -> None:
    kubeconfig("http://127.0.0.1:9")
    with pytest.raises(BasekampError, match="cannot be reached .Connection refused.: check that the kubeconfig's"):
        _ask(Access(kube_context="rehearsal"))


def test_connect_unknown_context_refused(kubeconfig) -> None:
    kubeconfig("http://127.0.0.1:9")
    with pytest.raises(InputError, match="kubeconfig .* cannot be used .*rehearsel"):
        Access(kube_context="rehearsel").connect()


def test_connect_without_any_way_refused() -> None:
    with pytest.raises(InputError, match=r"Nothing says where .*: give --host or \$KFP_ENDPOINT, or a kubeconfig"):
        Access().connect()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"host": "http://localhost:1", "kube_context": "c"}, "are two ways to one endpoint"),
        ({"kube_context": "c", "token": SECRET}, "A token or cookie file goes with --host"),
        ({"cookie_file": Path("c.txt")}, "A token or cookie file goes with --host"),
    ],
)
def test_connect_two_ways_at_once_refused(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Access(**settings).connect()


def test_connect_links_lead_to_the_named_ui(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", "https://ui.example.com/")
    endpoint = Access(host="http://127.0.0.1:9").connect()
    assert endpoint.page("compare?runlist=a,b") == "https://ui.example.com/#/compare?runlist=a,b"


def test_access_shows_no_secret() -> None:
    assert SECRET not in repr(Access(host="http://h", token=SECRET))
