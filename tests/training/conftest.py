"""Small shards to train on, and the trainer as a process of its own."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parents[2]
TINY = (
    "--total-kimg", "0.4", "--batch", "8", "--device", "cpu", "--precision", "fp32",
    "--generator.width", "4", "--generator.z_dim", "8", "--discriminator.width", "4",
    "--record.log_kimg", "0.016", "--record.sample_kimg", "0.2", "--record.checkpoint_kimg", "0.04",
    "--record.grid", "4", "--threads", "1", "--resolution", "16",
)  # fmt: skip
"""A run of 50 steps that takes a second once torch is there."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def picture(number: int, size: int, channels: int = 3) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A picture that tells its number: the first pixels hold its bytes, the rest is noise."""
    random = np.random.default_rng(number)
    pixels = random.integers(0, 256, (size, size, channels), dtype=np.uint8)
    pixels[0, 0, 0], pixels[0, 1, 0] = number // 256, number % 256
    return pixels


def number_of(pixels: Any) -> int:
    """The number of the picture (height, width, channels) that `picture` drew."""
    return int(pixels[0, 0, 0]) * 256 + int(pixels[0, 1, 0])


def encoded(number: int, size: int, form: str, channels: int = 3) -> bytes:
    pixels = picture(number, size, channels)
    buffer = io.BytesIO()
    Image.fromarray(pixels if channels == 3 else pixels[:, :, 0]).save(buffer, form)
    return buffer.getvalue()


def tar_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@dataclass(frozen=True)
class SmallShards:
    """Shards in `data/NAME/shards` and their index in `manifests/NAME`, as the pipeline writes.

    With `labels` the first `labelled` samples have one.
    """

    root: Path
    sizes: Sequence[int] = (40, 33, 27)
    size: int = 16
    channels: int = 3
    labels: tuple[str, ...] = ()
    labelled: int = 1_000_000
    ballast: int = 0
    name: str = "small"
    tars: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        number = 0
        for shard, count in enumerate(self.sizes):
            members: dict[str, bytes] = {}
            for _ in range(count):
                key = f"{number:06d}"
                members[f"{key}.png"] = encoded(number, self.size, "PNG", self.channels)
                members[f"{key}.json"] = b"{}"
                if self.labels and number < self.labelled:
                    members[f"{key}.cls"] = str(number % len(self.labels)).encode()
                if self.ballast:
                    members[f"{key}.bin"] = np.random.default_rng(number).bytes(self.ballast)
                number += 1
            self.tars.append(tar_of(members))
            self.path(shard).write_bytes(self.tars[-1])
        self.write_index(f"../../data/{self.name}/shards/")

    @property
    def folder(self) -> Path:
        return self.root / "data" / self.name / "shards"

    @property
    def manifest(self) -> Path:
        return self.root / "manifests" / self.name

    @property
    def count(self) -> int:
        return sum(self.sizes)

    def path(self, shard: int) -> Path:
        return self.folder / f"{self.name}-{shard:06d}.tar"

    def write_index(self, base: str) -> None:
        self.manifest.mkdir(parents=True, exist_ok=True)
        shards = [
            {
                "url": f"{base}{self.name}-{number:06d}.tar", "nsamples": self.sizes[number],
                "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(),
            }
            for number, data in enumerate(self.tars)
        ]  # fmt: skip
        index = {
            "__kind__": "wids-shard-index-v1", "wids_version": 1, "name": self.name,
            "shardlist": shards, "resolution": [self.size, self.size], "channels": self.channels,
            "format": "png", "labels": list(self.labels), "counts": {}, "recipe": {},
            "digest": hashlib.sha256(b"".join(self.tars)).hexdigest(),
        }  # fmt: skip
        (self.manifest / "shards.json").write_text(json.dumps(index))


@pytest.fixture
def small_shards(tmp_path: Path) -> Callable[..., SmallShards]:
    """Makes `SmallShards` under the test's folder."""
    return lambda **options: SmallShards(tmp_path / "set", **options)


@pytest.fixture(scope="session")
def shards_in() -> Callable[..., SmallShards]:
    """Makes `SmallShards` in a folder."""
    return SmallShards


@pytest.fixture(scope="session")
def fit_here() -> Callable[..., int]:
    """The command in this process and folder, which spares the seconds that torch takes: the tiny
    run called `name`; its exit status."""

    def train(name: str, shards: SmallShards | str, *options: str) -> int:
        from training.fit import main

        where = shards if isinstance(shards, str) else str(shards.manifest)
        return main(["--shards", where, "--run", name, *TINY, *options])

    return train


