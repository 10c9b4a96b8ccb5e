"""Experiment trackers: Weights & Biases and MLflow (extras `wandb`, `mlflow`), as two classes with
the same methods. Each method may raise any exception of its package.

Where they write is decided by their own environment variables, such as WANDB_MODE=offline and
MLFLOW_TRACKING_URI; without one, MLflow writes into the run's folder.
"""

from __future__ import annotations

import importlib
import logging
import os
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from pipeline.contract import UserError

_SECONDS = "20"
_MAX_VALUE = 500


class Tracker(Protocol):
    """Where metrics go besides the run's folder. `id` identifies the run there."""

    id: str

    def log(self, seen: int, metrics: Mapping[str, float]) -> None:
        """Record numbers at a number of images seen."""

    def log_image(self, seen: int, path: Path) -> None:
        """Record a grid of samples."""

    def finish(self, failed: bool) -> None:
        """Mark the run as ended, and wait until all is sent."""


def check_tracking(name: str) -> None:
    """Check that the package of a tracker is installed ("" is no tracker).

    Raises:
        UserError: it is not.
    """
    if name and find_spec(name) is None:
        raise UserError(f"tracking: {name} is not installed; pip install 'shellgan[{name}]'")


def start_tracker(name: str, folder: Path, config: Mapping[str, Any], known: str) -> Tracker:
    """Start or resume a run in the tracker `name`; `known` is its id there, "" if it is new."""
    tracker = WandbTracker if name == "wandb" else MlflowTracker
    return tracker(folder, config, known)


class WandbTracker:
    """A run of Weights & Biases. Neither code nor the state of a git repository is sent."""

    def __init__(self, folder: Path, config: Mapping[str, Any], known: str) -> None:
        self._wandb: Any = importlib.import_module("wandb")
        settings = self._wandb.Settings(
            console="off", disable_git=True, disable_code=True, init_timeout=float(_SECONDS)
        )
        self._run: Any = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", "shellgan"), name=folder.name, id=known or None,
            resume="allow", dir=str(folder), config=dict(config), settings=settings,
        )  # fmt: skip
        self.id = str(self._run.id)
        # not wandb's own steps, which never decrease: a run that is rolled back repeats some
        self._run.define_metric("seen")
        self._run.define_metric("*", step_metric="seen")

    def log(self, seen: int, metrics: Mapping[str, float]) -> None:
        self._run.log({"seen": seen, **metrics})

    def log_image(self, seen: int, path: Path) -> None:
        self._run.log({"seen": seen, "samples": self._wandb.Image(str(path))})

    def finish(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class MlflowTracker:
    """A run of MLflow, in the experiment MLFLOW_EXPERIMENT_NAME (default: shellgan)."""

    def __init__(self, folder: Path, config: Mapping[str, Any], known: str) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", _SECONDS)
        mlflow: Any = importlib.import_module("mlflow")
        self._entities: Any = importlib.import_module("mlflow.entities")
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        place, here = os.environ.get("MLFLOW_TRACKING_URI"), folder.resolve()
        self._client = mlflow.MlflowClient(place or f"sqlite:///{here}/mlflow.db")
        if known:
            self.id = known
            self._client.update_run(known, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "shellgan")
        experiment = self._client.get_experiment_by_name(name)
        images = None if place else (here / "mlflow").as_uri()
        found = (
            experiment.experiment_id
            if experiment
            else self._client.create_experiment(name, artifact_location=images)
        )
        self.id = str(self._client.create_run(found, run_name=folder.name).info.run_id)
        parameters = [
            self._entities.Param(key, str(value)[:_MAX_VALUE]) for key, value in config.items()
        ]
        for start in range(0, len(parameters), 100):  # the limit of a request
            self._client.log_batch(self.id, params=parameters[start : start + 100])

    def log(self, seen: int, metrics: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        found = [self._entities.Metric(key, value, now, seen) for key, value in metrics.items()]
        self._client.log_batch(self.id, metrics=found)

    def log_image(self, seen: int, path: Path) -> None:  # noqa: ARG002 (it is the file's name)
        self._client.log_artifact(self.id, str(path), "samples")

    def finish(self, failed: bool) -> None:
        self._client.set_terminated(self.id, "FAILED" if failed else "FINISHED")
