"""Files that are broken, each with what must be said of it, and odd files that are not, each with its true values."""

import gzip
import io
import math
import struct
import tarfile
import zipfile
import zlib
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from PIL import Image

ROWS = 200


class Broken(NamedTuple):
    """A file's name and bytes, and a pattern of what a reader has to say: file, row and column where there are any."""

    name: str
    content: bytes
    told: str


class Odd(NamedTuple):
    """A file's name and bytes, and the columns that it holds."""

    name: str
    content: bytes
    columns: dict[str, list[Any]]


def lines(rows: int = ROWS) -> list[bytes]:
    """A table in order: a whole number, a fraction, a colour and a sentence."""
    body = [f"{i},{i / 4},{['red', 'green', 'blue'][i % 3]},row number {i}".encode() for i in range(rows)]
    return [b"id,size,color,text", *body]


def text(rows: list[bytes], end: bytes = b"\n") -> bytes:
    """Lines as a file."""
    return end.join(rows) + end


def with_line(number: int, line: bytes) -> bytes:
    """The table with one line, counted from 1, replaced."""
    rows = lines()
    rows[number - 1] = line
    return text(rows)


def broken_csvs() -> list[Broken]:
    """60 files that hold something else than the table they seem to hold."""
    plain = text(lines())
    middle = {
        "ragged-more": (b"1,0.5,red,a,b", "has 5 values"),
        "ragged-fewer": (b"1,0.5,red", "has 3 values"),
        "one-value": (b"1", "has 1 values"),
        "trailing-comma": (b"1,0.5,red,a,", "has 5 values"),
        "decimal-comma": (b"1,0,5,red,a", "has 5 values"),
        "unquoted-comma": (b"1,0.5,red,a, b and c", "has 5 values"),
        "quote-opens-late": (b'1,0.5,red,a "b" c', "has a quote"),
        "quote-closes-early": (b'1,0.5,"red"ish,a', "has a quote"),
        "inch-mark": (b'1,0.5,5" pipe,a', "has a quote"),
        "quote-not-doubled": (b'1,0.5,"a "big" red",a', "has a quote"),
        "space-before-quote": (b'1,0.5, "red",a', "has a quote"),
        "backslash-quote": (rb'1,0.5,"a \"big\" red",a', "has a quote"),
        "unclosed-quote": (b'1,0.5,"red,a', "has a quote"),
        "single-stray-quote": (b'1,0.5,red",a', "has a quote"),
        "nul-byte": (b"1,0.5,re\0d,a", "has a NUL byte"),
        "nul-run": (b"\0" * 40, "has a NUL byte|has 1 values"),
        "latin-1": (b"1,0.5,caf\xe9,a", "0xe9, which is not UTF-8"),
        "windows-1252": (b"1,0.5,red,it\x92s", "0x92, which is not UTF-8"),
        "half-a-character": (b"1,0.5,red,\xe2\x82", "0xe2, which is not UTF-8"),
        "overlong-utf8": (b"1,0.5,red,\xc0\xaf", "0xc0, which is not UTF-8"),
        "surrogate": (b"1,0.5,red,\xed\xa0\x80", "0xed, which is not UTF-8"),
        "lone-return": (b"1,0.5,red\rblue,a", "carriage return"),
        "second-header": (b"id,size,color,text", "repeats the header"),
        "word-among-numbers": (b"1,abc,red,a", "column 'size': 'abc' is no number"),
        "question-mark": (b"1,?,red,a", r"column 'size': '\?' is no number"),
        "null-word": (b"1,null,red,a", "column 'size': 'null' is no number"),
        "dash": (b"1,-,red,a", "column 'size': '-' is no number"),
        "unit": (b"1,5 cm,red,a", "column 'size': '5 cm' is no number"),
        "percent": (b"1,5%,red,a", "column 'size': '5%' is no number"),
        "thousands": (b'1,"1,000",red,a', "column 'size': '1,000' is no number"),
        "underscore": (b"1,1_000,red,a", "column 'size': '1_000' is no number"),
        "hexadecimal": (b"0x1F,1,red,a", "column 'id': '0x1F' is no number"),
        "two-points": (b"1,1.2.3,red,a", "column 'size': '1.2.3' is no number"),
        "no-break-space": ("1,1\u00a0000,red,a".encode(), "column 'size': .* is no number"),
        "minus-sign": ("1,\u22125,red,a".encode(), "column 'size': .* is no number"),
        "arabic-digits": ("\u0661\u0662,1,red,a".encode(), "column 'id': .* is no number"),
        "too-large": (b"1,1e999,red,a", "column 'size': '1e999' is no number that can be kept exactly"),
        "too-small": (b"1,1e-999,red,a", "column 'size': '1e-999' is no number that can be kept exactly"),
        "whole-beyond-float": (b"1,9007199254740993,red,a", "column 'size': '9007199254740993' is no number"),
        "whole-beyond-int": (b"99999999999999999999,1,red,a", "column 'id': '99999999999999999999' is no number"),
        "one-code": (b"007,1,red,a", "column 'id': '007' is no number"),
        "true-in-numbers": (b"true,1,red,a", "column 'id': 'true' is no number"),
        "date-in-numbers": (b"2024-01-01,1,red,a", "column 'id': '2024-01-01' is no number"),
        "conflict-marker": (b"<<<<<<< HEAD", "has 1 values"),
        "html-row": (b"<tr><td>1</td></tr>", "has 1 values"),
    }
    files = [
        Broken(f"{name}.csv", with_line(90, line), f"line 90 of {name}.csv.*{told}")
        for name, (line, told) in middle.items()
    ]
    dated = [b"day,n", *(f"2024-01-{1 + i % 28:02},{i}".encode() for i in range(ROWS))]
    dated[50] = b"2024-02-30,1"
    flags = [b"flag,n", *(f"{'true' if i % 3 else 'false'},{i}".encode() for i in range(ROWS))]
    flags[50] = b"maybe,1"
    files += [
        Broken("no-such-day.csv", text(dated), "line 51 of .*column 'day': '2024-02-30' is no ISO date"),
        Broken("maybe-true.csv", text(flags), "line 51 of .*column 'flag': 'maybe' is no true or false"),
        Broken("cut-off.csv", plain[: plain.rindex(b",red")], "line 200 of cut-off.csv has 2 values"),
        Broken("header-twice-named.csv", plain.replace(b"size", b"id", 1), r"\(line 1\) has the column 'id' twice"),
        Broken("header-unnamed.csv", plain.replace(b"size", b"", 1), r"\(line 1\) has no name for column 2"),
        Broken("no-header.csv", text([line.partition(b",red")[0] for line in [b"1,2", b"3,4"]]), "numbers only"),
        Broken("utf-16.csv", plain.decode().encode("utf-16"), "is UTF-16 or UTF-32 text"),
        Broken("utf-16-unmarked.csv", plain.decode().encode("utf-16-le"), r"\(line 1\) holds a NUL byte"),
        Broken("packed.csv", gzip.compress(plain), "is gzip, not what its name says"),
        Broken("sheet.csv", packed({"xl/workbook.xml": b"<x/>"}), "is a zip archive"),
        Broken("page.csv", b"<!DOCTYPE html><html><body>404</body></html>\n", "is HTML or XML"),
        Broken("old-mac.csv", text(lines(), b"\r"), "lone carriage return"),
        Broken("two-delimiters.csv", b"a,b;c\n1,2;3\n4,5;6\n", "could be separated by ',' or ';'"),
        Broken("cut-off.csv.gz", gzip.compress(plain)[:-400], "cut-off.csv.gz is damaged or cut off"),
        Broken(
            "bomb.csv.gz",
            gzip.compress(b"a,b\n") + gzip.compress(b"0,0\n" * (1 << 18)) * 300,
            "bomb.csv.gz .*decompression bomb",
        ),
    ]
    return files


