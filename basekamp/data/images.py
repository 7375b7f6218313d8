"""Images as files: a folder per class, or the IDX pair of MNIST. Every image is decoded whole, or refused by name.

n images, c channels, h x w pixels.
"""

import math
import struct
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from basekamp.data.archives import IMAGES, check_expansion, is_left_by_a_desktop
from basekamp.data.quarantine import BadRow, write_quarantine
from basekamp.errors import InputError

if TYPE_CHECKING:
    from basekamp.experiment import Reading

LABEL = "label"
MOST_PIXELS = 1 << 24
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
CHANNELS = {"1": 1, "L": 1, "P": 3, "RGB": 3, "RGBA": 4}
CONVERTED = (*CHANNELS, "LA", "PA", "CMYK", "YCbCr")
"""Modes of 8 bits, which become others without a loss of depth."""

FORMATS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "PPM": (".ppm", ".pgm"),
}
IDX_UINT8 = 0x08
JPEG_END, PNG_END = b"\xff\xd9", b"IEND\xaeB`\x82"


class ImageTable(NamedTuple):
    """Images uint8 [n, c, h, w], their labels [n], what the label is called, and how many images were put aside."""

    images: NDArray[np.uint8]
    labels: NDArray[Any]
    target: str
    quarantined: int = 0


Shape = tuple[int, int, int]


def image_files(folder: Path) -> list[Path]:
    """List the images in the sub-folders of a folder, by class and name.

    Raises: InputError for images without a class, and for files that are no images.
    """
    found = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    files = sorted(path for path in found if not is_left_by_a_desktop(path.name))
    for path in files:
        if path.suffix.lower() not in IMAGES:
            raise InputError(f"{path.relative_to(folder)} in {folder.name} is no image: take it out.")
        if path.parent == folder:
            raise InputError(f"{path.name} in {folder.name} has no class: put the images of each class into a folder.")
    return files


def read_images(files: list[Path], reading: "Reading", quarantine: Path | None = None) -> ImageTable:
    """Read image files; the folder of each is its class, the target is `label`.

    With `reading.image_size` each is cut at its centre to a square and scaled to so many pixels on a side, with
    `reading.image_channels` it is converted; without, all must be alike. Those that cannot be used are refused, or
    told of in `quarantine`.

    Raises: InputError naming the file that is damaged, of another kind than its name says, or unlike the others.
    """
    bad: dict[Path, str] = {}
    shapes: dict[Path, Shape] = {}
    for path in files:
        with _or_aside(path, reading, bad):
            shapes[path] = _shape(path, reading)
    alike = Counter(shapes.values()).most_common(1)[0][0] if shapes else (0, 0, 0)
    example = next((path for path, shape in shapes.items() if shape == alike), files[0])
    stored = sum(path.stat().st_size for path in files)
    check_expansion(f"the folder {files[0].parent.parent.name}", stored, len(shapes) * math.prod(alike))
    images = np.empty((len(shapes), *alike), np.uint8)
    kept: list[Path] = []
    for path, shape in shapes.items():
        with _or_aside(path, reading, bad):
            _check_alike(path, shape, example, alike)
            images[len(kept)] = _decoded(path, shape[0], reading.image_size)
            kept.append(path)
    if not kept:
        raise InputError(
            f"none of {len(files)} images can be used (the first: {next(iter(bad.values()))}): give whole images."
        )
    if quarantine:
        for path, reason in bad.items():
            write_quarantine(quarantine, _name(path), [BadRow(1, reason, b"")])
    labels = np.array([path.parent.name for path in kept])
    return ImageTable(images[: len(kept)], labels, LABEL, len(bad))


@contextmanager
def _or_aside(path: Path, reading: "Reading", bad: dict[Path, str]) -> Iterator[None]:
    """Keep in `bad` why an image cannot be used, unless that is to be refused."""
    try:
        yield
    except InputError as error:
        if reading.on_bad_row == "refuse":
            raise
        bad[path] = str(error)


def read_idx(path: Path, labels: Path) -> ImageTable:
    """Read images and labels in the IDX format of MNIST, each a plain file.

    Raises: InputError. Source: Y. LeCun, the MNIST database, "the IDX file format".
    """
    images, named = _idx(path, axes=3), _idx(labels, axes=1)
    if len(images) != len(named):
        raise InputError(f"{path.name} holds {len(images)} images and {labels.name} {len(named)} labels: use one pair.")
    return ImageTable(images[:, None], named.astype(np.int64), LABEL)