@pytest.fixture
def in_process(
    monkeypatch: pytest.MonkeyPatch, fit_here: Callable[..., int]
) -> Callable[..., int]:  # fmt: skip
    """`fit_here` in the folder of the run `run`, `runs/NAME` of some folder, where it stays."""

    def train(run: Path, shards: SmallShards | str, *options: str) -> int:
        run.parents[1].mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(run.parents[1])
        return fit_here(run.name, shards, *options)

    return train


class Fit:
    """`python -m training.fit` in a folder, as a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def command(self, shards: str | Path, *options: str) -> list[str]:
        return [sys.executable, "-m", "training.fit", "--shards", str(shards), *TINY, *options]

    def start(self, shards: str | Path, *options: str, **more: Any) -> subprocess.Popen[str]:
        self.folder.mkdir(parents=True, exist_ok=True)
        return subprocess.Popen(
            self.command(shards, *options), cwd=self.folder, env=environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more,
        )  # fmt: skip

    def __call__(
        self, shards: str | Path, *options: str, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        with self.start(shards, *options, **more) as process:
            out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def environment() -> dict[str, str]:
    """For a trainer in a process of its own: our code, one thread."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def fit(tmp_path: Path) -> Fit:
    """Runs the command in the test's folder."""
    return Fit(tmp_path / "work")


@pytest.fixture(scope="session")
def fit_in() -> Callable[[Path], Fit]:
    """Makes a `Fit` for a folder."""
    return Fit


def metrics(run: Path) -> list[dict[str, Any]]:
    """The rows of a run without what the clock says."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in row if key != "images_per_second"} for row in rows]


def weights(run: Path) -> dict[str, Any]:
    """All tensors of the run's newest checkpoint, by name."""
    newest = max((run / "checkpoints").glob("*.pt"))
    values = torch.load(newest, weights_only=True)["state"]
    return {
        f"{network}.{name}": tensor
        for network in ("generator", "discriminator", "average")
        for name, tensor in values[network].items()
    }


@pytest.fixture(scope="session")
def read_run() -> Callable[[Path], tuple[list[dict[str, Any]], dict[str, Any]]]:
    """The metrics and weights of a run's folder."""
    return lambda run: (metrics(run), weights(run))


class ShardServer:
    """Serves the files of a folder on loopback, with ranges, and fails as it is told.

    `cut[name]` is how many more answers of the file break off half-way, `spoil[name]` how many
    have a byte flipped, `busy[name]` how many are 503; `dead` names hang up on every request.
    `asked` lists (file name, Range header) in order. `pause` seconds before each 64 KiB.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.pause = folder, 0.0
        self.cut: Counter[str] = Counter()
        self.spoil: Counter[str] = Counter()
        self.busy: Counter[str] = Counter()
        self.dead: set[str] = set()
        self.ranges = True
        self.asked: list[tuple[str, str]] = []
        handler = type("Handler", (_Handler,), {"shards": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> ShardServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    shards: ShardServer
    protocol_version = "HTTP/1.0"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        shards, path = self.shards, self.shards.folder / self.path.lstrip("/")
        name, asked = path.name, self.headers.get("Range", "")
        shards.asked.append((name, asked))
        if name in shards.dead:
            return
        if not path.is_file() or self._due(shards.busy, name):
            self.send_response(503 if path.is_file() else 404)
            self.end_headers()
            return
        data = bytearray(path.read_bytes())
        if self._due(shards.spoil, name):
            data[len(data) // 2] ^= 1
        start = int(asked.removeprefix("bytes=").rstrip("-") or 0) if shards.ranges else 0
        if start and start >= len(data):
            self.send_response(416)
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        end = (start + len(data)) // 2 if self._due(shards.cut, name) else len(data)
        with contextlib.suppress(OSError):
            for place in range(start, end, 1 << 16):
                time.sleep(shards.pause)
                self.wfile.write(data[place : min(place + (1 << 16), end)])

    @staticmethod
    def _due(left: Counter[str], name: str) -> bool:
        """Whether a fault is still due for the file; one less is, then."""
        due = left[name] > 0
        left[name] -= due
        return due


@pytest.fixture
def serve() -> Iterator[Callable[[Path], ShardServer]]:
    """Serves folders until the test ends."""
    with contextlib.ExitStack() as stack:
        yield lambda folder: stack.enter_context(ShardServer(folder))
