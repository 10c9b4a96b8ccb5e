"""HTML pages of random fragments: reading one, and proposing a recipe for it, never raises."""

import json
import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.config_io import parse_config
from pipeline.recipe import Recipe
from pipeline.sources import Page, PageRequest
from pipeline.sources.html import parse
from pipeline.sources.html_options import HtmlSource
from pipeline.sources.literals import read_literals
from pipeline.sources.proposal import propose

URL = "http://shells.example/g/index.html"
SOURCE = parse_config(HtmlSource, {
    "start": [URL],
    "follow": ["a", {"select": "li a", "item": "li", "title": "b", "labels": ["i"]}],
    "next": "[rel~=next]",
    "image": "img, picture, a, script, meta, [style], [data-src], [data-bg], [data-x]",
    "title": "figcaption",
    "labels": [{"page": "h1", "all": True}, {"of": "image_url", "match": "/([^/]+)/"}],
}, "fuzz")  # fmt: skip
NEIGHBOUR = '<p><img id="good" src="/good/neighbour.jpg"></p>'

words = st.text(
    st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Z", "Cc"]), max_size=12
)
urls = st.one_of(
    st.sampled_from((
        "http://[bad", "//[::1/x.jpg", "http://a..example/x.jpg", "http://[2001:db8::1]/x.jpg",
        "javascript:;", "mailto:x@y", "data:image/gif;base64,AA", "#", "", "?", "{{ url }}",
        "http://a.example:99999/x.jpg", "a.jpg", "b/c.PNG?x=1#y", "page2.html", "?page=3", "../",
        "http://\ud83d.example/x.jpg".encode("utf-8", "replace").decode(), "x%2cblur_3%2c/a.jpg",
        "http://" + "a" * 300 + ".example/x.jpg", "x" * 3000 + ".jpg", "http://user:pw@h/x.jpg",
    )),
    words,
    words.map(lambda text: text + ".jpg"),
)  # fmt: skip
srcsets = st.lists(
    st.tuples(urls, st.sampled_from(("", " 1x", " 2.5x", " 300w", " 9h", " x", ",", " 1e999x"))),
    max_size=4,
).map(lambda parts: ", ".join(url + size for url, size in parts))
styles = st.one_of(
    urls.map(lambda url: f"background-image:url({url})"),
    urls.map(lambda url: f"--x: url('{url}'"),
    words,
)
literals: st.SearchStrategy[Any] = st.recursive(
    st.one_of(urls, st.none(), st.integers(), st.floats(allow_nan=True)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from((
                "src", "thumb", "original", "sizes", "@type", "@graph", "contentUrl", "image",
                "associatedMedia", "kind", "itemsBaseURL", "width", "items", "x",
            )),
            st.one_of(inner, st.sampled_from(("ImageObject", "ImageGallery", "Article", "album"))),
            max_size=4,
        ),
    ),
    max_leaves=12,
)  # fmt: skip
scripts = st.one_of(
    literals.map(lambda data: json.dumps(data)), words, urls.map(lambda u: f"['{u}")
)
names = st.sampled_from((
    "href", "src", "data-src", "srcset", "data-srcset", "style", "data-bg", "data-full", "data-x",
    "data-nanogallery2", "width", "height", "class", "id", "rel", "content", "property", "type",
    "name", "role", "title", "download", "http-equiv",
))  # fmt: skip
values = st.one_of(
    urls, srcsets, styles, scripts, words,
    st.sampled_from(("next", "gallery", "header", "1", "99999999999", "og:image", "logo", "0")),
)  # fmt: skip
tags = st.sampled_from((
    "a", "img", "div", "li", "ul", "figure", "figcaption", "picture", "source", "noscript", "nav",
    "header", "base", "meta", "link", "template", "svg", "table", "td", "iframe", "h1", "p",
))  # fmt: skip


def _tag(name: str, attributes: list[tuple[str, str]], content: str, closed: bool) -> str:
    held = "".join(f' {key}="{value.replace(chr(34), "&quot;")}"' for key, value in attributes)
    return f"<{name}{held}>{content}" + (f"</{name}>" if closed else "")


fragments = st.recursive(
    st.one_of(
        words,
        scripts.map(lambda text: f"<script>{text}</script>"),
        scripts.map(lambda text: f'<script type="application/ld+json">{text}</script>'),
        st.sampled_from(("<!--", "-->", "<", "&#xD83D;", "<![CDATA[", "]]>", "<a href=", "\x00")),
    ),
    lambda inner: st.builds(
        _tag, tags, st.lists(st.tuples(names, values), max_size=4),
        st.lists(inner, max_size=4).map("".join), st.booleans(),
    ),
    max_leaves=15,
)  # fmt: skip
pages = st.lists(fragments, max_size=6).map("".join)
types = st.sampled_from(("", "text/html", "text/html; charset=utf-16", "text/html; charset=x\x00"))


def page(body: bytes, kind: str = "text/html", url: str = URL) -> Page:
    return Page(PageRequest(url), body, url, {"content-type": kind})


def check(result: Any) -> list[str]:
    rows = list(result.images)
    for row in rows:
        json.dumps(row.to_json(), ensure_ascii=False).encode()
        assert row.url.isascii()
    for one in result.follow:
        json.dumps(dict(one.context), ensure_ascii=False).encode()
        assert one.url.startswith("http")
    return [row.url for row in rows]


@given(pages, types)
def test_a_page_is_read(html: str, kind: str) -> None:
    check(parse(SOURCE, page(html.encode("utf-8", "replace"), kind)))


@given(st.binary(max_size=200), types)
def test_bytes_are_read(body: bytes, kind: str) -> None:
    check(parse(SOURCE, page(b"<html>" + body, kind)))


@given(pages)
def test_a_good_neighbour_before_still_arrives(html: str) -> None:
    found = check(parse(SOURCE, page((NEIGHBOUR + html).encode("utf-8", "replace"))))
    hosts = [one for one in found if one.endswith("/good/neighbour.jpg")]
    assert hosts or "<base" in html.lower()


@given(st.lists(urls, max_size=8))
def test_good_links_among_bad_ones_arrive(bad: list[str]) -> None:
    links = "".join(_tag("a", [("href", url)], "x", True) for url in bad)
    good = "".join(f'<a href="/p{n}.html"><img src="/p{n}.jpg"></a>' for n in range(5))
    result = parse(SOURCE, page((links + good + links).encode("utf-8", "replace")))
    found = check(result)
    assert {f"http://shells.example/p{n}.jpg" for n in range(5)} <= set(found)
    assert {f"http://shells.example/p{n}.html" for n in range(5)} <= {
        one.url for one in result.follow
    }


@given(st.text(max_size=200) | scripts)
def test_any_text_is_read_as_literals(text: str) -> None:
    read_literals(text)


@given(st.lists(pages, min_size=1, max_size=4))
def test_a_proposal_is_a_recipe(site: list[str]) -> None:
    def get(url: str) -> Page | None:
        number = sum(map(ord, url)) % (len(site) + 1)
        if number == len(site):
            return None
        return page(b"<html>" + site[number].encode("utf-8", "replace"), url=url)

    text = propose(page(b"<html>" + site[0].encode("utf-8", "replace")), get).to_toml()
    values = tomllib.loads(text)
    values.pop("title", None)
    parse_config(Recipe, values, "proposal")
