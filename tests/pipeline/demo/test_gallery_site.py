"""The gallery's site over real HTTP: every link in the truth answers as the truth says."""

import http.client
import io
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import IO
from urllib.parse import quote, urljoin, urlsplit
from urllib.robotparser import RobotFileParser

import pytest
from PIL import Image

from pipeline.demo.cache import FULL, encode, image_path, write_file_atomic
from pipeline.demo.gallery import Gallery, ServedGallery, main, serve
from pipeline.demo.layout import build_layout
from pipeline.demo.serving import requested_range
from pipeline.demo.shells import DRAWING
from pipeline.demo.site import Site, TextDocument

COUNT, SEED = 330, 4


def fill(gallery: Gallery) -> None:
    """Put a plain stand-in for every picture into the cache, so that nothing is drawn."""
    gallery.cache.mkdir(parents=True, exist_ok=True)
    for one in gallery.specimens():
        for side in (96, 160, 256):
            shade = (one.index % 200, 90, side % 200)
            path = image_path(gallery.cache, DRAWING, SEED, one.index, side, one.kind)
            write_file_atomic(path, encode(Image.new("RGB", (side, side), shade), one.kind))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedGallery]:
    gallery = Gallery(COUNT, SEED, tmp_path_factory.mktemp("gallery"))
    fill(gallery)
    with serve(gallery) as running:
        yield running


