"""Trying recipes on single pages, and proposed recipes that really find a gallery's images."""

import gzip
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from pipeline.contract import DatasetPaths, read_jsonl
from pipeline.crawl.check_recipe import COLUMNS, check_recipe, propose_recipe
from pipeline.crawl.stage import crawl
from pipeline.errors import UserError
from pipeline.events import EventLog
from pipeline.fetcher import Politeness
from pipeline.recipe import Recipe, load_recipe
from pipeline.sources import Page, PageRequest
from pipeline.sources.proposal import propose
from tests.helpers.static_site import BackgroundServer, QuietServer, served

SITES = Path(__file__).parent / "sites"
GALLERIES = Path(__file__).parents[1] / "data" / "galleries"
LOOPBACK = Politeness(allow_private=True, rate=500, concurrency=4)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def galleries() -> Iterator[str]:
    server = QuietServer(("127.0.0.1", 0), partial(_Quiet, directory=str(GALLERIES)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


FULL_SIZE = {
    "lazygal": lambda path: "_" not in path.name,
    "llgal": lambda path: not path.name.startswith("thumb_"),
    "sigal": lambda path: path.parent.name == "original",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FULL_SIZE))
def test_a_proposed_recipe_finds_the_full_size_images(
    galleries: str, name: str, tmp_path: Path
) -> None:
    text = propose_recipe(f"{galleries}/{name}/index.html", LOOPBACK)
    (tmp_path / "as-proposed.toml").write_text(text)
    assert check_recipe(tmp_path / "as-proposed.toml", f"{galleries}/{name}/index.html").follow
    path = tmp_path / "proposed.toml"
    path.write_text(text)
    proposed = load_recipe(path)
    recipe = Recipe(source=proposed.source, politeness=LOOPBACK)
    dataset = DatasetPaths("d", tmp_path)
    with EventLog(dataset, "test") as log:
        crawl(recipe, dataset, log)
    files = (GALLERIES / name).rglob("*.jpg")
    expected = {
        f"{galleries}/{file.relative_to(GALLERIES).as_posix()}"
        for file in files
        if FULL_SIZE[name](file)
    }
    assert {row["url"] for row in read_jsonl(dataset.url_manifest)} == expected


def test_a_recipe_is_tried_on_one_page(galleries: str, tmp_path: Path) -> None:
    album = f"{galleries}/sigal/shirts/index.html"
    check = check_recipe(SITES / "sigal.toml", album)
    assert not check.error
    rows = check.rows()
    assert len(rows) == len(check.images) == 3
    assert {len(row) for row in rows} == {len(COLUMNS)}
    assert rows[0][0].startswith(f"{galleries}/sigal/shirts/original/")
    assert rows[0][2] == "shirts"
    index = check_recipe(SITES / "lazygal.toml", f"{galleries}/lazygal/index.html")
    assert [url.rsplit("/", 2)[1] for url in index.follow] == ["dresses", "shirts"]
    assert index.skipped == {"nothing_selected": 1}


def test_what_cannot_be_tried_is_said(galleries: str) -> None:
    gone = check_recipe(SITES / "sigal.toml", f"{galleries}/gone.html")
    assert gone.error == "not_found, status 404"
    image = next((GALLERIES / "llgal").glob("*.jpg")).name
    assert "image/jpeg" in check_recipe(SITES / "sigal.toml", f"{galleries}/llgal/{image}").error
    with pytest.raises(UserError, match="not an http"):
        check_recipe(SITES / "sigal.toml", "nowhere")
    with pytest.raises(UserError, match="not_found"):
        propose_recipe(f"{galleries}/gone.html", LOOPBACK)


class _Redirecting(_Quiet):
    def do_GET(self) -> None:
        host, _, port = self.headers["Host"].partition(":")
        if host == "localhost":
            return super().do_GET()
        self.send_response(301)
        self.send_header("Location", f"http://localhost:{port}{self.path}")
        self.send_header("Content-Length", "0")
        return self.end_headers()


def test_a_proposal_for_a_site_that_redirects_to_another_host(tmp_path: Path) -> None:
    with BackgroundServer(partial(_Redirecting, directory=str(GALLERIES))) as server:  # type: ignore[arg-type]
        address = f"{server.url}/sigal/index.html"
        text = propose_recipe(address, LOOPBACK)
        start = address.replace("127.0.0.1", "localhost")
        assert f'start = ["{start}"]' in text
        assert f"# {address} redirects to this host\n" in text
        (tmp_path / "r.toml").write_text(text)
        check = check_recipe(tmp_path / "r.toml", start)
    assert check.follow
    assert "offsite" not in check.skipped


def proposed(body: str, content_type: str = "text/html") -> str:
    url = "https://shells.example/x"
    page = Page(PageRequest(url), body.encode(), url, {"content-type": content_type})
    return propose(page, lambda _: None).to_toml()


def test_other_kinds_are_recognised(tmp_path: Path) -> None:
    records = '{"results": [{"photos": [{"src": "https://a.example/1.jpg"}]}, {"photos": []}]}'
    cases = {
        records: 'items = "results[].photos[]"\n',
        '{"@type": "sc:Manifest"}': 'kind = "iiif"',
        "<?xml version='1.0'?><rss><channel/></rss>": 'kind = "feed"',
        "<?xml version='1.0'?><urlset><url><loc>https://a.example/</loc></url></urlset>": (
            'take = "pages"'
        ),
        "<urlset><url><loc>https://b.example/</loc></url></urlset>": "# pages on other hosts",
    }
    for body, words in cases.items():
        text = proposed(body, "application/xml" if body.startswith("<") else "application/json")
        assert words in text
        (tmp_path / "r.toml").write_text(text)
        load_recipe(tmp_path / "r.toml")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[" * 200_000, "not JSON (nested too deeply)"),
        (b"[" * 900 + b'"http://a.example/1.jpg"' + b"]" * 900, 'kind = "json"'),
        (b'\xef\xbb\xbf["http://a.example/1.jpg"]', 'items = "[]"'),
        ('["http://a.example/1.jpg"]'.encode("utf-16"), 'items = "[]"'),
        (b'["http://a.example/1.jpg", "\xe9\xff\\ud83d"]', 'items = "[]"'),
        (b'["http://a.example/1.jpg", ' + b"9" * 6000 + b", NaN]", 'items = "[]"'),
    ],
)
def test_a_proposal_is_made_from_odd_json(body: bytes, words: str, tmp_path: Path) -> None:
    url = "https://shells.example/x"
    text = propose(Page(PageRequest(url), body, url, {}), lambda _: None).to_toml()
    assert words in text
    (tmp_path / "r.toml").write_text(text, errors="strict")


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b"\x89PNG...<", "image/png", "image/png instead of a page"),
        (b"url,title\n", "text/csv", "text/csv instead of a page"),
        (b"words", "text/plain", "no HTML in the response"),
        (b"", "", "an empty response"),
    ],
)
def test_what_is_no_page_gets_no_proposal(body: bytes, kind: str, words: str) -> None:
    url = "https://shells.example/x"
    with pytest.raises(UserError, match=words):
        propose(Page(PageRequest(url), body, url, {"content-type": kind}), lambda _: None)