def packed(members: dict[str, bytes]) -> bytes:
    """A zip archive of these members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def odd_csvs() -> list[Odd]:
    """20 files that a careless reader alters, with the values that they hold."""
    big = [2**63 - 1, -(2**63), 2**53 + 1]
    days = [datetime(2024, 2, 29, 0, minute, tzinfo=UTC) for minute in (0, 1, 2, 3)]
    days.append(datetime(1969, 12, 31, 23, 59, 59, 999999, UTC))
    return [
        Odd("mark.csv", b"\xef\xbb\xbfa,b\n1,x\n", {"a": [1], "b": ["x"]}),
        Odd("crlf.csv", b"a,b\r\n1,x\r\n2,y\r\n", {"a": [1, 2], "b": ["x", "y"]}),
        Odd("mixed-ends.csv", b"a,b\r\n1,x\n2,y\r\n", {"a": [1, 2], "b": ["x", "y"]}),
        Odd("no-last-end.csv", b"a,b\n1,x\n2,y", {"a": [1, 2], "b": ["x", "y"]}),
        Odd("quotes.csv", b'a,b\n1,"say ""hi"""\n2,""""\n', {"a": [1, 2], "b": ['say "hi"', '"']}),
        Odd("ends-in-quotes.csv", b'a,b\n1,"x\ny"\n2,"x\r\ny\r"\n', {"a": [1, 2], "b": ["x\ny", "x\r\ny\r"]}),
        Odd("commas-in-quotes.csv", b'"a,1",b\n1,"x,y"\n', {"a,1": [1], "b": ["x,y"]}),
        Odd("utf-8.csv", "größe,名\n1,😀é\n2,ﬁ\u200b\n".encode(), {"größe": [1, 2], "名": ["😀é", "ﬁ\u200b"]}),
        Odd("huge.csv", text([b"a", *(str(v).encode() for v in big)]), {"a": big}),
        Odd("unsigned.csv", b"a\n18446744073709551615\n18446744073709551614\n", {"a": [2**64 - 1, 2**64 - 2]}),
        Odd("beyond.csv", b"a\n123456789012345678901\n5\n", {"a": ["123456789012345678901", "5"]}),
        Odd("inf.csv", b"a,b\ninf,1.5\n-Infinity,2\n", {"a": [math.inf, -math.inf], "b": [1.5, 2.0]}),
        Odd("codes.csv", b"zip,n\n00501,1\n10001,2\n02134,3\n", {"zip": ["00501", "10001", "02134"], "n": [1, 2, 3]}),
        Odd("spaces.csv", b'a,b\n 1 , x y \n2,"  z "\n', {"a": [1, 2], "b": ["x y", "  z "]}),
        Odd("missing.csv", b'a,b\n,x\n2,\nNA,""\n', {"a": [None, 2, None], "b": ["x", None, None]}),
        Odd("blank-lines.csv", b"\n\na,b\n\n1,x\n   \n2,y\n\n", {"a": [1, 2], "b": ["x", "y"]}),
        Odd(
            "floats.csv",
            b"a\n0.1\n1e-7\n-0.0\n5e-324\n1.7976931348623157e308\n",
            {"a": [0.1, 1e-7, -0.0, 5e-324, 1.7976931348623157e308]},
        ),
        Odd("semicolons.csv", b'a;b\n1;"x;y"\n2;3,5\n', {"a": [1, 2], "b": ["x;y", "3,5"]}),
        Odd(
            "days.csv",
            b"t\n2024-02-29\n2024-02-29 00:01\n2024-02-29T02:02:00+02:00\n2024-02-29T00:03:00Z\n"
            b"1969-12-31T23:59:59.999999Z\n",
            {"t": days},
        ),
        Odd(
            "words.csv",
            b"a,b\nNone,no\nnull,#1\nNaN or so,=1+1\n",
            {"a": ["None", "null", "NaN or so"], "b": ["no", "#1", "=1+1"]},
        ),
    ]


def parquet(rows: int = 2000) -> bytes:
    """A Parquet file of a number and a text, packed."""
    file = io.BytesIO()
    values = np.random.default_rng(0).normal(size=rows)
    pl.DataFrame({"size": values, "text": [f"row {v}" for v in values]}).write_parquet(file, compression="zstd")
    return file.getvalue()


def broken_parquets() -> list[Broken]:
    """20 files that are no whole Parquet."""
    good, other = parquet(), io.BytesIO()
    pl.DataFrame({"a": [1, 2]}).write_ipc(other)
    footer = len(good) - 8 - int.from_bytes(good[-8:-4], "little")
    zeros, half = bytes(len(good)), len(good) // 2
    empty, bare, endless = io.BytesIO(), io.BytesIO(), io.BytesIO()
    pl.DataFrame({"a": []}, schema={"a": pl.Int64}).write_parquet(empty)
    pl.DataFrame().write_parquet(bare)
    pl.DataFrame({"a": pl.Series([None], dtype=pl.Boolean).new_from_index(0, 300 << 20)}).write_parquet(endless)
    cut, damaged = "is a Parquet file that is cut off", "cannot be read as Parquet|is damaged"
    files = {
        "half": (good[:half], cut),
        "without-end": (good[:-4], cut),
        "without-footer": (good[:footer], cut),
        "beginning": (good[:4], cut),
        "head-changed": (b"PAR2" + good[4:], "is not a Parquet file"),
        "end-changed": (good[:-4] + b"PAR2", cut),
        "end-missing": (good + b"\n", cut),
        "footer-too-long": (good[:-8] + b"\xff\xff\xff\x7f" + good[-4:], cut),
        "footer-of-nothing": (good[:-8] + bytes(4) + good[-4:], damaged),
        "footer-of-zeros": (good[:footer] + bytes(len(good) - 8 - footer) + good[-8:], damaged),
        "footer-of-ones": (good[:footer] + b"\xff" * (len(good) - 8 - footer) + good[-8:], damaged),
        "middle-missing": (good[:100] + good[2100:], damaged),
        "pages-of-zeros": (good[:4] + bytes(footer - 4) + good[footer:], damaged),
        "csv": (text(lines()), "is not a Parquet file"),
        "zeros": (zeros, "is not a Parquet file"),
        "packed": (gzip.compress(good), "is not a Parquet file"),
        "arrow": (other.getvalue(), "is not a Parquet file"),
        "no-rows": (empty.getvalue(), "holds no rows"),
        "encrypted": (good[:-4] + b"PARE", "is encrypted"),
        "bomb": (endless.getvalue(), "decompression bomb"),
        "no-columns": (bare.getvalue(), "holds no rows|cannot be read"),
    }
    return [Broken(f"{name}.parquet", content, f"{name}.parquet.*({told})") for name, (content, told) in files.items()]


def image(kind: str = "PNG", size: tuple[int, int] = (16, 12), mode: str = "RGB", **options: Any) -> bytes:
    """An image of noise."""
    pixels = np.random.default_rng(1).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


def broken_images() -> list[Broken]:
    """20 files that are no whole image of 16 x 12 pixels in RGB, as `dog/NAME` beside images that are."""
    png, jpeg, gif, bmp = image(), image("JPEG"), image("GIF"), image("BMP")
    huge = png[:16] + struct.pack(">II", 100_000, 100_000) + png[24:29]
    huge += struct.pack(">I", zlib.crc32(huge[12:29])) + png[33:]
    animated = io.BytesIO()
    frames = [Image.new("RGB", (16, 12), color) for color in ("red", "blue")]
    frames[0].save(animated, "GIF", save_all=True, append_images=frames[1:])
    deep, key = io.BytesIO(), io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint16).reshape(12, 16) * 300).save(deep, "PNG")
    Image.new("P", (16, 12)).save(key, "PNG", transparency=0)
    damaged = "is damaged"
    files = {
        "half.png": (png[: len(png) // 2], damaged),
        "without-end.png": (png[:-12], damaged),
        "flipped.png": (png[:100] + bytes([png[100] ^ 1]) + png[101:], damaged),
        "wrong-sum.png": (png[:29] + bytes(4) + png[33:], damaged),
        "behind-it.png": (png + png, damaged),
        "empty.png": (b"", damaged),
        "words.png": (b"not an image at all\n" * 20, damaged),
        "page.jpg": (b"<!DOCTYPE html><html></html>", damaged),
        "half.jpg": (jpeg[: len(jpeg) // 2], damaged),
        "without-end.jpg": (jpeg[:-2], damaged),
        "half.gif": (gif[: len(gif) // 2], damaged),
        "half.bmp": (bmp[: len(bmp) // 2], damaged),
        "is-a-jpeg.png": (jpeg, "is JPEG and not what its name says"),
        "is-a-png.jpg": (png, "is PNG and not what its name says"),
        "larger.png": (image(size=(17, 12)), "is 17 x 12 pixels in 3 channels, and .* is 16 x 12"),
        "grey.png": (image(mode="L"), "is 16 x 12 pixels in 1 channels"),
        "deep.png": (deep.getvalue(), "has pixels of mode I;16"),
        "print.jpg": (image("JPEG", mode="CMYK"), "has pixels of mode CMYK"),
        "see-through.png": (key.getvalue(), "has a transparent colour"),
        "moving.gif": (animated.getvalue(), "holds 2 images"),
        "bomb.png": (huge, "declares .* pixels"),
        "table.csv": (text(lines()), "is no image"),
    }
    return [Broken(name, content, f"{name}.* {told}") for name, (content, told) in files.items()]


def hostile_archives() -> list[Broken]:
    """Archives whose members lead elsewhere, are no plain files, or unpack to more than they may."""
    png = image()
    linked = zipfile.ZipInfo("cat/a.png")
    linked.external_attr = 0o120777 << 16
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(linked, "/etc/passwd")
    bomb = packed({"t.csv": b"a\n" + bytes(300 << 20)})
    return [
        Broken("up.zip", packed({"../../up.png": png}), "leads out of it"),
        Broken("up-backwards.zip", packed({"cat\\..\\..\\up.png": png, "cat/a.png": png}), "leads out of it"),
        Broken("root.zip", packed({"/tmp/up.png": png}), "leads out of it"),
        Broken("link.zip", file.getvalue(), "is a link"),
        Broken("bomb.zip", bomb, "decompression bomb"),
        Broken("two-tables.zip", packed({"a.csv": b"a\n1\n", "b.csv": b"a\n1\n"}), "pack one table, or images only"),
        Broken("half.zip", packed({"a.csv": text(lines())})[:-100], "is damaged or cut off"),
        Broken("flipped.zip", flipped(packed({"a.csv": text(lines())}), 60), "is damaged or cut off"),
        Broken("up.tar", tarred("../../up.png", png), "leads out of it"),
        Broken("root.tar", tarred("/tmp/up.png", png), "leads out of it"),
        Broken("link.tar", tarred("cat/a.png", b"", tarfile.SYMTYPE), "is a link or no plain file"),
        Broken("hard-link.tar", tarred("cat/a.png", b"", tarfile.LNKTYPE), "is a link or no plain file"),
        Broken("device.tar", tarred("cat/a.png", b"", tarfile.CHRTYPE), "is a link or no plain file"),
        Broken("half.tar.gz", gzip.compress(tarred("cat/a.png", png))[:-100], "is damaged or cut off"),
        Broken("no-class.zip", packed({"t.csv.exe": b"MZ"}), "kind of .* is not known"),
    ]


def flipped(content: bytes, place: int) -> bytes:
    """The bytes with one bit turned."""
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


def tarred(name: str, content: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A tar archive of one member."""
    member = tarfile.TarInfo(name)
    member.type, member.size, member.linkname = kind, len(content), "/etc/passwd"
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(member, io.BytesIO(content))
    return file.getvalue()
