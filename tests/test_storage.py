import hashlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from minio import Minio
from minio.error import S3Error

from basekamp.errors import ChecksumError, InputError, KeyExistsError, KeyMissingError, StoreError
from basekamp.storage import Entry, Store, open_store, s3, s3_transfer
from basekamp.storage.pool import PATIENT, Patience
from basekamp.storage.protocol import is_key
from basekamp.storage.s3 import S3Store
from basekamp.storage.s3_access import connect, read_access
from basekamp.storage.s3_transfer import PART_BYTES, Transfer
from tests.http_server import http_server

ROOT = Path(__file__).parents[1]
MIB = 1 << 20
SHORT = Patience(connect_seconds=2, read_seconds=2, deadline_seconds=1)


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return open_store(str(tmp_path / "store"))
    return open_store(request.getfixturevalue("s3_env") + "/team/runs")


@pytest.fixture
def folder(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def bucket(s3_env: str) -> str:
    return s3_env.removeprefix("s3://")


def keys_of(store: Store, prefix: str = "") -> list[str]:
    return [entry.key for entry in store.entries(prefix)]


# both stores


@pytest.mark.parametrize("content", [b"", b"\0", b"hello", os.urandom(3 * MIB)], ids=["empty", "nul", "text", "3 MiB"])
def test_put_of_bytes_and_of_a_file_reads_back(store: Store, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "source").write_bytes(content)
    store.put("from/bytes", content)
    store.put("from/file", tmp_path / "source")
    store.fetch("from/file", tmp_path / "new" / "copy")
    assert store.get("from/bytes") == store.get("from/file") == content
    assert (tmp_path / "new" / "copy").read_bytes() == content


def test_put_of_the_same_bytes_again_changes_nothing(store: Store) -> None:
    store.put("a", b"one")
    before = list(store.entries())
    store.put("a", b"one")
    assert list(store.entries()) == before


def test_put_of_other_bytes_is_refused_and_keeps_the_first(store: Store) -> None:
    store.put("a", b"one")
    with pytest.raises(KeyExistsError, match=r"'.*a'.*already holds other bytes.*choose another key\.$"):
        store.put("a", b"two")
    assert store.get("a") == b"one"


@pytest.mark.parametrize("key", ["absent", "a/absent", "a/b/c", "file/below"])
def test_read_of_a_missing_key_is_refused(store: Store, tmp_path: Path, key: str) -> None:
    store.put("a/b/x", b"x")
    store.put("file", b"x")
    with pytest.raises(KeyMissingError, match="nothing lies under .*list the store"):
        store.get(key)
    with pytest.raises(KeyMissingError):
        store.fetch(key, tmp_path / "copy")
    assert sorted(tmp_path.glob("*copy*")) == sorted(tmp_path.glob(".*part")) == []


ODD_KEYS = [
    "with space",
    "plus+plus",
    "per%cent",
    "per%2Fcent%00",
    "key=value&more",
    "quotes'\"<>",
    "hash#question?",
    "~*!();:@,$[]{}|^`",
    "ünïcödé/漢字/😀",
    "e\u0301 is not \u00e9",
    "line\u2028separator",
    "..a/...b/c..",
    ".hidden",
    "-dash",
    "x" * 255,
    "model.n_layers-10.n_epochs-100.act-leaky_relu.loss-0.0312.accuracy-98.1.pth",
]


def test_odd_keys_round_trip_and_are_listed(store: Store) -> None:
    for key in ODD_KEYS:
        store.put(key, key.encode())
    assert [store.get(key).decode() for key in ODD_KEYS] == ODD_KEYS
    assert keys_of(store) == sorted(ODD_KEYS)
    assert all(keys_of(store, key) == [key] for key in ODD_KEYS)


BAD_KEYS = [
    "", "/", "/abs", "a/", "a//b", ".", "..", "../up", "a/../b", "a/./b", "a/..", "back\\slash", "..\\up",
    "nul\0", "line\nbreak", "del\x7f", "\ud800", ".sha256/a", ".sha256", ".tmp/a", "x" * 256, "é" * 128,
    "/".join(["x" * 200] * 6),
]  # fmt: skip


@pytest.mark.parametrize("key", BAD_KEYS, ids=range(len(BAD_KEYS)))
def test_a_bad_key_is_refused_by_every_call(store: Store, tmp_path: Path, key: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: store.put(key, b""),
        lambda: store.get(key),
        lambda: store.fetch(key, tmp_path / "copy"),
        lambda: store.delete(key),
    ]
    for call in calls:
        with pytest.raises(InputError, match="^key .* is not allowed: use parts of 1 to 255 bytes"):
            call()
    assert list(tmp_path.iterdir()) == []


@given(st.text(alphabet=st.sampled_from("ab./\\\0\n %é😀"), max_size=12))
def test_a_key_never_leaves_its_folder(key: str) -> None:
    inside = os.path.normpath(os.path.join("/store", key))
    if is_key(key):
        assert inside == f"/store/{key}"
        assert not inside.startswith(("/store/.sha256", "/store/.tmp"))


def test_a_missing_source_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent cannot be read \(No such file.*readable file"):
        store.put("a", tmp_path / "absent")
    with pytest.raises(InputError, match="is not a regular file"):
        store.put("a", tmp_path)
    assert keys_of(store) == []


def test_entries_tell_size_and_time(store: Store) -> None:
    store.put("a/b", b"12345")
    (entry,) = store.entries()
    assert isinstance(entry, Entry)
    assert entry[:2] == ("a/b", 5)
    assert entry.modified.utcoffset() == timedelta(0)
    assert abs(entry.modified - datetime.now(UTC)) < timedelta(minutes=1)


PREFIXES = {
    "": ["a", "a-b/c", "a.b", "a/b/c", "a/b/d", "a/bb", "b"],
    "a": ["a", "a-b/c", "a.b", "a/b/c", "a/b/d", "a/bb"],
    "a/": ["a/b/c", "a/b/d", "a/bb"],
    "a/b": ["a/b/c", "a/b/d", "a/bb"],
    "a/b/": ["a/b/c", "a/b/d"],
    "a-": ["a-b/c"],
    "a/b/c": ["a/b/c"],
    "a/b/c/": [],
    "zzz/zzz": [],
    ".": [],
}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_is_a_string_prefix_of_the_key(store: Store, prefix: str) -> None:
    for key in PREFIXES[""]:
        if key != "a":  # a file and a folder of one name cannot be in a folder
            store.put(key, b"")
    assert keys_of(store, prefix) == [key for key in PREFIXES[prefix] if key != "a"]


@pytest.mark.parametrize("prefix", ["/", "../", "a/../", "a//", "/etc/", "\0", ".sha256", ".tmp/", "a\\"])
def test_a_prefix_that_no_key_has_is_refused(store: Store, prefix: str) -> None:
    with pytest.raises(InputError, match="^prefix .* is not allowed"):
        store.entries(prefix)


def test_an_empty_store_lists_nothing(store: Store) -> None:
    assert keys_of(store) == []


def test_a_listing_of_several_pages_is_whole_and_sorted(store: Store) -> None:
    keys = [f"{folder}{i}" for i in range(450) for folder in ("a/x", "a-b/", "a.b", "b", "é/")]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put(key, b""), keys))
    assert len(keys) > 2000
    assert keys_of(store) == sorted(keys)
    assert keys_of(store, "a-b/1") == sorted(key for key in keys if key.startswith("a-b/1"))