def _idx(path: Path, *, axes: int) -> NDArray[np.uint8]:
    content = path.read_bytes()
    if len(content) < 4 + 4 * axes or content[:4] != bytes([0, 0, IDX_UINT8, axes]):
        raise InputError(f"{path.name} is no IDX file of {axes} axes of bytes: check the source.")
    shape = struct.unpack(f">{axes}I", content[4 : 4 + 4 * axes])
    held = len(content) - 4 - 4 * axes
    if math.prod(shape) != held or not held:
        raise InputError(f"{path.name} declares {math.prod(shape):,} values and holds {held:,}: fetch it again.")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _shape(path: Path, reading: "Reading") -> Shape:
    """The shape [c, h, w] that an image will have."""
    c, h, w = _declared(path, reading.image_channels)
    return c, reading.image_size or h, reading.image_size or w


def _check_alike(path: Path, shape: Shape, example: Path, alike: Shape) -> None:
    if shape != alike:
        key = "image_channels" if shape[0] != alike[0] else "image_size"
        raise InputError(
            f"{_name(path)} is {_said(shape)}, and {_name(example)} is {_said(alike)}: make all images alike, or set "
            f"data.reading.{key}."
        )


def _said(shape: Shape) -> str:
    return f"{shape[2]} x {shape[1]} pixels in {shape[0]} channels"


def _declared(path: Path, channels: int) -> Shape:
    """Read what an image says of itself, [c, h, w], before anything is decoded; and check its sums where it has any.

    With `channels` it is one that can be converted to so many.
    """
    from PIL import Image

    name = _name(path)
    try:
        with warnings.catch_warnings(), Image.open(path, formats=list(FORMATS)) as image:
            warnings.simplefilter("ignore")
            kind, mode, size, frames = str(image.format), image.mode, image.size, getattr(image, "n_frames", 1)
            has_key = "transparency" in image.info
            if size[0] * size[1] <= MOST_PIXELS:
                image.verify()
    except Image.DecompressionBombError as error:
        raise InputError(f"{name} declares {MOST_PIXELS:,} pixels or more: make it smaller.") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, TypeError) as error:
        raise InputError(f"{name} is damaged or no image: replace it.") from error
    if path.suffix.lower() not in FORMATS.get(kind, ()):
        raise InputError(f"{name} is {kind} and not what its name says: rename it.")
    if size[0] * size[1] > MOST_PIXELS:
        raise InputError(f"{name} declares {size[0]} x {size[1]} pixels, more than {MOST_PIXELS:,}: make it smaller.")
    if frames != 1:
        raise InputError(f"{name} holds {frames} images: keep one of them.")
    if channels and mode in CONVERTED:
        return channels, size[1], size[0]
    if mode not in CHANNELS or has_key:
        got = "a transparent colour" if has_key else f"pixels of mode {mode}"
        hint = ", or set data.reading.image_channels" if mode in CONVERTED else ""
        raise InputError(f"{name} has {got}, and only 8 bits of grey, RGB or RGBA are read: convert it{hint}.")
    return CHANNELS[mode], size[1], size[0]


def _decoded(path: Path, channels: int, size: int) -> NDArray[np.uint8]:
    """The pixels [c, h, w] of a whole image; with `size` a square from its centre, scaled."""
    from PIL import Image, ImageOps

    name = _name(path)
    content, suffix = path.read_bytes(), path.suffix.lower()
    is_cut_off = suffix in FORMATS["JPEG"] and not content.rstrip(b"\0").endswith(JPEG_END)
    if is_cut_off or (suffix == ".png" and content.find(PNG_END) + len(PNG_END) != len(content)):
        raise InputError(f"{name} is damaged (it does not end where its image does): replace it.")
    try:
        with Image.open(path) as image:
            image.load()
            plain = image.convert(MODES[channels])
            pixels = np.asarray(ImageOps.fit(plain, (size, size)) if size else plain, np.uint8)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, TypeError) as error:
        raise InputError(f"{name} is damaged or cut off ({error}): replace it.") from error
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