class Visitor:
    """A client with one keep-alive connection."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname == "127.0.0.1"
        self.connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)

    def get(
        self, path: str, method: str = "GET", **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Return status, headers and body; underscores in header names become hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(method, path, headers=named)
        response = self.connection.getresponse()
        return response.status, response.headers, response.read()


@pytest.fixture
def visitor(served: ServedGallery) -> Iterator[Visitor]:
    client = Visitor(served.url)
    yield client
    client.connection.close()


class Links(HTMLParser):
    """Collects links by the class or relation of their anchors, and checks tags balance."""

    VOID = frozenset({"meta", "link", "img", "source"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: list[dict[str, str]] = []
        self.resources: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag not in self.VOID:
            self._open.append(tag)
        if tag == "a":
            self.anchors.append(given)
        for name in ("src", "data-src"):
            if name in given and not given[name].startswith("data:"):
                self.resources.append(given[name])
        if "srcset" in given:
            self.resources += [part.split()[0] for part in given["srcset"].split(",")]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def of_class(self, name: str) -> list[str]:
        """Return the addresses of the anchors of a class."""
        return [a["href"] for a in self.anchors if name in a.get("class", "").split()]


def requested(base: str, link: str) -> str:
    """Return the path that a client requests for a link on a page, without its query."""
    return quote(urlsplit(urljoin(base, link)).path, safe="/()%")


@pytest.mark.slow
def test_every_good_picture_resolves(served: ServedGallery, visitor: Visitor) -> None:
    truth = served.gallery.truth()
    assert len(truth.images) == COUNT
    assert sorted(one.index for one in truth.images) == list(range(COUNT))
    for one in truth.images:
        status, headers, body = visitor.get(one.path)
        assert status == 200
        assert headers["Content-Type"] == f"image/{'png' if one.path.endswith('png') else 'jpeg'}"
        with Image.open(io.BytesIO(body)) as image:
            assert image.size == (FULL, FULL)


def test_faults_disallowed_and_ornaments_answer_as_told(
    served: ServedGallery, visitor: Visitor
) -> None:
    truth = served.gallery.truth()
    assert {one.fault for one in truth.faults} == {
        "missing image", "missing page", "page served as image",
    }  # fmt: skip
    for fault in truth.faults:
        status, headers, body = visitor.get(fault.path)
        assert status == fault.status
        assert headers["Content-Type"].split(";")[0] == fault.content_type
        assert body.startswith(b"<!DOCTYPE html>")
    for path in (*truth.disallowed, *truth.ornaments):
        assert visitor.get(path)[0] == 200


def test_pages_parse_and_link_to_exactly_the_truth(served: ServedGallery) -> None:
    site, truth = Site(COUNT, SEED), served.gallery.truth()
    seen: set[str] = set()
    resources: set[str] = set()
    for path in truth.pages:
        page = site.resource_at(path[1:])
        assert isinstance(page, TextDocument)
        links = Links(page.text)
        assert all(not urlsplit(a["href"]).scheme or a.get("rel") for a in links.anchors)
        seen |= {requested(path, link) for link in links.of_class("specimen")}
        resources |= {requested(path, link) for link in links.resources}
    good = {one.path for one in truth.images}
    broken = {one.path for one in truth.faults if one.fault != "missing page"}
    assert seen - set(truth.disallowed) == good | broken
    assert seen & set(truth.disallowed)
    assert resources & set(truth.ornaments) == set(truth.ornaments)
    assert not resources & set(truth.disallowed)


def test_pagination_reaches_every_species(served: ServedGallery, visitor: Visitor) -> None:
    truth = served.gallery.truth()
    path, found, visited = "/index.html", set(), []
    while path:
        visited.append(path)
        links = Links(visitor.get(path)[2].decode())
        found |= {requested(path, a["href"]) for a in links.anchors if "species/" in a["href"]}
        following = [a["href"] for a in links.anchors if a.get("rel") == "next"]
        assert following == links.of_class("next")
        path = requested(path, following[0]) if following else ""
    assert len(visited) == 3
    dead = {one.path for one in truth.faults if one.fault == "missing page"}
    assert found == {page for page in truth.pages if "/species/" in page} | dead
    assert visitor.get("/")[2] == visitor.get("/index.html")[2]
    assert visitor.get("/page/1.html")[0] == visitor.get("/page/99.html")[0] == 404


def test_labels_and_licence_stand_on_each_page(served: ServedGallery) -> None:
    site, truth = Site(COUNT, SEED), served.gallery.truth()
    by_page = {page.species.name: page for page in site.layout.species}
    for one in truth.images:
        page = site.resource_at(by_page[one.species].path)
        assert isinstance(page, TextDocument)
        assert f'<h1 class="species-name">{one.species}</h1>' in page.text
        assert f'<span class="family">{one.family}</span>' in page.text
        assert f'<span class="credit">{one.credit}</span>' in page.text
        assert ('rel="license"' in page.text) == one.licence.startswith("CC")
    assert {one.licence for one in truth.images} == {
        "CC0-1.0", "CC-BY-4.0", "All rights reserved",
    }  # fmt: skip


def test_pages_have_the_variety_of_the_web() -> None:
    site = Site(COUNT, SEED)
    pages = [site.resource_at(page.path) for page in site.layout.species]
    text = "".join(page.text for page in pages if isinstance(page, TextDocument))
    for sign in (" 96w,", "data-src=", "<picture>", "?utm_source=", 'class="related"', " (1).jpg"):
        assert sign in text


def test_robots_disallow_the_reserve_only(served: ServedGallery, visitor: Visitor) -> None:
    robots = RobotFileParser()
    robots.parse(visitor.get("/robots.txt")[2].decode().splitlines())
    truth = served.gallery.truth()
    assert not any(robots.can_fetch("any", path) for path in truth.disallowed)
    assert all(robots.can_fetch("any", one.path) for one in truth.images)
    assert all(robots.can_fetch("any", path) for path in truth.pages)


def test_conditional_requests(served: ServedGallery, visitor: Visitor) -> None:
    for path in ("/index.html", served.gallery.truth().images[0].path):
        _, headers, body = visitor.get(path)
        etag, changed = headers["ETag"], headers["Last-Modified"]
        for condition in ({"If_None_Match": f'"x", W/{etag}'}, {"If_Modified_Since": changed}):
            status, again, empty = visitor.get(path, **condition)
            assert (status, empty, again["ETag"]) == (304, b"", etag)
        older = "Mon, 01 Jan 2001 00:00:00 GMT"
        assert visitor.get(path, If_Modified_Since=older)[2] == body
        assert visitor.get(path, If_None_Match='"x"', If_Modified_Since=changed)[2] == body


def test_head_and_ranges(served: ServedGallery, visitor: Visitor) -> None:
    path = served.gallery.truth().images[0].path
    _, headers, body = visitor.get(path)
    status, head, nothing = visitor.get(path, "HEAD")
    assert (status, nothing, head["Content-Length"]) == (200, b"", str(len(body)))
    for asked, part in (("0-9", body[:10]), ("100-", body[100:]), ("-7", body[-7:])):
        status, partial, piece = visitor.get(path, Range=f"bytes={asked}")
        assert (status, piece) == (206, part)
        assert partial["Content-Range"].endswith(f"/{len(body)}")
    assert visitor.get(path, Range="bytes=0-9", If_Range='"other"')[2] == body
    assert visitor.get(path, Range="bytes=0-9", If_Range=headers["ETag"])[0] == 206
    status, refused, _ = visitor.get(path, Range=f"bytes={len(body)}-")
    assert (status, refused["Content-Range"]) == (416, f"bytes */{len(body)}")


@pytest.mark.parametrize("header", ["bytes=5-2", "lines=0-1", "bytes=0-1,4-5", "bytes=-", "x"])
def test_ranges_that_ask_for_nothing_are_ignored(header: str) -> None:
    assert requested_range(header, 100) is None


def test_requests_are_recorded(served: ServedGallery, visitor: Visitor) -> None:
    before = len(served.requests)
    visitor.get("/index.html?utm_source=test")
    assert served.requests[before:] == ["/index.html?utm_source=test"]


def test_paths_do_not_leave_the_site(served: ServedGallery, visitor: Visitor) -> None:
    for path in ("/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/images/full/"):
        assert visitor.get(path)[0] == 404


def test_pictures_are_drawn_when_asked_for_and_only_once(tmp_path: Path) -> None:
    gallery = Gallery(2, SEED, tmp_path / "new")
    path = gallery.truth().images[0].path
    with serve(gallery) as running:
        client = Visitor(running.url)
        first = client.get(path)[2]
        kept = image_path(gallery.cache, DRAWING, SEED, 0, FULL, path.rsplit(".", 1)[1])
        stamp = kept.stat().st_mtime_ns
        assert client.get(path)[2] == first == kept.read_bytes()
        assert kept.stat().st_mtime_ns == stamp
        client.connection.close()


def test_half_written_files_are_never_served(tmp_path: Path) -> None:
    gallery = Gallery(1, SEED, tmp_path)
    path = image_path(tmp_path, DRAWING, SEED, 0, FULL, "jpg")

    def torn(file: IO[bytes]) -> None:
        file.write(b"\xff\xd8half a picture")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_file_atomic(path, torn)
    assert list(tmp_path.iterdir()) == []
    # What a process leaves that was killed while it wrote.
    (tmp_path / "tmpabc.part").write_bytes(b"\xff\xd8half a picture")
    picture = gallery.truth().images[0]
    with Image.open(io.BytesIO(gallery.respond(picture.path[1:]).body)) as image:
        image.load()
        assert image.size == (FULL, FULL)


@pytest.mark.slow
def test_draw_all_draws_what_is_missing_and_reports(tmp_path: Path) -> None:
    gallery = Gallery(4, SEED, tmp_path)
    reports: list[tuple[int, int]] = []
    gallery.draw_all(lambda done, total: reports.append((done, total)))
    assert reports[0] == (0, 10)
    assert reports[-1] == (10, 10)
    assert len(list(tmp_path.iterdir())) == 30
    again: list[tuple[int, int]] = []
    gallery.draw_all(lambda done, total: again.append((done, total)))
    assert again == [(0, 0)]


def test_layout_is_a_pure_function_of_count_and_seed() -> None:
    assert build_layout(45, 1) == build_layout(45, 1)
    assert build_layout(45, 1) != build_layout(45, 2)
    with pytest.raises(ValueError, match="at least one"):
        build_layout(0, 1)


def test_smallest_site_has_every_trap() -> None:
    truth = build_layout(1, 0).truth()
    assert len(truth.images) == 1
    assert len({one.fault for one in truth.faults}) == 3


def test_taken_port_is_reported(
    served: ServedGallery, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = str(urlsplit(served.url).port)
    assert main(["--port", port, "--count", "1", "--cache", str(tmp_path)]) == 2
    assert re.fullmatch(r"cannot serve on 127\.0\.0\.1:\d+: .+\n", capsys.readouterr().err)
    assert json.dumps([entry.name for entry in tmp_path.iterdir()]) == "[]"
