"""Fashion-MNIST as a prepared data set: 55,000 images to train on, 5,000 to validate, the 10,000 test images apart.

The files are those of Debian's package dataset-fashion-mnist (MIT; Xiao, Rasul and Vollgraf, 2017).
"""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from basekamp.data.dataset import Cleaning, Dataset, Schema, SplitArrays, content_fingerprint, load_dataset, save_split
from basekamp.data.encoding import pixel_statistics
from basekamp.work import work_directory

FILES = Path("/usr/share/datasets/fashion-mnist")
N_VALIDATION = 5_000
CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


def fashion_mnist() -> Dataset:
    """The data set, prepared once under the work folder."""
    folder = work_directory() / "benchmarks" / "fashion-mnist"
    if not (folder / "schema.json").is_file():
        _prepare(folder)
    return load_dataset(folder)


def _prepare(folder: Path) -> None:
    if not FILES.is_dir():
        raise SystemExit("Fashion-MNIST is not there: apt-get install dataset-fashion-mnist")
    images, labels = (_read(f"train-{name}") for name in ("images-idx3-ubyte", "labels-idx1-ubyte"))
    tests, test_labels = (_read(f"t10k-{name}") for name in ("images-idx3-ubyte", "labels-idx1-ubyte"))
    at = len(images) - N_VALIDATION
    splits = {
        "train": _split(images[:at], labels[:at]),
        "validation": _split(images[at:], labels[at:]),
        "test": _split(tests, test_labels),
    }
    mean, std = pixel_statistics(splits["train"].x)
    schema = Schema(
        source=str(FILES),
        fingerprint="fashion-mnist",
        target="label",
        task="classification",
        kind="image",
        classes=CLASSES,
        input_shape=splits["train"].x.shape[1:],
        pixel_mean=mean,
        pixel_std=std,
        rows={name: len(arrays.y) for name, arrays in splits.items()},
        floor=dict.fromkeys(splits, 0.1),
        cleaning=Cleaning(),
    )
    for name, arrays in splits.items():
        save_split(folder, name, arrays)
    schema = schema.model_copy(update={"dataset_fingerprint": content_fingerprint(schema, folder)})
    (folder / "schema.json").write_text(schema.model_dump_json())


def _split(images: NDArray[Any], labels: NDArray[Any]) -> SplitArrays:
    return SplitArrays(images[:, None], labels.astype(np.int64), np.arange(len(labels), dtype=np.uint64))


def _read(name: str) -> NDArray[np.uint8]:
    """An IDX file: two zero bytes, the type, the number of dimensions, each size as big-endian int32, the values."""
    data = gzip.decompress((FILES / f"{name}.gz").read_bytes())
    sizes = np.frombuffer(data, ">i4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(sizes)
