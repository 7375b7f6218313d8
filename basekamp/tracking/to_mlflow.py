"""An MLflow run as a tracker; needs `pip install 'basekamp[mlflow]'`.

The run carries the tag `basekamp.run`, by which it is found again. A metric that it has of a step is not sent twice,
whatever the server makes of repeated points.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from basekamp.tracking.spool import Event

RUN_TAG = "basekamp.run"
MOST_METRICS, MOST_OTHERS = 1000, 100
"""What one request may carry. Source: MLflow's REST API, runs/log-batch."""

LONGEST_PARAM, LONGEST_TAG = 500, 5000
"""What every server since 1.0 takes."""

PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""Unless the environment says otherwise: what fails is tried again later, by us."""


class MlflowTracker:
    """One run on the server that MLFLOW_TRACKING_URI names."""

    confirms = True

    def __init__(self) -> None:
        os.environ |= PATIENCE | {name: os.environ[name] for name in PATIENCE if name in os.environ}
        from mlflow import MlflowClient

        self.client = MlflowClient()
        self.run_id = ""
        self.known: dict[str, set[int]] = {}
        self.is_new = False

    def open(self, begin: Event) -> None:
        """Find the run by its tag, or make it in the experiment of ours' name."""
        experiment_id = self._experiment(begin["experiment"])
        found = self.client.search_runs([experiment_id], f"tags.`{RUN_TAG}` = '{begin['run']}'", max_results=1)
        self.is_new = not found
        if found:
            self.run_id = found[0].info.run_id
            return
        tags = {**_short(begin["tags"], LONGEST_TAG), RUN_TAG: begin["run"]}
        made = self.client.create_run(experiment_id, start_time=begin["time"], tags=tags, run_name=begin["attempt"])
        self.run_id = made.info.run_id

    def send(self, events: list[Event]) -> None:
        """Tell events in order, the points of many epochs in one request."""
        points: list[Event] = []
        for event in events:
            if event["kind"] == "points":
                points.append(event)
                continue
            self._send_points(points)
            points = []
            getattr(self, f"_{event['kind']}")(event)
        self._send_points(points)

    def close(self) -> None:
        """Nothing is held."""

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        try:
            return str(self.client.create_experiment(name))
        except MlflowException:
            found = self.client.get_experiment_by_name(name)  # another run was quicker
            if found is None:
                raise
            return str(found.experiment_id)

    def _begin(self, event: Event) -> None:
        from mlflow.entities import Param

        params = [Param(key, value) for key, value in _short(event["params"], LONGEST_PARAM).items()]
        for some in _parts(params, MOST_OTHERS):
            self.client.log_batch(self.run_id, params=some)

    def _send_points(self, events: list[Event]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(key, value, event["time"], event["epoch"])
            for event in events
            for key, value in event["values"].items()
            if not self._knows(key, event["epoch"])
        ]
        for some in _parts(metrics, MOST_METRICS):
            self.client.log_batch(self.run_id, metrics=some)

    def _knows(self, key: str, step: int) -> bool:
        """Whether a run that was there before has a metric's point of this step."""
        if self.is_new:
            return False
        if key not in self.known:
            self.known[key] = {point.step for point in self.client.get_metric_history(self.run_id, key)}
        return step in self.known[key]

    def _result(self, event: Event) -> None:
        from mlflow.entities import RunTag

        self._send_points([{"values": event["metrics"], "epoch": 0, "time": event["time"]}])
        told = _short({**event["tags"], "mlflow.note.content": event["note"]}, LONGEST_TAG)
        self.client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in told.items()])

    def _artifact(self, event: Event) -> None:
        from basekamp.storage import open_store

        with tempfile.TemporaryDirectory(prefix="basekamp-") as folder:
            path = Path(folder) / event["name"]
            open_store(event["store"]).fetch(event["key"], path, durable=False)
            self.client.log_artifact(self.run_id, str(path))

    def _end(self, event: Event) -> None:
        self.client.set_terminated(self.run_id, event["status"], event["time"])


def _short(values: dict[str, Any], longest: int) -> dict[str, str]:
    texts = {key: str(value) for key, value in values.items()}
    return {key: text if len(text) <= longest else f"{text[: longest - 1]}…" for key, text in texts.items()}


def _parts(values: list[Any], size: int) -> Iterator[list[Any]]:
    return (values[start : start + size] for start in range(0, len(values), size))
