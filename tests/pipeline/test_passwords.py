"""A site behind a password: used for every request, and written and printed nowhere."""

from __future__ import annotations

import base64
import json
import sqlite3
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.contract import DatasetPaths, image_key, load_index, read_jsonl
from pipeline.demo.shells import draw
from pipeline.events import unresolved_failures
from pipeline.fetcher import Fetcher, Politeness
from pipeline.recipe import Recipe, load_recipe
from pipeline.sources.html_options import HtmlSource
from pipeline.web.bulk_fetcher import BulkFetcher
from pipeline.web.responses import Response
from tests.helpers.commands import run_here
from tests.helpers.commands import run_pipeline as run
from training.fit import main as fit

USER, PASSWORD = "keeper", "s3cr3t-Zq9%21"
PLAIN = "s3cr3t-Zq9!"
TOKEN = base64.b64encode(f"{USER}:{PLAIN}".encode()).decode()
SECRETS = (PASSWORD, PLAIN, TOKEN, "0ther-Pw7")


class Site(ThreadingHTTPServer):
    """Serves a gallery and its shards to those who know the password; `refused` counts the rest.

    `/moved.png` leads to the same host, `/away.png` to a foreign one.
    """

    def __init__(self, pictures: dict[str, bytes], foreign: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pictures = pictures
        self.foreign = foreign
        self.refused = 0
        self.broken = {"/2.png"}
        self.authorizations: list[str | None] = []

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Site

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        given = self.headers.get("Authorization")
        self.server.authorizations.append(given)
        if self.path == "/robots.txt":
            self._answer(404, b"")
        elif given != f"Basic {TOKEN}":
            self.server.refused += 1
            self._answer(401, b"")
        elif self.path == "/moved.png":
            self._answer(302, b"", Location=f"http://{USER}:{PASSWORD}@{self.server.host}/3.png")
        elif self.path in self.server.broken:
            self._answer(500, b"")
        elif self.path == "/":
            links = "".join(f'<img src="{name}" title="{name}">' for name in self.server.pictures)
            me = f"http://{USER}:{PASSWORD}@{self.server.host}/"
            links += f"<figcaption>{me}</figcaption>"
            links += f'<img src="/4.png?2" alt="by {me}">'
            links += f'<img src="http://x:0ther-Pw7@{self.server.foreign}/f.png">'
            links += f'<img src="http://{USER}:{PASSWORD}@{self.server.host}/same.png">'
            self._answer(200, f"<html>{links}<img src=/moved.png>".encode())
        else:
            body = self.server.pictures.get(self.path.partition("?")[0])
            self._answer(404 if body is None else 200, body or b"")

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        kind = "text/html" if self.path == "/" else "image/png"
        self.send_header("Content-Type", kind)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Link", f'<http://{USER}:{PASSWORD}@{self.server.host}/>; rel="up"')
        self.end_headers()
        self.wfile.write(body)


def _serve(site: Site) -> None:
    threading.Thread(target=site.serve_forever, daemon=True).start()


@pytest.fixture
def foreign() -> Iterator[Site]:
    with Site({}) as site:
        _serve(site)
        yield site
        site.shutdown()


@pytest.fixture
def site(foreign: Site, tmp_path: Path) -> Iterator[Site]:
    pictures = {}
    for number in range(6):
        path = tmp_path / "picture.png"
        draw(1, number, 64).save(path)
        pictures[f"/{number}.png"] = path.read_bytes()
    pictures["/same.png"] = path.read_bytes()[:-1] + b"\x82"
    with Site(pictures, foreign.host) as site:
        _serve(site)
        yield site
        site.shutdown()


def reveals(root: Path, secrets: tuple[str, ...], but: set[Path]) -> list[str]:
    """Every file under `root` that has a secret in it, also compressed as SQLite never does."""
    found = []
    for path in root.rglob("*"):
        if path.is_file() and path not in but:
            data = path.read_bytes()
            found += [f"{path}: {secret}" for secret in secrets if secret.encode() in data]
    return found


def test_a_password_is_used_for_every_stage_and_nowhere_to_be_found(
    site: Site, foreign: Site, tmp_path: Path
) -> None:
    root = tmp_path / "project"
    root.mkdir()
    recipe = root / "locked.toml"
    recipe.write_text(
        f'[source]\nkind = "html"\nstart = ["http://{USER}:{PASSWORD}@{site.host}/"]\n'
        'image = "img"\ntitle = { item = "img", attribute = "alt" }\n'
        "[politeness]\nrate = 500\nallow_private = true\nattempts = 1\n"
        '[select]\nmin_side = 16\nnear_duplicate_bits = "off"\n'
        "[shards]\nresolution = 32\n"
    )
    results = {}
    for words in (
        ("check-recipe", "locked.toml", "--url", f"http://{USER}:{PASSWORD}@{site.host}/"),
        ("crawl", "locked.toml"),
        ("download", "locked.toml"),
        ("select", "locked.toml"),
        ("select", "locked.toml", "--preview"),
        ("shard", "locked.toml"),
        ("status", "locked.toml"),
        ("status", "locked.toml", "--json"),
        ("retry", "locked.toml"),
        ("export", "locked.toml", "out", "--format", "huggingface"),
        ("export-manifest", "locked.toml", "urls.csv"),
        ("forget", "locked.toml", "--url", f"http://{USER}:{PASSWORD}@{site.host}/1.png"),
        ("crawl", "locked.toml", "--set", f"source.start=http://{USER}:{PASSWORD}@{site.host}/"),
        ("new-recipe", f"http://{USER}:{PASSWORD}@{site.host}/", "--allow-private"),
        ("import", "locked.toml", f"http://{USER}:{PASSWORD}@{site.host}/shards.json"),
    ):
        if words[0] == "retry":
            site.broken.clear()
        result = run(root, *words)
        results.setdefault(words[0], result)
        assert "Traceback" not in result.stderr, result.stderr
        for secret in SECRETS:
            assert secret not in result.stdout + result.stderr, (words, secret)
    dataset = DatasetPaths("locked", root)
    urls = {row["url"] for row in read_jsonl(dataset.url_manifest)}
    assert f"http://{site.host}/0.png" in urls
    assert f"http://{foreign.host}/f.png" in urls
    assert all(row["key"] == image_key(row["url"]) for row in read_jsonl(dataset.url_manifest))
    assert "passwords in links not used" in results["crawl"].stderr
    assert f"(http://{foreign.host} 1)" in results["crawl"].stderr
    assert results["retry"].returncode == 0, results["retry"].stderr
    assert site.refused == 0
    assert not any(foreign.authorizations)
    kept = {row["url"] for row in read_jsonl(dataset.selection)}
    assert f"http://{site.host}/0.png" in kept
    assert [row.kind for row in unresolved_failures(dataset).values()] == ["forbidden"]
    assert reveals(root, SECRETS, {recipe}) == []
    with sqlite3.connect(dataset.crawl_state) as db:
        pages = [row[0] for row in db.execute("SELECT url FROM pages")]
    assert pages == [f"http://{site.host}/"]
    (tar,) = sorted(dataset.originals_dir.glob("*-000000.tar"))
    with tarfile.open(tar) as archive:
        names = [name for name in archive.getnames() if name.endswith(".json")]
        final = {json.load(archive.extractfile(name))["final_url"] for name in names}  # type: ignore[arg-type]
    assert f"http://{site.host}/3.png" in final


def test_training_reads_shards_behind_a_password(site: Site, tmp_path: Path) -> None:
    """The index and the shards with the credentials of `--shards`; the run keeps none of them."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(8):
        draw(1, number, 32).save(pictures / f"{number}.png")
    root = tmp_path / "project"
    root.mkdir()
    (root / "mine.toml").write_text(
        f'[source]\nkind = "folder"\nstart = ["{pictures}"]\n'
        '[select]\nmin_side = 16\nnear_duplicate_bits = "off"\n[shards]\nresolution = 16\n'
    )
    assert run(root, "run", "mine.toml").returncode == 0
    index, shards = load_index(root / "manifests" / "mine")
    values = json.loads((root / "manifests" / "mine" / "shards.json").read_bytes())
    values["shardlist"][0]["url"] = f"http://{site.host}/a.tar"
    site.pictures["/set/shards.json"] = json.dumps(values).encode()
    site.pictures["/a.tar"] = Path(shards[0]).read_bytes()
    words = ["--preset", "dcgan64", "--resolution", "16", "--batch", "4", "--total-kimg", "0.008"]
    words += ["--generator.width", "4", "--discriminator.width", "4", "--device", "cpu"]
    shards_url = f"http://{USER}:{PASSWORD}@{site.host}/set"
    work = tmp_path / "work"
    work.mkdir()
    for url, status in ((shards_url, 0), (f"http://{USER}:wrong{PASSWORD}@{site.host}/set", 2)):
        done = run_here(fit, work, "--shards", url, "--run", "r", *words)
        assert done.returncode == status, done.stderr + done.stdout
        for secret in SECRETS:
            assert secret not in done.stdout + done.stderr
    assert index.nsamples == 8
    assert reveals(work, SECRETS, set()) == []


def test_credentials_belong_to_one_origin() -> None:
    recipe = Recipe(
        source=HtmlSource(start=("https://me:p%40ss@Example.org/a", "http://b.example/")),
        politeness=Politeness(headers={"Cookie": "id=1", "X-Plain": "y"}),
    )
    assert recipe.source.start == ("https://Example.org/a", "http://b.example/")
    token = base64.b64encode(b"me:p@ss").decode()
    assert recipe.politeness.headers == {"X-Plain": "y"}
    assert recipe.politeness.host_headers == {
        "https://example.org:443": {"Authorization": f"Basic {token}", "Cookie": "id=1"},
        "http://b.example:80": {"Cookie": "id=1"},
    }
    assert "p@ss" not in repr(recipe)
    assert token not in repr(recipe)
    assert "id=1" not in repr(recipe)


def test_a_mistake_in_a_recipe_does_not_print_its_password(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(f'[source]\nkind = "html"\nstart = ["ftp://{USER}:{PASSWORD}@host/"]\n')
    with pytest.raises(Exception, match="is not an http") as refused:
        load_recipe(path)
    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize("bulk", [False, True])
def test_a_secret_header_does_not_follow_a_redirect_to_another_host(
    bulk: bool, foreign: Site
) -> None:
    class _Redirect(_Handler):
        def do_GET(self) -> None:
            self.server.authorizations.append(self.headers.get("Authorization"))
            self._answer(302, b"", Location=f"http://{foreign.host}/x.png")

    server = Site({})
    server.RequestHandlerClass = _Redirect
    _serve(server)
    url = f"http://{USER}:{PASSWORD}@{server.host}/"
    source = HtmlSource(start=(url,))
    politeness = Politeness(
        rate=500, allow_private=True, attempts=1, obey_robots=False, honour_opt_out=False
    )
    rules = Recipe(source=source, politeness=politeness).politeness
    try:
        if bulk:
            with BulkFetcher[str](rules, "t") as many:
                many.add("x", f"http://{server.host}/")
                while many.pending:
                    many.poll(0.1)
        else:
            with Fetcher(rules) as fetcher:
                assert not isinstance(fetcher.get(f"http://{server.host}/", stage="t"), Response)
    finally:
        server.shutdown()
        server.server_close()
    assert set(server.authorizations) == {f"Basic {TOKEN}"}
    assert set(foreign.authorizations) == {None}
