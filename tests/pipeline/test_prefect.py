"""The deployments on a real local server, by the command a user types."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.deployments.runner import RunnerDeployment
from prefect.settings import PREFECT_API_URL, temporary_settings

from pipeline.contract import DatasetPaths, load_index, read_jsonl
from pipeline.demo.gallery import serve
from pipeline.flows import FlowOptions
from pipeline.names import flow_names
from pipeline.serve import main as serve_main
from pipeline.status import read_status
from tests.helpers.plain_gallery import plain_gallery
from tests.helpers.prefect_server import PrefectServer

COUNT = 24


@dataclass(frozen=True)
class Prefect:
    """A server, our deployments served in its folder, and a gallery to scrape."""

    server: PrefectServer
    gallery: str

    @property
    def folder(self) -> Path:
        folder: Path = self.server.folder
        return folder

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        prefect = shutil.which("prefect", path=self.server.env["PATH"])
        assert prefect is not None
        return subprocess.run(
            [prefect, *words],
            env=self.server.env,
            cwd=self.folder,
            capture_output=True,
            text=True,
        )

    def post(self, path: str, **body: object) -> list[dict[str, object]]:
        found: list[dict[str, object]] = self.server.post(path, **body)
        return found


@pytest.fixture(scope="module")
def prefect(prefect_server: PrefectServer, gallery_cache: Path) -> Iterator[Prefect]:
    made = plain_gallery(COUNT, 7, gallery_cache)
    with serve(made) as gallery:
        serving = [sys.executable, "-m", "pipeline.serve"]
        log = prefect_server.folder / "serve.log"
        prefect_server.children.start(serving, log, prefect_server.env)
        prefect_server.wait_for("deployments/name/retry-failures/retry-failures")
        yield Prefect(prefect_server, gallery.url)


def test_the_literal_command_scrapes_the_shells(prefect: Prefect) -> None:
    # Two shards, so that they are made by a pool of processes.
    overrides = json.dumps({"source.start": [prefect.gallery], "shards.samples_per_shard": 12})
    result = prefect.run(
        *("deployment", "run", "scrape-shells", "--watch"), "--param", f"overrides={overrides}"
    )
    assert result.returncode == 0, result.stdout + result.stderr
    dataset = DatasetPaths("shells", prefect.folder)
    index, _ = load_index(dataset.shard_index)
    assert [entry.nsamples for entry in index.shardlist] == [12, 12]
    stages = [row["stage"] for row in read_jsonl(dataset.event_log) if row["event"] == "done"]
    assert stages == ["crawl", "download", "select", "shard"]

    flows = {str(flow["id"]): flow["name"] for flow in prefect.post("flows/filter")}
    runs = [flows[str(run["flow_id"])] for run in prefect.post("flow_runs/filter")]
    assert sorted(map(str, runs)) == ["download", "manifest", "scrape-shells", "select", "shard"]

    artifacts = {str(one["key"]): one for one in prefect.post("artifacts/filter")}
    assert artifacts["shells-card"]["type"] == "markdown"
    assert artifacts["shells-contact"]["type"] == "image"
    assert str(artifacts["shells-contact"]["data"]).startswith("data:image/jpeg;base64,/9j/")
    assert artifacts["shells-download"]["type"] == "progress"
    assert float(str(artifacts["shells-download"]["data"])) == 100
    failed = json.loads(str(artifacts["shells-failures"]["data"]))
    assert {row["kind"]: row["count"] for row in failed} == read_status(dataset).failed

    logs = " ".join(str(log["message"]) for log in prefect.post("logs/filter"))
    assert "shard done" in logs


def test_every_deployment_has_its_flows_name(prefect: Prefect) -> None:
    flows = {str(flow["id"]): flow["name"] for flow in prefect.post("flows/filter")}
    deployments = prefect.post("deployments/filter")
    assert sorted(str(one["name"]) for one in deployments) == sorted(flow_names())
    for one in deployments:
        assert flows[str(one["flow_id"])] == one["name"]


def test_the_options_of_serve_are_the_defaults_of_every_deployment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served: list[RunnerDeployment] = []
    healthy = httpx.Response(200, request=httpx.Request("GET", "http://x/api/health"))
    monkeypatch.setattr("pipeline.serve.serve", lambda *given, **_: served.extend(given))
    monkeypatch.setattr("pipeline.serve.httpx.get", lambda *_, **__: healthy)
    monkeypatch.setattr("pipeline.serve.resolve_runner", lambda *_: None)
    with temporary_settings({PREFECT_API_URL: "http://x/api"}):
        assert serve_main(["--runner", "dask", "--workers", "2"]) == 0
    assert sorted(str(one.name) for one in served) == sorted(flow_names())
    expected = {"runner": "dask", "workers": 2}
    for one in served:
        assert one.parameters.items() >= expected.items()


def test_secrets_of_a_run_are_not_those_of_another_recipe_or_a_later_run() -> None:
    secret = {
        "politeness.headers": {"Authorization": "s3cr3t"},
        "source.start": ["http://me:s3cr3t@a.example/"],
    }
    options = FlowOptions("a", {**secret, "shards.resolution": 32})
    with options.public() as public:
        assert public.overrides == {
            "source.start": ["http://a.example/"], "shards.resolution": 32,
        }  # fmt: skip
        with public.public() as again:
            assert again == public
            assert again.job().overrides == options.overrides
        assert public.job().overrides == options.overrides
        assert FlowOptions("b").job().overrides == {}
    assert FlowOptions("a").job().overrides == {}


def test_the_runner_is_a_choice_of_the_form(prefect: Prefect) -> None:
    schemas = {
        str(one["name"]): one["parameter_openapi_schema"]
        for one in prefect.post("deployments/filter")
    }
    for name in ("scrape-shells", "build-shards"):
        schema: Any = schemas[name]
        assert schema["properties"]["runner"]["enum"] == ["local", "processes", "dask", "ray"]
        assert {"workers", "runner_address"} <= set(schema["properties"])
    refresh: Any = schemas["scrape-shells"]
    assert refresh["properties"]["refresh"]["type"] == "boolean"


def test_a_refresh_visits_every_page_again_and_shows_no_password(prefect: Prefect) -> None:
    scheme, _, rest = prefect.gallery.partition("//")
    start = f"{scheme}//keeper:s3cr3t-Zq9@{rest}"
    overrides = json.dumps({"source.start": [start], "shards.samples_per_shard": 12})
    result = prefect.run(
        *("deployment", "run", "scrape-shells", "--watch", "--param", "refresh=true"),
        *("--param", f"overrides={overrides}"),
    )
    assert result.returncode == 0, result.stdout + result.stderr
    dataset = DatasetPaths("shells", prefect.folder)
    crawls = [
        row["facts"]
        for row in read_jsonl(dataset.event_log)
        if (row["stage"], row["event"]) == ("crawl", "done")
    ]
    assert crawls[-1]["pages"] == crawls[0]["pages"]
    flows = {str(flow["id"]): flow["name"] for flow in prefect.post("flows/filter")}
    runs = prefect.post("flow_runs/filter")
    subflows = [run for run in runs if flows[str(run["flow_id"])] != "scrape-shells"]
    options = [dict(run["parameters"]).get("options", {}) for run in subflows]  # type: ignore[call-overload]
    assert any(one.get("refresh") is True for one in options)
    shown = json.dumps([subflows, prefect.post("artifacts/filter"), prefect.post("logs/filter")])
    assert "s3cr3t" not in shown
    files = [path for path in prefect.folder.rglob("*") if path.is_file()]
    ours = [path for path in files if ".prefect" not in path.parts and path.suffix != ".log"]
    assert not [path for path in ours if b"s3cr3t" in path.read_bytes()]


def test_a_mistake_fails_the_run_and_names_the_key(prefect: Prefect) -> None:
    result = prefect.run(
        *("deployment", "run", "build-shards", "--watch", "--param", "recipe=shells"),
        *("--param", 'overrides={"shards.colour": 1}'),
    )
    assert result.returncode == 1
    assert "shards.colour: unknown key" in (prefect.folder / "serve.log").read_text()


def test_without_a_server_it_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/api"
    result = subprocess.run(
        [sys.executable, "-m", "pipeline.serve"],
        env={**os.environ, "PREFECT_API_URL": url, "PREFECT_HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {url}: the Prefect server does not respond")
    assert len(result.stderr.splitlines()) == 1