def test_delete_removes_one_key_and_frees_it(store: Store) -> None:
    store.put("a/b", b"one")
    store.put("a/c", b"one")
    store.delete("a/b")
    store.delete("a/b")
    store.delete("never/there")
    assert keys_of(store) == ["a/c"]
    store.put("a/b", b"two")
    assert store.get("a/b") == b"two"


def test_check_of_a_good_store_leaves_nothing(store: Store) -> None:
    store.put("a", b"x")
    store.check()
    assert keys_of(store) == ["a"]


def test_a_store_opens_again_by_its_url(store: Store) -> None:
    store.put("a", b"x")
    again = open_store(store.url)
    assert (again.url, again.get("a")) == (store.url, b"x")


def test_fetch_replaces_a_file_only_when_all_is_well(store: Store, tmp_path: Path) -> None:
    (tmp_path / "copy").write_bytes(b"old")
    with pytest.raises(KeyMissingError):
        store.fetch("a", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"old"
    store.put("a", b"new")
    with (tmp_path / "copy").open("rb") as reader:
        store.fetch("a", tmp_path / "copy")
        assert reader.read() == b"old"  # whoever was reading goes on with the whole old file
    assert (tmp_path / "copy").read_bytes() == b"new"


def test_fetch_waits_for_the_disk_unless_told_not_to(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store.put("a", b"x")
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    store.fetch("a", tmp_path / "one", durable=False)
    assert synced == []
    store.fetch("a", tmp_path / "two")
    assert len(synced) == 2  # the file and the folder that names it


def test_fetch_to_an_unwritable_path_is_refused(store: Store, tmp_path: Path) -> None:
    store.put("a", b"x")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match=r"file/copy cannot be written \(.*choose a path"):
        store.fetch("a", tmp_path / "file" / "copy")


RACER = """
import sys
from basekamp.errors import KeyExistsError
from basekamp.storage import open_store
url, name, number = sys.argv[1:]
store = open_store(url)
print("ready", flush=True)
sys.stdin.readline()
for i in range(int(number)):
    try:
        store.put(f"race/{i}", name.encode() * 1000)
        print(i)
    except KeyExistsError:
        pass
"""


def test_of_racing_writers_exactly_one_wins_each_key(store: Store) -> None:
    number = 100 if store.url.startswith("s3:") else 1000
    with ExitStack() as stack:
        writers = {name: stack.enter_context(python(RACER, store.url, name, str(number))) for name in "xyz"}
        for writer in writers.values():
            assert writer.stdout.readline() == b"ready\n"
        for writer in writers.values():
            writer.stdin.write(b"\n")
            writer.stdin.flush()
        won = [(int(i), name) for name, writer in writers.items() for i in finish(writer)]
    assert sorted(i for i, _ in won) == list(range(number))
    assert all(store.get(f"race/{i}") == name.encode() * 1000 for i, name in won)


ENDLESS_WRITER = """
import itertools, sys
from pathlib import Path
from basekamp.storage import open_store
store = open_store(sys.argv[1])
for i in itertools.count():
    store.put(f"{sys.argv[2]}/{i}", Path(sys.argv[3]))
    print(i, flush=True)
"""


def test_a_killed_writer_leaves_whole_objects_only(store: Store, tmp_path: Path) -> None:
    content = os.urandom(6 * MIB)
    (tmp_path / "source").write_bytes(content)
    for attempt in range(4):
        with python(ENDLESS_WRITER, store.url, f"try{attempt}", str(tmp_path / "source")) as writer:
            assert writer.stdout.readline() == b"0\n"
            time.sleep(0.043 * attempt)  # it is in the middle of some later key
            writer.send_signal(signal.SIGKILL)
    assert {f"try{attempt}/0" for attempt in range(4)} <= set(keys_of(store))
    for key, size, _ in store.entries():
        assert (size, store.get(key) == content) == (len(content), True)
    store.put("after", tmp_path / "source")
    assert store.get("after") == content


@contextmanager
def python(code: str, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def finish(process: "subprocess.Popen[bytes]") -> list[str]:
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return output.decode().split()


# opening


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "store '' is not allowed: use a folder"),
        ("gs://bucket/x", "kind 'gs' are not known: use a folder"),
        ("file://host/x", "three slashes"),
        ("s3://", "bucket has 3 to 63"),
        ("s3://ab", "bucket has 3 to 63"),
        ("s3://Big_Bucket/x", "bucket has 3 to 63"),
        ("s3://bucket/a/../b", "has an empty part"),
        ("s3://bucket//a", "has an empty part"),
    ],
)
def test_a_url_that_cannot_be_read_is_refused(s3_env: str, url: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_store(url)


def test_credentials_in_a_url_are_refused_and_not_repeated(s3_env: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError) as caught:
        open_store("s3://me:hunter2@bucket/x")
    assert "hunter2" not in str(caught.value)
    monkeypatch.setenv("BASEKAMP_S3_ENDPOINT", "http://me:hunter2@127.0.0.1:9")
    with pytest.raises(InputError, match="without user, path or query") as caught:
        open_store("s3://bucket/x")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "endpoint",
    ["localhost:9000", "ftp://x", "http://", "http://x/path", "http://x?q", "http://x:99999", "x y"],
)
def test_an_endpoint_that_cannot_be_used_is_refused(
    s3_env: str, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("BASEKAMP_S3_ENDPOINT", endpoint)
    with pytest.raises(InputError, match="^BASEKAMP_S3_ENDPOINT is .*: write http://host:port or https://"):
        open_store("s3://bucket")


KEYS = {
    "AWS_ACCESS_KEY_ID": "a",
    "AWS_SECRET_ACCESS_KEY": "aws-secret",
    "AWS_SESSION_TOKEN": "token-secret",
}
MINIO = {"MINIO_ACCESS_KEY": "m", "MINIO_SECRET_KEY": "minio-secret", "MINIO_ENDPOINT": "http://m:9000"}


@pytest.mark.parametrize(
    ("scheme", "environment", "endpoint", "access_key"),
    [
        ("s3", KEYS, "https://s3.amazonaws.com", "a"),
        ("s3", KEYS | {"AWS_ENDPOINT_URL": "http://x:1/"}, "http://x:1", "a"),
        ("s3", KEYS | {"AWS_ENDPOINT_URL": "http://x:1", "AWS_ENDPOINT_URL_S3": "http://y"}, "http://y", "a"),
        ("s3", KEYS | MINIO, "https://s3.amazonaws.com", "a"),
        ("s3", KEYS | {"BASEKAMP_S3_ENDPOINT": "http://b", "AWS_ENDPOINT_URL": "http://x"}, "http://b", "a"),
        ("minio", KEYS | MINIO, "http://m:9000", "m"),
        ("minio", KEYS | {"AWS_ENDPOINT_URL": "http://x:1"}, "http://x:1", "a"),
    ],
)
def test_access_is_read_from_the_environment(
    scheme: str, environment: dict[str, str], endpoint: str, access_key: str
) -> None:
    access = read_access(scheme, environment)
    assert (access.endpoint, access.access_key, access.region) == (endpoint, access_key, "us-east-1")
    assert not any(secret in repr(access) for secret in ("aws-secret", "minio-secret", "token-secret"))


@pytest.mark.parametrize(
    ("scheme", "environment", "message"),
    [
        ("s3", {}, "no credentials for s3://.*set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ("s3", {"AWS_ACCESS_KEY_ID": "half"}, "no credentials"),
        ("minio", KEYS, "no endpoint for minio://.*set BASEKAMP_S3_ENDPOINT or MINIO_ENDPOINT"),
        ("s3", KEYS | {"AWS_REGION": "a region"}, "AWS_REGION='a region' is not allowed"),
    ],
)
def test_access_that_is_missing_is_named(scheme: str, environment: dict[str, str], message: str) -> None:
    with pytest.raises((StoreError, InputError), match=message):
        read_access(scheme, environment)


def test_the_ways_to_name_a_folder_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    urls = ["./a store", "a store", "~/a store", str(tmp_path / "a store"), f"file://{tmp_path}/a%20store"]
    assert {open_store(url).url for url in urls} == {str(tmp_path / "a store")}
    assert list(tmp_path.iterdir()) == []


def test_opening_a_store_imports_no_heavy_package() -> None:
    code = "import sys, basekamp.storage as s; s.open_store('x'); print(*sys.modules)"
    with python(code) as process:
        assert not {"torch", "kfp", "minio", "urllib3"} & set(finish(process))


# folder


def files_below(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_a_folder_store_is_plain_files_with_checksums_beside(folder: Store, tmp_path: Path) -> None:
    folder.put("a/b", b"hello")
    digest = hashlib.sha256(b"hello").hexdigest()
    assert files_below(tmp_path / "store") == [".sha256/a/b", "a/b"]
    assert (tmp_path / "store/.sha256/a/b").read_text() == f"{digest}  a/b\n"


def test_a_flipped_bit_is_found(folder: Store, tmp_path: Path) -> None:
    folder.put("a", b"hello")
    (tmp_path / "store/a").write_bytes(b"hellO")
    with pytest.raises(ChecksumError, match="'a' in store .* is damaged.*put it again"):
        folder.get("a")
    with pytest.raises(ChecksumError):
        folder.fetch("a", tmp_path / "copy")
    with pytest.raises(ChecksumError):
        folder.put("a", b"hello")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    folder.delete("a")
    folder.put("a", b"hello")
    assert folder.get("a") == b"hello"


def test_a_file_without_checksum_is_listed_but_not_read(folder: Store, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store/foreign").write_bytes(b"hello")
    assert keys_of(folder) == ["foreign"]
    with pytest.raises(ChecksumError, match="has no checksum.*put the same bytes again"):
        folder.get("foreign")
    with pytest.raises(KeyExistsError):
        folder.put("foreign", b"other")
    folder.put("foreign", b"hello")
    assert folder.get("foreign") == b"hello"


def test_a_checksum_line_torn_by_a_power_cut_does_no_harm(folder: Store, tmp_path: Path) -> None:
    (tmp_path / "store/.sha256").mkdir(parents=True)
    (tmp_path / "store/.sha256/a").write_bytes(b"0123\xff")
    folder.put("a", b"hello")
    assert folder.get("a") == b"hello"


def test_foreign_names_that_are_no_keys_are_not_listed(folder: Store, tmp_path: Path) -> None:
    folder.put("a", b"")
    for name in (b"bad\xff", b"new\nline", b"back\\slash"):
        Path(os.fsdecode(os.fsencode(tmp_path / "store") + b"/" + name)).write_bytes(b"")
    (tmp_path / "store/link").symlink_to("a")
    (tmp_path / "store/loop").symlink_to(".")
    os.mkfifo(tmp_path / "store/pipe")
    assert keys_of(folder) == ["a"]


def test_only_old_strays_are_swept(folder: Store, tmp_path: Path) -> None:
    folder.put("a", b"")
    old, new = (tmp_path / "store/.tmp" / name for name in ("old", "new"))
    old.write_bytes(b"")
    new.write_bytes(b"")
    os.utime(old, (0, time.time() - 25 * 3600))
    open_store(folder.url)
    assert (old.exists(), new.exists()) == (False, True)


def blocked_by_a_file(tmp_path: Path) -> str:
    (tmp_path / "file").write_bytes(b"")
    return str(tmp_path / "file" / "store")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (
            blocked_by_a_file,
            r"cannot write .*/file/store: the file .*/file is in the way; choose another folder",
        ),
        (lambda _: "/proc/basekamp", r"cannot write .*/proc/basekamp \(No such file.*choose a folder"),
    ],
    ids=["below a file", "proc"],
)
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, place: Callable[[Path], str], message: str) -> None:
    store = open_store(place(tmp_path))
    with pytest.raises(StoreError, match=message):
        store.put("a", b"")
    with pytest.raises(StoreError, match=r"store .*(/file|/proc)"):
        store.check()


def test_a_full_disk_is_named_and_leaves_nothing(folder: Store, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(4 * MIB))
    code = f"""
import resource, signal
from pathlib import Path
from basekamp.errors import StoreError
from basekamp.storage import open_store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({MIB}, {MIB}))
try:
    open_store({folder.url!r}).put("a", Path({str(tmp_path / "big")!r}))
except StoreError as error:
    print(error)
"""
    with python(code) as process:
        assert "cannot write 'a' in store" in " ".join(finish(process))
    assert files_below(tmp_path / "store") == []


def test_a_file_and_a_folder_of_one_name_are_refused(folder: Store) -> None:
    folder.put("a/b", b"")
    with pytest.raises(StoreError, match="'a' is a folder in store"):
        folder.put("a", b"")
    folder.put("c", b"")
    with pytest.raises(StoreError, match="c is in the way"):
        folder.put("c/d", b"")


def test_a_file_system_without_hard_links_is_named(folder: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:  # no such file system can be mounted in a test
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    for call in (lambda: folder.put("a", b""), folder.check):
        with pytest.raises(StoreError, match="has no hard links.*or an s3:// store"):
            call()
    assert keys_of(folder) == []


# S3


def test_an_object_damaged_on_the_server_is_found(bucket: str, s3_client: Minio, tmp_path: Path) -> None:
    store = open_store(f"s3://{bucket}/runs")
    store.put("a", b"hello")
    metadata = {"sha256": hashlib.sha256(b"hello").hexdigest()}
    s3_client.put_object(bucket, "runs/a", io.BytesIO(b"hellO"), 5, metadata=metadata)
    with pytest.raises(ChecksumError, match="key 'runs/a' at http.* is damaged"):
        store.get("a")
    with pytest.raises(ChecksumError):
        store.fetch("a", tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_object_is_listed_but_not_read(bucket: str, s3_client: Minio) -> None:
    s3_client.put_object(bucket, "foreign", io.BytesIO(b"hello"), 5)
    s3_client.put_object(bucket, "marker/", io.BytesIO(b""), 0)
    store = open_store(f"s3://{bucket}")
    assert keys_of(store) == ["foreign"]
    with pytest.raises(ChecksumError, match="has no checksum"):
        store.get("foreign")
    with pytest.raises(KeyExistsError):
        store.put("foreign", b"other")


def test_a_prefix_keeps_two_stores_in_one_bucket_apart(bucket: str) -> None:
    one, two = open_store(f"s3://{bucket}/one"), open_store(f"minio://{bucket}/one-more/")
    one.put("a", b"1")
    two.put("a", b"2")
    assert (keys_of(one), one.get("a"), keys_of(two), two.get("a")) == (["a"], b"1", ["a"], b"2")
    assert two.url == f"minio://{bucket}/one-more"


@pytest.fixture
def files_of_several_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setattr(s3_transfer, "PART_BYTES", 5 * MIB)
    files = [tmp_path / "one", tmp_path / "two"]
    for file in files:
        file.write_bytes(os.urandom(6 * MIB))
    return files


def test_a_file_of_several_parts_round_trips(
    bucket: str, s3_client: Minio, files_of_several_parts: list[Path], tmp_path: Path
) -> None:
    one, two = files_of_several_parts
    store = open_store(f"s3://{bucket}")
    store.put("big", one)
    store.put("big", one)
    store.fetch("big", tmp_path / "copy")
    assert s3_client.stat_object(bucket, "big").etag.endswith("-2")
    assert (tmp_path / "copy").read_bytes() == one.read_bytes()
    with pytest.raises(KeyExistsError):
        store.put("big", two)


@pytest.mark.parametrize("quick", [0, 1 << 60], ids=["one stream", "pieces"])
@pytest.mark.parametrize("size", [MIB - 1, MIB, MIB + 1, 2 * MIB, 7 * MIB + 5])
def test_an_object_of_several_pieces_is_read_whole(
    s3_env: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: int, quick: int
) -> None:
    monkeypatch.setattr(s3_transfer, "PIECE_BYTES", MIB)
    monkeypatch.setattr(s3_transfer, "QUICK_BYTES_A_SECOND", quick)
    content = os.urandom(size)
    store = open_store(s3_env)
    store.put("a", content)
    store.fetch("a", tmp_path / "copy")
    assert store.get("a") == (tmp_path / "copy").read_bytes() == content
    with pytest.raises(InputError, match="holds more than"):
        store.get("a", most_bytes=size - 1)


def test_a_failure_that_comes_with_status_200_is_one(s3_env: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = b"<Error><UploadId>1</UploadId><Code>InternalError</Code><Message>late</Message></Error>"
    with http_server(200, body) as (endpoint, asked):
        monkeypatch.setenv("BASEKAMP_S3_ENDPOINT", endpoint)
        client = connect(read_access("s3"), SHORT)
        with pytest.raises(S3Error, match="InternalError"):
            Transfer(client, "bucket", 0).upload("a", io.BytesIO(bytes(PART_BYTES + 1)), "digest")
    assert asked == ["POST", "PUT", "PUT", "POST", "DELETE"]


def test_an_answer_that_promises_nothing_is_read_whole(s3_env: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with http_server(200, b"hello") as (endpoint, _):
        monkeypatch.setenv("BASEKAMP_S3_ENDPOINT", endpoint)
        target = io.BytesIO()
        told = Transfer(connect(read_access("s3"), SHORT), "bucket", 0).download("a", target)
    assert (target.getvalue(), told) == (b"hello", (None, hashlib.sha256(b"hello").hexdigest()))


def test_of_racing_writers_of_several_parts_one_wins(bucket: str, files_of_several_parts: list[Path]) -> None:
    stores = [open_store(f"s3://{bucket}") for _ in files_of_several_parts]

    def put(store: Store, source: Path) -> bool:
        try:
            store.put("big", source)
        except KeyExistsError:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        won = list(pool.map(put, stores, files_of_several_parts))
    assert sorted(won) == [False, True]
    assert stores[0].get("big") == files_of_several_parts[won.index(True)].read_bytes()


CALLS: dict[str, Callable[[Store], object]] = {
    "put": lambda store: store.put("k", b""),
    "get": lambda store: store.get("k"),
    "entries": lambda store: list(store.entries()),
    "delete": lambda store: store.delete("k"),
    "check": lambda store: store.check(),
}


def every_refusal(store: Store) -> Iterator[str]:
    for call in CALLS.values():
        with pytest.raises(StoreError) as caught:
            call(store)
        message = str(caught.value)
        for secret in (os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]):
            assert secret not in message
        assert re.fullmatch(r"[^\n]*\.", message)
        yield message


def test_a_missing_bucket_is_named_with_the_command_that_makes_it(s3_env: str) -> None:
    for message in every_refusal(open_store("s3://no-such-bucket/x")):
        assert "the bucket does not exist; create it, for example with `aws s3 mb s3://no-such-bucket" in message


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_refused(s3_env: str, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "wrong-credential")
    for message in every_refusal(open_store(s3_env)):
        assert "access was refused" in message
        assert "check the credentials in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in message


def test_a_dead_port_is_named(s3_env: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
        monkeypatch.setenv("BASEKAMP_S3_ENDPOINT", endpoint)
        for message in every_refusal(open_store(s3_env)):
            assert f"at {endpoint}: no connection (nothing accepts connections there)" in message
            assert "correct the endpoint in BASEKAMP_S3_ENDPOINT" in message


def test_a_service_that_never_answers_fails_the_check(s3_env: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("BASEKAMP_S3_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(s3, "QUICK", s3.QUICK._replace(read_seconds=0.3))
        with pytest.raises(StoreError, match="no connection .it took too long"):
            open_store(s3_env).check()


def test_https_to_a_plain_port_is_named(s3_env: str, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = os.environ["BASEKAMP_S3_ENDPOINT"].replace("http:", "https:")
    monkeypatch.setenv("BASEKAMP_S3_ENDPOINT", endpoint)
    with pytest.raises(StoreError, match="no connection .TLS failed"):
        open_store(s3_env).check()


def test_a_failing_service_is_asked_again_until_the_deadline(s3_env: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with http_server(503, b"") as (endpoint, asked):
        monkeypatch.setenv("BASEKAMP_S3_ENDPOINT", endpoint)
        with pytest.raises(StoreError, match="the answer is not one of S3 .*see the log"):
            S3Store(s3_env, patience=SHORT).get("a")
        assert len(asked) > 1


def test_an_endpoint_that_is_no_s3_service_is_refused(s3_env: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with http_server(200, b"<html><body>hello") as (endpoint, _):
        monkeypatch.setenv("BASEKAMP_S3_ENDPOINT", endpoint)
        with pytest.raises(StoreError, match="cannot list bucket .*the answer is not one of S3"):
            open_store(s3_env).check()


@contextmanager
def cutting_proxy(endpoint: str, cuts: int, after_bytes: int) -> Iterator[str]:
    """Pass connections on to `endpoint`, but cut the first `cuts` of them after so many bytes of answer."""
    address = (urlsplit(endpoint).hostname, urlsplit(endpoint).port)
    limits = [after_bytes] * cuts

    def serve(client: socket.socket) -> None:
        left = limits.pop() if limits else sys.maxsize
        with client, socket.create_connection(address) as server:
            server.sendall(client.recv(1 << 16))  # a GET fits in one piece
            server.settimeout(0.5)
            while left > 0 and (block := server.recv(min(left, 1 << 16))):
                client.sendall(block)
                left -= len(block)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with suppress(OSError):
                serve(client)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(("cuts", "survives"), [(3, True), (1000, False)])
def test_a_read_cut_in_the_middle_is_tried_again(
    s3_env: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cuts: int, survives: bool
) -> None:
    content = os.urandom(2 * MIB)
    open_store(s3_env).put("a", content)
    with cutting_proxy(os.environ["BASEKAMP_S3_ENDPOINT"], cuts, MIB) as endpoint:
        monkeypatch.setenv("BASEKAMP_S3_ENDPOINT", endpoint)
        store = S3Store(s3_env, patience=PATIENT if survives else SHORT)
        if survives:
            store.fetch("a", tmp_path / "copy")
            assert (tmp_path / "copy").read_bytes() == content
        else:
            with pytest.raises(StoreError, match="no connection .the connection was cut"):
                store.fetch("a", tmp_path / "copy")
            assert list(tmp_path.iterdir()) == []


def test_keys_are_those_of_the_entries_that_end_so(store):
    names = ["a/x.json", "a/x.pth", "a/b/y.json", "ab/z.json", "a.json", "a/b.json"]
    for name in names:
        store.put(name, name.encode())
    for prefix in ("", "a", "a/", "a/b", "ab/z", "none/"):
        for suffix in ("", ".json", "h"):
            expected = [entry.key for entry in store.entries(prefix) if entry.key.endswith(suffix)]
            assert store.keys(prefix, suffix) == expected
    assert store.keys("a/", ".json") == ["a/b.json", "a/b/y.json", "a/x.json"]
