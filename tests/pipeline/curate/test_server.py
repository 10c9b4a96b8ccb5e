"""The server of the page: who may ask, what it answers, and that no decision is lost."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.applications import Starlette

from pipeline.contract import read_jsonl
from pipeline.curate.curator import Curator
from pipeline.curate.image_table import load_image_table
from pipeline.curate.server import MAX_THUMBNAILS, TOKEN_HEADER, create_app
from pipeline.forgotten import forgotten_path
from pipeline.select.curation import read_curation
from pipeline.select.stage import select
from pipeline.shards.forget import forget
from tests.helpers.processes import child_env

TOKEN = "secret"
HEADERS = {TOKEN_HEADER: TOKEN}


class Client:
    """Asks the application without a socket, with the token."""

    def __init__(self, app: Starlette) -> None:
        self.app = app

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        options["headers"] = {**HEADERS, **options.get("headers", {})}
        transport = httpx.ASGITransport(self.app)

        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(
                transport=transport, base_url="http://127.0.0.1:8973"
            ) as client:
                return await client.request(method, path, **options)

        return asyncio.run(ask())

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)


@pytest.fixture
def client(shop: Any, log: Any) -> Client:
    shop.add(shop.served(5, labels=("Conus",)))
    table = load_image_table(shop.recipe(), shop.dataset, log, use_network=False)
    return Client(create_app(Curator(table, shop.dataset), TOKEN))


def columns_of(data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    length = int.from_bytes(data[:4], "little")
    header = json.loads(data[4 : 4 + length])
    columns = {}
    for name, place in header["columns"].items():
        count = header["count"] * (3 if name == "color" else 1)
        columns[name] = np.frombuffer(data, place["type"], count, 4 + length + place["at"])
        assert (4 + length + place["at"]) % 8 == 0
    return header, columns


def test_only_the_page_itself_is_free_for_all(client: Client) -> None:
    private = [route.path.replace("{index}", "0") for route in client.app.routes]
    files = {path for path in private if path == "/" or path.endswith((".js", ".css"))}
    assert len(files) >= 5
    for path in private:
        method = "POST" if path in ("/thumbnails", "/decisions") else "GET"
        for token in ("", "wrong"):
            answer = client.request(method, path, headers={TOKEN_HEADER: token})
            assert answer.status_code == (200 if path in files else 403), path
        evil = client.request(method, path, headers={"host": "evil.example:8973"})
        assert evil.status_code == 400
    for origin in ("https://evil.example", "null", "http://127.0.0.1:80"):
        body = json.dumps({"reject": [0]})
        answer = client.post("/decisions", content=body, headers={"origin": origin})
        assert answer.status_code == 403
    assert client.get("/states", headers={"origin": "http://127.0.0.1:8973"}).status_code == 200
    page = client.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert "http" not in page.text.replace("http-equiv", "")  # nothing from elsewhere


def test_columns_thumbnails_details_and_pictures(client: Client, shop: Any) -> None:
    header, columns = columns_of(client.get("/images").content)
    assert header["count"] == 5
    assert columns["width"].tolist() == [120] * 5
    assert header["words"]["label"] == ["Conus"]
    assert columns["state"].tolist() == [0] * 5
    asked = np.array([3, 0, 3], "<u4").tobytes()
    data = client.post("/thumbnails", content=asked).content
    first, other, again = (base64.b64decode(line) for line in data.split(b"\n"))
    assert first == again != other
    assert Image.open(io.BytesIO(first)).size == (120, 90)
    about = client.get("/details/3").json()
    assert about["url"] == "https://shells.example/0003.jpg"
    assert about["labels"] == ["Conus"]
    assert Image.open(io.BytesIO(client.get("/picture/3").content)).size == (120, 90)
    similar = np.frombuffer(client.get("/similar/2").content, "<f4")
    assert similar.argmax() == 2
    assert len(similar) == 5


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/thumbnails", b"", 400),
        ("/thumbnails", b"abc", 400),
        ("/thumbnails", np.array([5], "<u4").tobytes(), 400),
        ("/thumbnails", bytes(4 * (MAX_THUMBNAILS + 1)), 400),
        ("/decisions", b"{", 400),
        ("/decisions", b"[]", 400),
        ("/decisions", b'{"reason": "none"}', 400),
        ("/decisions", b'{"reject": [0, 5]}', 400),
        ("/decisions", b'{"reject": [-1]}', 400),
        ("/decisions", b'{"reject": [true]}', 400),
        ("/decisions", b'{"reject": 3}', 400),
        ("/decisions", b'{"reject": ""}', 400),
        ("/decisions", b'{"erase": [0]}', 400),
        ("/decisions", b'{"reject": [0], "reason": 7}', 400),
        ("/picture/5", None, 404),
        ("/details/99999999999999999999", None, 404),
        ("/details/" + "9" * 5000, None, 404),
        ("/similar/-1", None, 404),
        ("/similar/%C2%B2", None, 404),
    ],
)
def test_bad_requests_record_nothing(
    client: Client, shop: Any, path: str, body: bytes | None, status: int
) -> None:
    answer = client.get(path) if body is None else client.post(path, content=body)
    assert answer.status_code == status
    assert not read_curation(shop.dataset).by_key


def test_decisions_are_lines_that_select_obeys(client: Client, shop: Any, log: Any) -> None:
    assert client.post("/decisions", content=json.dumps(
        {"reject": [0, 1], "keep": [2], "reason": "cluster\u0007 of 2"}
    )).text == "saved"  # fmt: skip
    client.post("/decisions", content=json.dumps({"undo": [1]}))
    assert client.get("/states").content == bytes([2, 0, 1, 0, 0])
    rows = list(read_jsonl(shop.dataset.curation))
    assert [row["decision"] for row in rows] == ["reject", "reject", "keep", "undo"]
    assert rows[0]["reason"] == "cluster\ufffd of 2"
    assert select(shop.recipe(), shop.dataset, log).rejected == {"curated": 1}


def test_a_full_disk_is_said_and_changes_nothing(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.curate.curator.record_decisions", full)
    answer = client.post("/decisions", content=b'{"reject": [0]}')
    assert answer.status_code == 507
    assert "no space left" in answer.text
    assert client.get("/states").content == bytes(5)


def test_images_that_are_forgotten_meanwhile_are_not_shown(
    client: Client, shop: Any, log: Any
) -> None:
    key = client.get("/details/1").json()["key"]
    forget(shop.recipe(), shop.dataset, log, keys=[key])
    assert forgotten_path(shop.dataset).exists()
    data = client.post("/thumbnails", content=np.array([1], "<u4").tobytes()).content
    assert data == b""
    assert client.get("/picture/1").status_code == 404


RECIPE = '[source]\nkind = "folder"\nstart = ["/nowhere"]\n[select]\nmin_side = 8\n'


@contextmanager
def curating(root: Path, *more: str) -> Iterator[tuple[str, str, subprocess.Popen[str]]]:
    """The command as a process of its own; its address and its token."""
    (root / "shells.toml").write_text(RECIPE)
    command = [sys.executable, "-m", "pipeline", "curate", "shells.toml", "--port", "0", *more]
    process = subprocess.Popen(
        [*command, "--no-browser", "--no-network", "--quiet"], env=child_env(), text=True, cwd=root,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("shells: http://127.0.0.1:"), process.communicate()
        address, _, token = said.split()[1].partition("#")
        yield address, token, process
    finally:
        process.kill()
        process.communicate()


def post(address: str, token: str, body: dict[str, Any]) -> bytes:
    request = urllib.request.Request(
        f"{address}decisions", json.dumps(body).encode(), {TOKEN_HEADER: token}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return bytes(answer.read())


def test_killed_it_keeps_every_decision_it_called_saved(shop: Any) -> None:
    shop.add(shop.served(6))
    with curating(shop.root) as (address, token, process):
        for index in range(3):
            assert post(address, token, {"reject": [index]}) == b"saved"
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    assert len(read_curation(shop.dataset).by_key) == 3
    with shop.dataset.curation.open("ab") as file:
        file.write(b'{"version": 1, "key": "')  # torn
    with curating(shop.root) as (address, token, process):
        post(address, token, {"undo": [0], "reject": [5]})
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    assert "2 new lines" in err
    assert "select shells.toml && python -m pipeline shard" in err
    assert len(read_curation(shop.dataset).by_key) == 3
    assert sum(1 for _ in read_jsonl(shop.dataset.curation)) == 5


def test_a_second_page_is_refused_and_other_commands_are_not(shop: Any) -> None:
    shop.add(shop.served(3))
    with curating(shop.root) as (address, token, process):
        for name, status in (("curate", 2), ("select", 0)):
            command = [sys.executable, "-m", "pipeline", name, "shells.toml"]
            done = subprocess.run(
                command, env=child_env(), cwd=shop.root, capture_output=True, text=True
            )
            assert done.returncode == status, done.stderr
            assert (f"process {process.pid} curates" in done.stderr) == (name == "curate")
        post(address, token, {"reject": [0]})
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        command = [sys.executable, "-m", "pipeline", "curate", "shells.toml", "--port", str(port)]
        done = subprocess.run(
            command, env=child_env(), cwd=shop.root, capture_output=True, text=True
        )
        assert done.returncode == 2
        assert f"--port {port}: " in done.stderr
