import bz2
import gzip
import io
import lzma
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from basekamp.data.archives import ZstdFile
from basekamp.data.images import ImageTable
from basekamp.data.sources import local_files, read_local, read_source, source_fingerprint
from basekamp.errors import InputError
from basekamp.experiment import DataSettings, Reading
from tests.malformed_files import (
    Broken,
    Odd,
    broken_csvs,
    broken_images,
    broken_parquets,
    hostile_archives,
    image,
    lines,
    odd_csvs,
    packed,
    text,
)


def write(folder: Path, file: Broken | Odd) -> str:
    path = folder / file.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.content)
    return str(path)


@pytest.mark.parametrize("file", broken_csvs(), ids=lambda file: file.name)
def test_a_broken_csv_is_refused_with_its_place_and_a_remedy(tmp_path: Path, file: Broken) -> None:
    with pytest.raises(InputError, match=f"{file.told}.*: .*") as caught:
        read_source(write(tmp_path, file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", odd_csvs(), ids=lambda file: file.name)
def test_an_odd_csv_is_read_exactly(tmp_path: Path, file: Odd) -> None:
    frame = read_source(write(tmp_path, file))
    assert isinstance(frame, pl.DataFrame)
    found = frame.to_dict(as_series=False)
    assert found == file.columns
    assert repr(found).replace("zoneinfo.ZoneInfo(key='UTC')", "datetime.timezone.utc") == repr(file.columns)


@pytest.mark.parametrize("file", broken_parquets(), ids=lambda file: file.name)
def test_a_broken_parquet_is_refused(tmp_path: Path, file: Broken) -> None:
    with pytest.raises(InputError, match=f"{file.told}.*: .*"):
        read_source(write(tmp_path, file))


@pytest.mark.parametrize("file", broken_images(), ids=lambda file: file.name)
def test_a_broken_image_is_refused_by_its_name(tmp_path: Path, file: Broken) -> None:
    for name in ("cat/a.png", "cat/b.png", "dog/a.png"):
        write(tmp_path, Broken(name, image(), ""))
    write(tmp_path, file._replace(name=f"dog/{file.name}"))
    with pytest.raises(InputError, match=f"dog/{file.told}.*: .*"):
        read_source(str(tmp_path))


@pytest.mark.parametrize("file", hostile_archives(), ids=lambda file: file.name)
def test_a_hostile_archive_is_refused_and_writes_nothing(tmp_path: Path, file: Broken) -> None:
    folder = tmp_path / "a" / "b"
    with pytest.raises(InputError, match=f"{file.name}.* ?{file.told}|{file.told}"):
        read_source(write(folder, file))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [file.name]


TABLE = text(lines())


def zstd(content: bytes) -> bytes:
    """The bytes, compressed as Zstandard."""
    file = io.BytesIO()
    with ZstdFile(file, "wb") as packing:
        packing.write(content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("t.csv.gz", gzip.compress),
        ("t.csv.bz2", bz2.compress),
        ("t.csv.xz", lzma.compress),
        ("t.csv.zst", zstd),
        ("t.zip", lambda content: packed({"folder/t.csv": content, "__MACOSX/._t.csv": b"x"})),
        ("t.tsv", lambda content: content.replace(b",", b"\t")),
        ("t.txt", lambda content: content.replace(b",", b"|")),
        ("t.csv", lambda content: content.replace(b",", b";")),
    ],
)
def test_a_table_reads_alike_however_it_is_packed(tmp_path: Path, name: str, pack: Callable[[bytes], bytes]) -> None:
    frame = read_source(write(tmp_path, Broken(name, pack(TABLE), "")))
    assert isinstance(frame, pl.DataFrame)
    assert frame.rows()[5] == (5, 1.25, "blue", "row number 5")
    assert frame.height == 200


def test_many_files_are_one_table_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, value in (("b.csv", "0.5"), ("a.csv", "1")):
        write(tmp_path, Broken(f"days/{name}", f"n,s\n{value},x\n".encode(), ""))
    for source in (str(tmp_path / "days"), str(tmp_path / "days" / "*.csv"), str(tmp_path / "**" / "*.csv")):
        frame = read_source(source)
        assert isinstance(frame, pl.DataFrame)
        assert frame.rows() == [(1.0, "x"), (0.5, "x")]
    before = source_fingerprint(str(tmp_path / "days"))
    write(tmp_path, Broken("days/c.csv", b"s,n\nx,1\n", ""))
    assert source_fingerprint(str(tmp_path / "days")) != before
    with pytest.raises(InputError, match=r"the header of c.csv is not that of a.csv: give files of the same columns"):
        read_source(str(tmp_path / "days"))
    with pytest.raises(InputError, match="no file fits"):
        read_source(str(tmp_path / "*.csv"))


def test_a_folder_of_parquet_is_one_table(tmp_path: Path) -> None:
    for name, values in (("1.parquet", [1, 2]), ("2.parquet", [3])):
        pl.DataFrame({"a": values}).write_parquet(tmp_path / name)
    frame = read_source(str(tmp_path))
    assert isinstance(frame, pl.DataFrame)
    assert frame["a"].to_list() == [1, 2, 3]
    pl.DataFrame({"a": ["x"]}).write_parquet(tmp_path / "3.parquet")
    with pytest.raises(InputError, match=r"3.parquet is not like 1.parquet \(the column 'a'\): give files"):
        read_source(str(tmp_path))


def test_settings_say_what_text_means(tmp_path: Path) -> None:
    source = write(tmp_path, Broken("t.csv", b"zip,size,name\n1,?,NA\n2,5,\n", ""))
    frame = read_source(source, Reading(missing=("?",), types={"zip": "text"}))
    assert isinstance(frame, pl.DataFrame)
    assert frame.rows() == [("1", None, "NA"), ("2", 5, None)]
    with pytest.raises(InputError, match=r"column 'name': 'x' is no number .*mend it"):
        read_source(write(tmp_path, Broken("u.csv", b"name\nx\n", "")), Reading(types={"name": "number"}))
    with pytest.raises(InputError, match="data.reading.types names 'nome', and t.csv has no such column"):
        read_source(source, Reading(types={"nome": "text"}))


def test_values_far_into_a_file_change_its_type_without_changing_what_came_before(tmp_path: Path) -> None:
    rows = [f"{i:07},{i},{i}" for i in range(1_000_000)]
    rows[-1] = "x,0.5,9"
    source = write(tmp_path, Broken("t.csv", "\n".join(["code,n,m", *rows]).encode(), ""))
    frame = read_source(source)
    assert isinstance(frame, pl.DataFrame)
    assert frame.row(3) == ("0000003", 3.0, 3)
    assert frame.row(-1) == ("x", 0.5, 9)


def test_rows_that_span_blocks_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("basekamp.data.csv_rows.BLOCK_BYTES", 64)
    value = 'long, "quoted"\n text' * 20
    content = "a,b\n" + "".join(f'{i},"{value.replace(chr(34), chr(34) * 2)}"\n' for i in range(20))
    frame = read_source(write(tmp_path, Broken("t.csv", content.encode(), "")))
    assert isinstance(frame, pl.DataFrame)
    assert frame.rows() == [(i, value) for i in range(20)]


def images_of(pack: str) -> bytes:
    """Four images in two classes, as an archive."""
    members = {f"{kind}/{i}.png": image() for kind in ("cat", "dog") for i in range(2)}
    if pack == ".zip":
        return packed(members)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(f"root/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return {".tgz": gzip.compress, ".tzst": zstd}.get(pack, bytes)(file.getvalue())


@pytest.mark.parametrize("pack", [".zip", ".tar", ".tgz", ".tzst"])
def test_an_archive_of_images_has_a_class_per_folder(tmp_path: Path, pack: str) -> None:
    table = read_source(write(tmp_path, Broken(f"animals{pack}", images_of(pack), "")))
    assert isinstance(table, ImageTable)
    assert (table.images.shape, table.target) == ((4, 3, 12, 16), "label")
    assert table.labels.tolist() == ["cat", "cat", "dog", "dog"]
    with Image.open(io.BytesIO(image())) as one:
        assert (table.images[0] == np.asarray(one).transpose(2, 0, 1)).all()


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("P", 3), ("RGBA", 4)])
def test_images_of_other_modes_are_read_exactly(tmp_path: Path, mode: str, channels: int) -> None:
    for name in ("a/1.png", "b/1.png"):
        write(tmp_path, Broken(name, image(mode=mode), ""))
    table = read_source(str(tmp_path))
    assert isinstance(table, ImageTable)
    with Image.open(io.BytesIO(image(mode=mode))) as one:
        plain = np.asarray(one.convert({"1": "L", "P": "RGB"}.get(mode, mode)))
    assert (table.images[1] == (plain[None] if channels == 1 else plain.transpose(2, 0, 1))).all()