def test_an_error_of_ours_in_a_proposal_is_one_line(
    galleries: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("pipeline.sources.proposal.find_recipe", fail)
    with pytest.raises(UserError, match=r"sigal.*: internal: (.|\n)*a bug"):
        propose_recipe(f"{galleries}/sigal/index.html", LOOPBACK)


def test_a_page_drawn_by_scripts_is_said_to_be_one() -> None:
    assert "scripts build it" in proposed('<ul><li v-for="s"><img src="{{ s.url }}"></li></ul>')


def test_a_proposal_that_finds_nothing_says_what_it_looked_at() -> None:
    text = proposed(
        '<header><a href="/"><img src="logo.png"></a></header><a href="http://other.example/">x</a>'
        '<a href="p.html">p</a><img src="{{ x }}"><img src="data:image/gif;base64,AA">'
    )
    for words in (
        "visited 1 page",
        "1 link to other sites",
        "2 links to pages of the site",
        "1 image without a usable URL (template)",
        "1 image without a usable URL (data_uri)",
        "could not read 1 page, the first: https://shells.example/p.html",
    ):
        assert words in text
    assert "no link and no image" in proposed("<p>words</p>")
    drawn = proposed("<div id=app></div><script src=a.js></script>")
    assert "1 script" in drawn
    assert "scripts build it" in drawn


@pytest.mark.slow
def test_a_page_of_many_megabytes_is_proposed_from_its_first_tags() -> None:
    link = '<a href="a/{0}.jpg"><img src="t/{0}.jpg"></a>'
    text = proposed("".join(link.format(number) for number in range(20_000)))
    assert "a:is(" in text
    assert "images on 1 page" in text


def test_a_recipe_that_takes_nothing_from_a_page_says_what_is_there(
    galleries: str, tmp_path: Path
) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        f'[source]\nkind = "html"\nstart = ["{galleries}/llgal/index.html"]\n'
        'image = ".nothing"\n[politeness]\nallow_private = true\nrate = 500\n'
    )
    check = check_recipe(recipe, f"{galleries}/llgal/index.html")
    assert (check.images, check.skipped) == ((), {"nothing_selected": 1})
    assert "links to pages of the site" in check.seen
    assert "images" in check.seen


def test_a_list_that_breaks_off_is_one_line(tmp_path: Path) -> None:
    rows = "".join(f"http://a.example/{n}.jpg\n" for n in range(5000)).encode()
    (tmp_path / "urls.txt.gz").write_bytes(gzip.compress(rows)[:-50])
    recipe = tmp_path / "r.toml"
    with served(tmp_path) as url:
        address = f"{url}/urls.txt.gz"
        recipe.write_text(
            f'[source]\nkind = "list"\nstart = ["{address}"]\n'
            "[politeness]\nallow_private = true\nrate = 500\n"
        )
        found = check_recipe(recipe, address)
    assert found.error.startswith("EOFError")
    assert found.rows() == []


def test_a_private_site_names_the_option_of_new_recipe(galleries: str) -> None:
    with pytest.raises(UserError, match="for new-recipe, use --allow-private"):
        propose_recipe(f"{galleries}/")
