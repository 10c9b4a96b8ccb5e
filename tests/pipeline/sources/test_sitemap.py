import gzip
from typing import Any

import pytest

from pipeline.config_io import parse_config
from pipeline.sources import FoundImage, Page, PageRequest, PageResult
from pipeline.sources.sitemap import SitemapSource, parse, start

URL = "https://shells.example/sitemap.xml"
SITEMAP = PageRequest(URL, 0, {"role": "sitemap"})
NAMESPACES = (
    'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" '
    'xmlns:image="http://www.google.com/schemas/sitemap-image/1.1"'
)
INDEX = f"""<?xml version="1.0" encoding="UTF-8"?><sitemapindex {NAMESPACES}>
<sitemap><loc>https://shells.example/sitemap-1.xml.gz</loc><lastmod>2024-01-01</lastmod></sitemap>
<sitemap><loc>
  /sitemap-2.xml</loc></sitemap></sitemapindex>"""
URLSET = f"""<?xml version="1.0" encoding="UTF-8"?><!-- c --><urlset {NAMESPACES}>
<url><loc>https://shells.example/cone.html</loc>
  <image:image><image:loc>https://shells.example/full/cone (1).jpg</image:loc>
    <image:title>Cone &amp; co</image:title><image:license>https://cc.example/0</image:license></image:image>
  <image:image><image:loc>/full/logo.png</image:loc></image:image></url>
<url><loc>https://shells.example/about.html</loc></url>
<url><loc>https://shells.example/cone.html#again</loc></url></urlset>"""


def config(**values: Any) -> SitemapSource:
    return parse_config(SitemapSource, {"start": [URL], **values}, "test")


def parsed(body: str | bytes, **values: Any) -> PageResult:
    data = body.encode() if isinstance(body, str) else body
    return parse(config(**values), Page(SITEMAP, data, URL))


def test_an_index_leads_to_sitemaps() -> None:
    assert start(config()) == [SITEMAP]
    assert list(parsed(INDEX).follow) == [
        PageRequest(f"https://shells.example/sitemap-{n}", 0, {"role": "sitemap"})
        for n in ("1.xml.gz", "2.xml")
    ]


@pytest.mark.parametrize(
    "body",
    [
        URLSET,
        gzip.compress(URLSET.encode(), mtime=0),
        gzip.compress(URLSET[:99].encode(), mtime=0) + gzip.compress(URLSET[99:].encode(), mtime=0),
        "\ufeff" + URLSET,
    ],
    ids=["plain", "gzip", "two gzip members", "byte order mark"],
)
def test_a_sitemap_leads_to_pages(body: str | bytes) -> None:
    result = parsed(body, follow_exclude=["about"])
    assert list(result.follow) == [PageRequest("https://shells.example/cone.html", 1)]
    assert list(result.images) == []


def test_image_entries_of_a_sitemap() -> None:
    result = parsed(URLSET, take="sitemap", exclude=["logo"])
    assert list(result.images) == [
        FoundImage(
            "https://shells.example/full/cone%20%281%29.jpg",
            "Cone & co",
            (),
            "https://cc.example/0",
        )
    ]
    assert (list(result.follow), dict(result.skipped)) == ([], {"excluded": 1})


def test_the_pages_are_read_as_html() -> None:
    page = Page(
        PageRequest("https://shells.example/cone.html", 1), b"<img src=a.jpg><img src=b.png>"
    )
    result = parse(config(exclude=["png"]), page)
    assert [one.url for one in result.images] == ["https://shells.example/a.jpg"]


def test_plain_lists_and_robots_txt() -> None:
    text = parsed("https://shells.example/a\nhttps://shells.example/b\n\nhttps://shells.example/a")
    assert [one.url[-1] for one in text.follow] == ["a", "b"]
    robots = parsed("User-agent: *\nDisallow: /no\nSitemap: https://shells.example/s.xml\n")
    assert list(robots.follow) == [
        PageRequest("https://shells.example/s.xml", 0, {"role": "sitemap"})
    ]


@pytest.mark.parametrize(
    "body",
    [
        "<html><body>404</body></html>",
        "nothing here",
        "",
        b"\x1f\x8bbroken",
        gzip.compress(b" " * (65 << 20), 1, mtime=0),
        gzip.compress(b" " * (33 << 20), 1, mtime=0) * 2,
    ],
    ids=["html", "text", "empty", "damaged gzip", "bomb", "bomb in two members"],
)
def test_other_things_are_problems(body: str | bytes) -> None:
    assert parsed(body).error


def test_entities_are_not_expanded() -> None:
    bomb = (
        '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "https://shells.example/a">'
        '<!ENTITY f SYSTEM "file:///etc/passwd">]>'
        f"<urlset {NAMESPACES}><url><loc>&f;</loc></url><url><loc>https://b.example/</loc></url></urlset>"
    )
    assert [one.url for one in parsed(bomb, offsite=True).follow] == ["https://b.example/"]


def test_pages_on_the_host_of_a_redirected_sitemap() -> None:
    text = b"https://cdn.example/a\nhttps://www.shells.example/b\nhttps://other.example/c\n"
    result = parse(config(), Page(SITEMAP, text, "https://cdn.example/sitemap.txt"))
    assert [one.url[-1] for one in result.follow] == ["a", "b"]
    assert dict(result.skipped) == {"offsite": 1}


def test_pages_on_other_hosts() -> None:
    text = "https://shells.example/a\nhttps://other.example/b\n"
    result = parsed(text)
    assert [one.url for one in result.follow] == ["https://shells.example/a"]
    assert dict(result.skipped) == {"offsite": 1}
    index = f"<sitemapindex {NAMESPACES}><sitemap><loc>https://cdn.example/1.xml</loc></sitemap>"
    assert [one.url for one in parsed(f"{index}</sitemapindex>").follow] == [
        "https://cdn.example/1.xml"
    ]
