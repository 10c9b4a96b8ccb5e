"""Training from a server that lies: the weights of honest files, or one line that names the URL."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.helpers.foreign_shards import numbered, write_tar
from tests.helpers.lying_server import LIES, LyingServer
from tests.helpers.processes import child_env
from tests.helpers.training_runs import TINY, fit_here
from training import checkpoint, evaluate

pytestmark = pytest.mark.filterwarnings(
    # urllib3 leaves the socket to the garbage collector if a header is no URL or comes too late
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
QUICK = (
    "--total-kimg", "0.016", "--evaluate.kimg", "0", "--data.timeout", "0.2",
    "--data.memory_gb", "0",
)  # fmt: skip
HARMLESS = {
    "honest", "ranges ignored", "another ETag each time", "more than asked for", "busy",
    "fetch an endless file", "fetch another range", "fetch ranges ignored", "fetch busy",
}  # fmt: skip
FETCHED = (
    "a page", "cut", "too short", "no body", "another range", "an endless file", "beyond the end",
    "a body in drops", "rewritten", "compressed", "a redirect to itself", "hung up", "busy",
    "ranges ignored", "broken chunks",
)  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LyingServer]:
    folder = tmp_path_factory.mktemp("lies")
    write_tar(folder / "a.tar", numbered(120))
    with LyingServer((folder / "a.tar").read_bytes()) as server:
        yield server


@pytest.fixture(scope="module")
def plain(server: LyingServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tar, and the run `plain` on it."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "a.tar").write_bytes(server.data)
    with contextlib.chdir(folder):
        assert fit_here("plain", "a.tar", *QUICK) == 0
    return folder


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.streaming.schemes.BACKOFF", 0.001)
    monkeypatch.chdir(tmp_path)


def weights(run: Path) -> str:
    state = checkpoint.list_checkpoints(run / "checkpoints")[0].data_path
    buffer = io.BytesIO()
    torch.save(torch.load(state, weights_only=True)["state"]["generator"], buffer)
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def refused(said: str, url: str) -> None:
    """Check that errors are one line that names the URL."""
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if "waiting for the server" not in line]
    assert len(lines) == 1
    assert re.fullmatch(rf"error: {url}: .+", lines[0])


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("lie", [*LIES, *(f"fetch {lie}" for lie in FETCHED)])
def test_training_gives_the_weights_of_honest_files_or_names_the_url(
    server: LyingServer, lie: str, plain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = server.url_of(lie)
    status = fit_here("lied", url, *QUICK)
    said = capsys.readouterr().err
    if status:
        assert lie not in HARMLESS
        refused(said, url)
        assert status == 2
    else:
        assert lie in HARMLESS
        assert weights(Path("runs/lied")) == weights(plain / "runs/plain")


@pytest.mark.slow
@pytest.mark.parametrize("lie", ["a page", "cut", "fetch a page"])
def test_evaluations_name_the_url_too(
    server: LyingServer, lie: str, plain: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(plain)
    assert evaluate.main(["plain", "--shards", server.url_of(lie), "--device", "cpu"]) == 2
    refused(capsys.readouterr().err, server.url_of(lie))


@pytest.mark.slow
def test_the_command_ends_with_status_2(server: LyingServer, tmp_path: Path) -> None:
    lie = "an endless file"
    words = ["--shards", server.url_of(lie), "--run", "r", "--dry-run", *TINY, *QUICK]
    found = subprocess.run(
        [sys.executable, "-m", "training.fit", *words], cwd=tmp_path, env=child_env(), text=True,
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert found.returncode == 2
    refused(found.stderr, server.url_of(lie))