def test_images_of_every_size_and_mode_are_made_alike_where_asked(tmp_path: Path) -> None:
    for name, content in (
        ("cat/wide.png", image(size=(40, 20))),
        ("cat/high.png", image(size=(10, 30))),
        ("cat/grey.png", image(size=(20, 20), mode="L")),
        ("dog/print.jpg", image("JPEG", size=(20, 20), mode="CMYK")),
        ("dog/palette.png", image(size=(20, 20), mode="P")),
        ("dog/Thumbs.db", b"made by a file manager"),
    ):
        write(tmp_path, Broken(name, content, ""))
    with pytest.raises(InputError, match=r"print.jpg has pixels of mode CMYK.*, or set data.reading.image_channels\."):
        read_source(str(tmp_path))
    (tmp_path / "dog/print.jpg").unlink()
    with pytest.raises(InputError, match=r"(wide|high).png is .*, or set data.reading.image_size\."):
        read_source(str(tmp_path), Reading(image_channels=3))
    with pytest.raises(InputError, match=r"grey.png is .* 1 channels, .*, or set data.reading.image_channels\."):
        read_source(str(tmp_path), Reading(image_size=20))
    table = read_source(str(tmp_path), Reading(image_size=20, image_channels=3))
    assert isinstance(table, ImageTable)
    assert table.images.shape == (4, 3, 20, 20)
    assert table.labels.tolist() == ["cat", "cat", "cat", "dog"]
    with Image.open(tmp_path / "cat/wide.png") as wide, Image.open(tmp_path / "cat/grey.png") as grey:
        assert (table.images[2] == np.asarray(wide.crop((10, 0, 30, 20))).transpose(2, 0, 1)).all()
        assert (table.images[0] == np.asarray(grey)).all()
    assert read_source(str(tmp_path), Reading(image_size=8, image_channels=1)).images.shape == (4, 1, 8, 8)


