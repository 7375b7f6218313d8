"""What a training leaves beside its weights, as frozen values that need no torch to read."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from basekamp.document import load_document
from basekamp.training.files import replace_file

MODEL_FILE = "model.pth"
TRAINING_FILE = "training.json"
TRACE_FILE = "trace.json.gz"
"""Beside the model only where it was asked for."""


class Curves(BaseModel):
    """One finite value per epoch, `lr` the last of its epoch; the validation curves begin with the untrained model.

    An epoch that diverged is counted in `n_epochs` and has no value here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    train_loss: list[float]
    validation_loss: list[float]
    validation_metric: list[float]
    lr: list[float]


class Replicate(BaseModel):
    """One training with one seed. `best_epoch` is the one whose weights were kept; 0 is the untrained model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int
    n_epochs: int
    best_epoch: int
    seconds: float
    ended: Literal["finished", "early", "diverged"]
    curves: Curves


class Seconds(BaseModel):
    """Where the wall-clock time of a training went; what belongs to none of the four is in `total` alone.

    data: bringing the rows to the device, then gathering each batch or waiting for it. compute: the steps, up to the
    one wait for the device at each epoch's end. validation: judging the networks. checkpoint: how long the steps stood
    still for copies of the state. None where it is not told apart, as in boosting.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    total: float
    data: float | None = None
    compute: float | None = None
    validation: float | None = None
    checkpoint: float | None = None


class Performance(BaseModel):
    """How a training ran, summed over all processes that it took to end; None for what could not be read.

    device: the card's own name, or "cpu". processes: how many shared each batch; rows and FLOPs are those of all, while
    memory, utilisation and energy are those of rank 0 and its card. samples_per_second: training rows of all seeds by
    the seconds of computing (boosting: rows of all rounds by all of its seconds). memory_peak_bytes: most that PyTorch
    held on the card, or the process held of the machine's memory. gpu_utilisation: mean % of the time in which a kernel
    ran. energy_joules: what the whole card drew, whoever used it. flops_per_second: an estimate, of matrix products and
    convolutions forward and backward alone. peak_share: of the data sheet's peak in peak_precision, for known cards.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    processes: int = 1
    seconds: Seconds
    samples_per_second: float | None = None
    memory_peak_bytes: int | None = None
    gpu_utilisation: float | None = None
    energy_joules: float | None = None
    flops_per_second: float | None = None
    peak_share: float | None = None
    peak_precision: str | None = None


class Training(BaseModel):
    """All replicates of one attempt and what they ran on. `versions` maps package to version.

    commit: of the code, see basekamp.models.source; "" where nobody knows. Trainings of older releases have none, and
    no `performance`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hyperparameters: dict[str, int | float | bool | str | dict[str, int | float | bool | str]]
    metric: str
    n_parameters: int
    device: str
    versions: dict[str, str]
    commit: str = ""
    replicates: list[Replicate]
    performance: Performance | None = None

    def metadata(self) -> dict[str, str | int | float]:
        """What Kubeflow shows of the model: the device, and what is known of how it ran."""
        if self.performance is None:
            return {"device": self.device}
        told = self.performance.model_dump(exclude_none=True)
        seconds = {f"{phase}_seconds": value for phase, value in told.pop("seconds").items()}
        return {**told, **seconds, "device": self.device}

    def write(self, directory: Path) -> None:
        """Write `training.json` into the model's folder."""
        replace_file(directory / TRAINING_FILE, self.model_dump_json(indent=1).encode())

    @classmethod
    def read(cls, directory: Path) -> "Training":
        """Read `training.json` from the model's folder."""
        return load_document(cls, directory / TRAINING_FILE)
