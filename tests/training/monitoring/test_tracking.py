"""Metrics, configuration and samples also go to a tracker, whose failures never end a run."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.training_runs import metrics
from training.callbacks import tracking

SHORT = ("--total-kimg", "0.2", "--record.sample_kimg", "0.1")


class FakeRun:
    def __init__(self, wandb: FakeWandb, options: dict[str, Any]) -> None:
        self.wandb, self.options = wandb, options
        self.id = options["id"] or f"id{len(wandb.runs)}"
        self.rows: list[dict[str, Any]] = []
        self.exit_code: int | None = None

    def define_metric(self, name: str, **_: Any) -> None:
        self.wandb.defined.append(name)

    def log(self, row: dict[str, Any]) -> None:
        if len(self.rows) >= self.wandb.most_rows:
            raise self.wandb.error
        self.rows.append(row)

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


class FakeWandb(types.ModuleType):
    """A stand-in for the package wandb that records its calls."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.__spec__ = ModuleSpec("wandb", None)
        self.runs: list[FakeRun] = []
        self.defined: list[str] = []
        self.most_rows, self.error = 10**9, ConnectionError("the server\nis gone")
        self.refuses = False
        self.Settings = dict
        self.Image = Path

    def init(self, **options: Any) -> FakeRun:
        if self.refuses:
            raise self.error
        self.runs.append(FakeRun(self, options))
        return self.runs[-1]


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    module = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_rows_samples_and_configuration_are_tracked_and_a_resumed_run_continues(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Any, wandb: FakeWandb
) -> None:
    run, shards = tmp_path / "runs" / "small", small_shards()
    assert in_process(run, shards, *SHORT, "--tracking", "wandb") == 0
    (made,) = wandb.runs
    assert made.options["config"]["batch"] == 8
    assert made.options["settings"]["disable_code"]
    assert wandb.defined == ["seen", "*"]
    rows = [row for row in made.rows if "samples" not in row]
    assert [row["seen"] for row in rows] == [row["seen"] for row in metrics(run)]
    assert rows[-1]["loss_d"] == metrics(run)[-1]["loss_d"]
    grids = [(row["seen"], row["samples"]) for row in made.rows if "samples" in row]
    assert [seen for seen, _ in grids] == [0, 104, 200]
    assert all(path.is_file() for _, path in grids)
    assert made.exit_code == 0
    assert in_process(run, shards, "--total-kimg", "0.3", "--tracking", "wandb") == 0
    assert wandb.runs[1].id == made.id
    assert json.loads((run / "tracking.json").read_text()) == {"wandb": made.id}
    assert in_process(run, shards, "--total-kimg", "0.4") == 0
    assert len(wandb.runs) == 2


class FakeClient:
    """A stand-in for MLflow's client that records its calls."""

    made: FakeClient

    def __init__(self, place: str) -> None:
        self.place, self.status, self.created = place, "", 0
        self.params: list[Any] = []
        self.metrics: list[Any] = []
        self.artifacts: list[tuple[str, str]] = []
        FakeClient.made = self

    def get_experiment_by_name(self, _name: str) -> None:
        return None

    def create_experiment(self, _name: str, artifact_location: str | None) -> str:
        self.location = artifact_location
        return "1"

    def create_run(self, _experiment: str, run_name: str) -> Any:
        self.name, self.created = run_name, self.created + 1
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id="r1"))

    def update_run(self, run: str, status: str) -> None:
        assert run == "r1"
        self.status = status

    def log_batch(self, run: str, metrics: Any = (), params: Any = ()) -> None:
        assert run == "r1"
        assert len(params) <= 100
        self.metrics += metrics
        self.params += params

    def log_artifact(self, _run: str, path: str, folder: str) -> None:
        self.artifacts.append((Path(path).name, folder))

    def set_terminated(self, _run: str, status: str) -> None:
        self.status = status


def test_mlflow_gets_the_same_and_continues(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    mlflow, entities = types.ModuleType("mlflow"), types.ModuleType("mlflow.entities")
    mlflow.__spec__ = ModuleSpec("mlflow", None)
    mlflow.MlflowClient = FakeClient  # type: ignore[attr-defined]
    entities.Param = entities.Metric = lambda *values: values  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.setenv(name, "1")
    run, shards = tmp_path / "runs" / "small", small_shards()
    assert in_process(run, shards, *SHORT, "--tracking", "mlflow") == 0
    made = FakeClient.made
    assert made.place == f"sqlite:///{run}/mlflow.db"
    assert (made.name, made.status, made.created) == ("small", "FINISHED", 1)
    assert ("batch", "8") in made.params
    steps = [step for name, _, _, step in made.metrics if name == "loss_d"]
    assert steps == [row["seen"] for row in metrics(run)]
    assert ("0000000104.png", "samples") in made.artifacts
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert in_process(run, shards, "--total-kimg", "0.3", "--tracking", "mlflow") == 0
    again = FakeClient.made
    assert (again.place, again.status, again.created) == ("http://127.0.0.1:9", "FINISHED", 0)


@pytest.mark.parametrize("most_rows", [-1, 0, 5])
def test_a_failing_tracker_is_one_warning_and_the_run_is_the_same(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Any, wandb: FakeWandb,
    capsys: pytest.CaptureFixture[str], most_rows: int,
) -> None:  # fmt: skip
    run, shards = tmp_path / "runs" / "small", small_shards()
    wandb.most_rows, wandb.refuses = most_rows, most_rows < 0
    assert in_process(run, shards, *SHORT, "--tracking", "wandb") == 0
    said = "".join(capsys.readouterr())
    assert said.count("warning: tracking: wandb failed (ConnectionError: the server); the run") == 1
    plain = tmp_path / "runs" / "plain"
    assert in_process(plain, shards, *SHORT) == 0
    assert metrics(run) == metrics(plain)


def test_a_tracker_that_never_answers_is_left_behind(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Any, wandb: FakeWandb,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    import threading

    over = threading.Event()
    monkeypatch.setattr(FakeRun, "log", lambda *_: over.wait(60))
    monkeypatch.setattr(tracking, "_PATIENCE", 0.01)
    try:
        run = tmp_path / "runs" / "small"
        assert in_process(run, small_shards(), *SHORT, "--tracking", "wandb") == 0
    finally:
        over.set()
    assert "not all was sent within 0.01 s" in "".join(capsys.readouterr())


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_one_line(
    name: str, tmp_path: Path, small_shards: Callable[..., Any], in_process: Any,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "training.monitoring.trackers.find_spec", lambda one: None if one == name else real(one)
    )
    run = tmp_path / "runs" / "small"
    assert in_process(run, small_shards(), "--tracking", name) == 2
    err = capsys.readouterr().err
    assert err == f"error: tracking: {name} is not installed; pip install 'shellgan[{name}]'\n"
    assert not run.exists()