def test_images_that_cannot_be_used_are_put_aside_where_asked(tmp_path: Path) -> None:
    for name in ("cat/a.png", "cat/b.png", "dog/a.png"):
        write(tmp_path, Broken(f"animals/{name}", image(), ""))
    broken = [file for file in broken_images() if not file.name.endswith(".csv")]
    for file in broken:
        write(tmp_path, file._replace(name=f"animals/dog/{file.name}"))
    settings = DataSettings(source=str(tmp_path / "animals"), target="label", reading=Reading(on_bad_row="quarantine"))
    files, aside = local_files(settings.source, tmp_path), tmp_path / "quarantine.csv"
    table = read_local(settings.source, files, settings.reading, tmp_path, aside)
    assert isinstance(table, ImageTable)
    assert (len(table.images), table.labels.tolist(), table.quarantined) == (3, ["cat", "cat", "dog"], len(broken))
    told = pl.read_csv(aside)
    assert sorted(told["file"]) == sorted(f"dog/{file.name}" for file in broken)
    assert "damaged" in told.filter(file="dog/half.png")["reason"].item()
    write(tmp_path, Broken("none/cat/a.png", b"", ""))
    with pytest.raises(InputError, match=r"none of 1 images can be used \(the first: cat/a.png is damaged"):
        read_source(str(tmp_path / "none"), settings.reading)


def test_an_image_without_a_class_is_refused(tmp_path: Path) -> None:
    write(tmp_path, Broken("a.png", image(), ""))
    with pytest.raises(InputError, match="a.png in .* has no class: put the images of each class into a folder"):
        read_source(str(tmp_path))


def test_an_idx_pair_is_read_and_a_cut_one_refused(tmp_path: Path) -> None:
    pixels = np.arange(3 * 4 * 5, dtype=np.uint8)
    images = struct.pack(">IIII", 0x803, 3, 4, 5) + pixels.tobytes()
    labels = struct.pack(">II", 0x801, 3) + bytes([7, 0, 7])
    source = write(tmp_path, Broken("train-images-idx3-ubyte.gz", gzip.compress(images), ""))
    with pytest.raises(InputError, match="train-labels-idx1-ubyte.gz does not exist"):
        read_source(source)
    write(tmp_path, Broken("train-labels-idx1-ubyte.gz", gzip.compress(labels), ""))
    table = read_source(source)
    assert isinstance(table, ImageTable)
    assert (table.images.shape, table.labels.tolist()) == ((3, 1, 4, 5), [7, 0, 7])
    assert (table.images.ravel() == pixels).all()
    write(tmp_path, Broken("train-images-idx3-ubyte.gz", gzip.compress(images[:-1]), ""))
    with pytest.raises(InputError, match="declares 60 values and holds 59"):
        read_source(source)


def test_an_npz_that_declares_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40, 2)})
    file = Broken("t.npz", packed({"x.npy": header.getvalue(), "y.npy": header.getvalue()}), "")
    with pytest.raises(InputError, match="t.npz is not an .npz file of plain arrays"):
        read_source(write(tmp_path, file))
