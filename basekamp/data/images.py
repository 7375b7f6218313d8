"""Images as files: a folder per class, or the IDX pair of MNIST. Every image is decoded whole, or refused by name.

n images, c channels, h x w pixels.
"""

import math
import struct
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from basekamp.data.archives import IMAGES, check_expansion
from basekamp.errors import InputError

LABEL = "label"
MOST_PIXELS = 1 << 24
CHANNELS = {"1": 1, "L": 1, "P": 3, "RGB": 3, "RGBA": 4}
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
    """Images uint8 [n, c, h, w], their labels [n], and what the label is called."""

    images: NDArray[np.uint8]
    labels: NDArray[Any]
    target: str


def image_files(folder: Path) -> list[Path]:
    """List the images in the sub-folders of a folder, by class and name.

    Raises: InputError for images without a class, and for files that are no images.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    for path in files:
        if path.suffix.lower() not in IMAGES:
            raise InputError(f"{path.relative_to(folder)} in {folder.name} is no image: take it out.")
        if path.parent == folder:
            raise InputError(f"{path.name} in {folder.name} has no class: put the images of each class into a folder.")
    return files


def read_images(files: list[Path]) -> ImageTable:
    """Read image files of one size; the folder of each is its class, the target is `label`.

    Raises: InputError naming the file that is damaged, of another kind than its name says, or of another size.
    """
    shapes = [_declared(path) for path in files]
    for path, shape in zip(files, shapes, strict=True):
        if shape != shapes[0]:
            raise InputError(
                f"{path.parent.name}/{path.name} is {_said(shape)}, and {files[0].name} is {_said(shapes[0])}: make "
                "all images alike."
            )
    stored = sum(path.stat().st_size for path in files)
    check_expansion(f"the folder {files[0].parent.parent.name}", stored, len(files) * math.prod(shapes[0]))
    images = np.empty((len(files), *shapes[0]), np.uint8)
    for index, path in enumerate(files):
        images[index] = _decoded(path, shapes[0])
    return ImageTable(images, np.array([path.parent.name for path in files]), LABEL)


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


def _said(shape: tuple[int, int, int]) -> str:
    return f"{shape[2]} x {shape[1]} pixels in {shape[0]} channels"


def _declared(path: Path) -> tuple[int, int, int]:
    """Read what an image says of itself, [c, h, w], before anything is decoded; and check its sums where it has any."""
    from PIL import Image

    name = f"{path.parent.name}/{path.name}"
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
    if mode not in CHANNELS or has_key:
        got = "a transparent colour" if has_key else f"pixels of mode {mode}"
        raise InputError(f"{name} has {got}, and only 8 bits of grey, RGB or RGBA are read: convert it.")
    return CHANNELS[mode], size[1], size[0]


def _decoded(path: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    from PIL import Image

    name = f"{path.parent.name}/{path.name}"
    content, suffix = path.read_bytes(), path.suffix.lower()
    is_cut_off = suffix in FORMATS["JPEG"] and not content.rstrip(b"\0").endswith(JPEG_END)
    if is_cut_off or (suffix == ".png" and content.find(PNG_END) + len(PNG_END) != len(content)):
        raise InputError(f"{name} is damaged (it does not end where its image does): replace it.")
    try:
        with Image.open(path) as image:
            image.load()
            plain = {"1": "L", "P": "RGB"}.get(image.mode, image.mode)
            pixels = np.asarray(image.convert(plain), np.uint8)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, TypeError) as error:
        raise InputError(f"{name} is damaged or cut off ({error}): replace it.") from error
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
