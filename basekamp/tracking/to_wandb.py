"""A W&B run as a tracker; needs `pip install 'basekamp[wandb]'`.

WANDB_MODE=offline writes to $WANDB_DIR, or the work folder, what `wandb sync` sends later. The number of its line is a
point's step, and W&B drops a step that it has.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

from basekamp.tracking.spool import Event
from basekamp.work import work_directory

INIT_SECONDS = 30.0
MODEL = ".pth"


class WandbTracker:
    """One run in the project of the experiment's name, or $WANDB_PROJECT."""

    confirms = False

    def __init__(self) -> None:
        self.run: Any = None
        self.exit_code = 0

    def open(self, begin: Event) -> None:
        """Make the run under our own id, or go on with it."""
        import wandb

        folder = Path(os.environ.get("WANDB_DIR") or work_directory())
        folder.mkdir(parents=True, exist_ok=True)
        offline = os.environ.get("WANDB_MODE", "").lower() in ("offline", "dryrun")
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or begin["experiment"],
            id=begin["run"],
            name=begin["attempt"],
            config={**begin["params"], **begin["tags"]},
            resume=None if offline else "allow",
            dir=str(folder),
            settings=wandb.Settings(
                console="off", silent=True, disable_git=True, disable_code=True, init_timeout=INIT_SECONDS
            ),
        )
        self.run.define_metric("epoch")
        self.run.define_metric("*", step_metric="epoch")

    def send(self, events: list[Event]) -> None:
        """Tell events in order."""
        for event in events:
            getattr(self, f"_{event['kind']}")(event)

    def close(self) -> None:
        """Wait until W&B has all of it, or has written it to the disk."""
        self.run.finish(exit_code=self.exit_code)

    def _begin(self, event: Event) -> None:
        """All of it was told when the run was opened."""

    def _points(self, event: Event) -> None:
        self.run.log({**event["values"], "epoch": event["epoch"]}, step=event["index"])

    def _result(self, event: Event) -> None:
        self.run.summary.update({**event["metrics"], **event["tags"]})
        self.run.tags = (*(self.run.tags or ()), *(tag for tag in event["labels"] if tag not in (self.run.tags or ())))
        self.run.notes = event["note"]

    def _artifact(self, event: Event) -> None:
        import wandb

        from basekamp.storage import open_store

        kind = "model" if event["name"].endswith(MODEL) else "report"
        artifact = wandb.Artifact(f"{kind}-{self.run.id}", type=kind)
        with tempfile.TemporaryDirectory(prefix="basekamp-") as folder:
            path = Path(folder) / event["name"]
            open_store(event["store"]).fetch(event["key"], path, durable=False)
            artifact.add_file(str(path), name=event["name"])
            self.run.log_artifact(artifact)

    def _end(self, event: Event) -> None:
        self.exit_code = 0 if event["status"] == "FINISHED" else 1
