"""MLflow, where MLFLOW_TRACKING_URI names a server or a folder. MLFLOW_EXPERIMENT_NAME names the experiment."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from flows.session.trackers._base import Ending, Subject, Value

BATCH = 1000  # metrics of one request, MLflow's limit
STATES: dict[Ending, str] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class MLflow:
    """One MLflow run."""

    def start(self, subject: Subject, id: str | None) -> str:
        # A server that is gone is given up after seconds; MLflow's own limits are minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        from mlflow.entities import Param, RunTag
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
        if id is not None:
            self._client.update_run(id, status="RUNNING")
            self._id = id
            return id
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "flowctl")
        there = self._client.get_experiment_by_name(experiment)
        number = there.experiment_id if there else self._client.create_experiment(experiment)
        self._id = self._client.create_run(number, run_name=subject.name).info.run_id
        facts = {"recipe": subject.recipe, "stage": subject.stage, "kind": subject.kind, "seed": subject.seed}
        tags = [RunTag(key, str(value)) for key, value in {**facts, "fingerprint": subject.fingerprint}.items()]
        params = [Param(key, str(value)) for key, value in subject.parameters.items()]
        self._client.log_batch(self._id, params=params, tags=tags)
        return self._id

    def curves(self, lines: list[dict[str, float]]) -> None:
        self._log([(name, value, line["images"]) for line in lines for name, value in line.items() if name != "images"])

    def picture(self, path: Path, images: int) -> None:
        self._client.log_artifact(self._id, str(path), "samples")

    def results(self, numbers: Mapping[str, float], scores: list[Value]) -> None:
        self._log([(name, value, 0) for name, value in numbers.items()])
        self._log([(score.name, score.value, score.nfe) for score in scores])

    def file(self, path: Path) -> None:
        self._client.log_artifact(self._id, str(path), "report")

    def end(self, ending: Ending) -> None:
        self._client.set_terminated(self._id, STATES[ending])

    def _log(self, points: list[tuple[str, float, float]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, float(value), now, int(step)) for name, value, step in points]
        for first in range(0, len(metrics), BATCH):
            self._client.log_batch(self._id, metrics=metrics[first : first + BATCH])
