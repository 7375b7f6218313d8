"""What a training leaves beside its weights, as frozen values that need no torch to read."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from basekamp.training.files import replace_file

MODEL_FILE = "model.pth"
TRAINING_FILE = "training.json"


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


class Training(BaseModel):
    """All replicates of one attempt and what they ran on. `versions` maps package to version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hyperparameters: dict[str, int | float | bool | str | dict[str, int | float | bool | str]]
    metric: str
    n_parameters: int
    device: str
    versions: dict[str, str]
    replicates: list[Replicate]

    def write(self, directory: Path) -> None:
        """Write `training.json` into the model's folder."""
        replace_file(directory / TRAINING_FILE, self.model_dump_json(indent=1).encode())

    @classmethod
    def read(cls, directory: Path) -> "Training":
        """Read `training.json` from the model's folder."""
        return cls.model_validate_json((directory / TRAINING_FILE).read_bytes())
