"""A data set whose originals, manifests and shards are on an S3 server (moto, on loopback)."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from pipeline.contract import DatasetPaths, load_index, read_jsonl
from pipeline.curate.server import TOKEN_HEADER
from pipeline.demo.gallery import ServedGallery, serve
from pipeline.originals.part_tars import read_original, read_originals
from pipeline.originals.parts import read_records
from pipeline.remote.store import Store, StoreError
from tests.helpers.commands import run_pipeline
from tests.helpers.plain_gallery import plain_gallery

COUNT = 24
STORE = ("--set", "storage.url=s3://shells/galleries")
KEYS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class S3Server:
    """Answers at `url`. While a path that `hold` names is put, the request waits, `held` is set,
    and goes on once `let_go` is."""

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.environment = {**KEYS, "AWS_ENDPOINT_URL": self.url}
        self.requests: list[tuple[str, str]] = []
        self.hold: Callable[[str], bool] = lambda path: False
        self.held = threading.Event()
        self.let_go = threading.Event()

    def __enter__(self) -> "S3Server":
        self._thread.start()
        # a server of this process that has ended may still be known under the same name
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path))
        if method == "PUT" and self.hold(path):
            self.held.set()
            self.let_go.wait(240)
            return []  # as if the line had been cut: nothing is stored
        answer: Iterable[bytes] = self._app(environ, start_response)
        return answer


@pytest.fixture(scope="module")
def gallery(gallery_cache: Path) -> Iterator[ServedGallery]:
    made = plain_gallery(COUNT, 7, gallery_cache)
    with serve(made) as served:
        yield served


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        fsspec.filesystem("s3").mkdir("shells")
        yield server


def command(gallery: ServedGallery, root: Path, *words: str) -> list[str]:
    return [
        *(sys.executable, "-m", "pipeline", *words, "shells", "--root", str(root)),
        *("--set", f"source.start={json.dumps([gallery.url])}"),
        *(() if any("storage.url" in word for word in words) else STORE),
    ]


def run(gallery: ServedGallery, root: Path, *words: str) -> str:
    """The command in this process, which remembers nothing of the store."""
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    root.mkdir(exist_ok=True)
    result = run_pipeline(root, *command(gallery, root, *words)[3:])
    assert result.returncode in (0, 1), result.stderr
    return result.stdout


def kill_while_putting(s3: S3Server, ending: str, words: list[str]) -> None:
    """Run a command and kill it while it puts a file of that ending into the store."""
    s3.held.clear()
    s3.let_go.clear()
    s3.hold = lambda path: path.endswith(ending)
    child = subprocess.Popen(words, stderr=subprocess.PIPE, env=os.environ)
    try:
        assert s3.held.wait(240), ending
    finally:
        child.kill()
        child.communicate()
    s3.hold = lambda path: False
    s3.let_go.set()


def test_killed_while_it_uploads_a_run_goes_on_and_another_machine_too(
    gallery: ServedGallery, s3: S3Server, tmp_path: Path
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    words = command(gallery, one, "run")
    for ending in ("urls.jsonl", "shells-000000.tar", "shells-000000.json"):
        kill_while_putting(s3, f"/{ending}", words)
    kill_while_putting(s3, "shards/shells-000000.tar", words)
    kill_while_putting(s3, "manifests/shells/shards.json", words)
    run(gallery, one, "run")
    asked = Counter(path for path in gallery.requests if path.endswith((".jpg", ".png", ".webp")))
    assert asked
    assert set(asked.values()) == {1}

    dataset = DatasetPaths("shells", one, "s3://shells/galleries")
    assert not list(dataset.originals_dir.glob("*.tar"))
    records = list(read_records(dataset))
    assert len(records) == COUNT
    for record, data in zip(records, read_originals(dataset, records), strict=True):
        assert hashlib.sha256(data).hexdigest() == record.sha256

    # The set is read from where it was published.
    index, shards = load_index("s3://shells/galleries/manifests/shells")
    assert index == load_index(dataset.shard_index)[0]
    assert shards == ["s3://shells/galleries/data/shells/shards/shells-000000.tar"]
    with fsspec.open(shards[0], "rb") as file:
        assert hashlib.sha256(file.read()).hexdigest() == index.shardlist[0].sha256

    # A machine that has nothing but the recipe asks the gallery for nothing.
    before = len(gallery.requests)
    run(gallery, other, "run")
    assert gallery.requests[before:] == []
    theirs = DatasetPaths("shells", other)
    assert [row["key"] for row in read_jsonl(theirs.url_manifest)] == [
        row["key"] for row in read_jsonl(dataset.url_manifest)
    ]
    assert load_index(theirs.shard_index)[0] == index
    assert run(gallery, other, "verify", "--json").splitlines()

    # What it changes is what the first machine then finds.
    key = index_keys(theirs)[0]
    run(gallery, other, "forget", "--key", key)
    run(gallery, one, "run")
    assert key not in index_keys(dataset)
    assert gallery.requests[before:] == []
    forgotten = next(record for record in records if record.key == key)
    assert not any(read_original(dataset, forgotten))


def test_decisions_of_one_machine_are_obeyed_by_another(
    gallery: ServedGallery, s3: S3Server, tmp_path: Path
) -> None:
    fsspec.filesystem("s3").mkdir("curated")
    there = ("--set", "storage.url=s3://curated/galleries")
    one, other = tmp_path / "one", tmp_path / "other"
    run(gallery, one, "run", *there)
    words = command(gallery, one, "curate", "--port", "0", "--no-browser", "--no-network", *there)
    page = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ, text=True
    )
    try:
        assert page.stdout is not None
        address, _, token = page.stdout.readline().split()[1].partition("#")
        for path, body in (("picture/0", None), ("decisions", b'{"reject": [0]}')):
            request = urllib.request.Request(address + path, body, {TOKEN_HEADER: token})
            with urllib.request.urlopen(request, timeout=60) as answer:
                assert answer.read()
        page.send_signal(signal.SIGINT)
        _, said = page.communicate(timeout=240)
        assert page.returncode == 0, said
    finally:
        page.kill()
        page.communicate()
    run(gallery, other, "select", *there)
    (rejected,) = [row for row in read_jsonl(DatasetPaths("shells", other).rejections)
                   if row["reason"] == "curated"]  # fmt: skip
    (decision,) = read_jsonl(DatasetPaths("shells", one).curation)
    assert rejected["key"] == decision["key"]


def index_keys(dataset: DatasetPaths) -> list[str]:
    return [row["key"] for row in read_jsonl(dataset.selection)]


def test_a_bucket_that_is_not_there_is_one_line(s3: S3Server, tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"a")
    store = Store("s3://nosuch/a")
    assert store.list("") == {}
    with pytest.raises(StoreError, match="s3://nosuch/a/b: "):
        store.upload(file, "b")


@pytest.mark.slow
def test_a_large_file_goes_in_pieces_and_comes_back_whole(s3: S3Server, tmp_path: Path) -> None:
    path, back = tmp_path / "large", tmp_path / "back"
    path.write_bytes(os.urandom(1 << 20) * 40)
    store = Store("s3://shells/large")
    before = len(s3.requests)
    store.upload(path, "a/b")
    assert sum(method == "PUT" for method, _ in s3.requests[before:]) == 3
    store.download("a/b", back)
    assert back.read_bytes() == path.read_bytes()
    assert store.read("a/b", 5, 9) == path.read_bytes()[5:9]
    store.remove("a/b")
    assert store.size("a/b") is None
