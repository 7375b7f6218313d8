"""Images for pages: PNG in base64, to stand in a data: address."""

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray


def png_base64(pixels: NDArray[np.uint8], *, most_side: int | None = None) -> str:
    """uint8 [h, w] or [h, w, 3] as a PNG; with `most_side` shrunk by means of blocks until no side is longer."""
    from PIL import Image

    image, file = Image.fromarray(np.ascontiguousarray(pixels)), io.BytesIO()
    factor = -(-max(image.size) // most_side) if most_side else 1
    image.reduce(factor).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def as_pixels(image: NDArray[Any]) -> NDArray[np.uint8]:
    """uint8 [c, h, w] as [h, w, 3]: its first three channels, or its first one in grey."""
    channels = image[:3] if len(image) > 2 else np.repeat(image[:1], 3, axis=0)
    return np.ascontiguousarray(channels.transpose(1, 2, 0), dtype=np.uint8)


def stretched(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same, its brightest value 255: some data sets count from 0 to 16."""
    return (pixels.astype(np.float64) * 255 / max(1, int(pixels.max()))).astype(np.uint8)
