"""Each kind of source on generated input: bad entries are counted, good ones arrive."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.config_io import parse_config
from pipeline.contract import ManifestRow
from pipeline.sources import SOURCES, CorruptFile, FoundImage, Page, PageRequest, PageResult
from pipeline.sources.interface import Notes

GOOD = "http://good.example/good.jpg"
START = "http://a.example/x"

text = st.text(st.characters(exclude_categories=()), max_size=40)
addresses = st.one_of(
    text, st.sampled_from([
        GOOD, "http://[bad", "//", "http://a..example/", "/x?\ud83d", "http://a\x00b/", "data:,x",
        "", "http://u:p@[::1]:99999/", "javascript:x", "{{x}}",
        "http://a.example/" + "a" * 3000,
    ]),
)  # fmt: skip
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), addresses, st.just(10**400),
    st.sampled_from(["Manifest", "Collection", "Canvas", "Image", "Choice", "level0", "²"]),
)  # fmt: skip
NAMES = st.sampled_from([
    "url", "title", "labels", "items", "image", "id", "@id", "type", "@type", "body", "service",
    "sizes", "width", "height", "sequences", "canvases", "images", "resource", "metadata", "label",
    "value", "rights", "requiredStatement", "profile", "next", "first", "members", "motivation",
    "cursor", "error", "media",
])  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | text, inner, max_size=5),
    max_leaves=25,
)


def source_of(kind: str, **settings: Any) -> Any:
    settings = {"start": [START], **settings}
    return parse_config(SOURCES[kind].config, settings, "test")  # type: ignore[type-var]


def results_of(
    kind: str, body: bytes, context: dict[str, Any], **settings: Any
) -> list[FoundImage]:
    """The images of one page; whatever it gives can be written, and its adapter has no errors."""
    page = Page(PageRequest(START, 0, context), body, START, {"link": "<" * 50})
    try:
        result: PageResult = SOURCES[kind].parse(source_of(kind, **settings), page)
        rows = list(result.images)
    except CorruptFile:
        return []
    for found in rows:
        row = found.row(START, "2026-01-01T00:00:00Z")
        line = json.dumps(row.to_json(), ensure_ascii=False).encode()
        assert ManifestRow.from_json(json.loads(line)) == row
    for request in result.follow:
        assert request.url.isascii()
        json.dumps(dict(request.context)).encode()
    if isinstance(result.skipped, Notes):
        assert not result.skipped.bug, result.skipped.bug
        "".join(result.skipped.examples.values()).encode()
    return rows


def urls_of(rows: list[FoundImage]) -> set[str]:
    return {row.url for row in rows}


JSON_SOURCE = {
    "items": "items", "media": "media", "image": "media.url", "title": "item.title",
    "labels": ["item.labels", "media.label"], "license": "join(',', item.rights)",
    "follow": [{"values": "items[].id", "url": "/x/{}", "label": "(.)(.)?"}],
    "next": {"by": "cursor", "value": "cursor", "parameter": "c"},
}  # fmt: skip
PAGINGS: list[dict[str, Any]] = [
    {"by": "cursor", "value": "cursor", "parameter": "c"},
    {"by": "url", "value": "next"},
    {"by": "parameters", "value": "next"},
    {"by": "link"},
    {"by": "page", "parameter": "p", "last": "first", "total": "value", "step": 3},
    {"by": "offset", "parameter": "o", "step": 5, "total": "width"},
]


@given(items=st.lists(values, max_size=5), more=st.dictionaries(NAMES, values, max_size=4),
       paging=st.sampled_from(PAGINGS))  # fmt: skip
def test_json(items: list[Any], more: dict[str, Any], paging: dict[str, Any]) -> None:
    good = {"media": [{"url": GOOD}], "rights": ["CC0"]}
    body = json.dumps({**more, "items": [*items, good]}).encode()
    settings = {**JSON_SOURCE, "next": paging}
    assert GOOD in urls_of(results_of("json", body, {}, **settings))


@given(st.binary(max_size=300) | values.map(lambda value: json.dumps(value).encode()))
def test_json_and_iiif_of_anything(body: bytes) -> None:
    for extra in ({}, {"items": "@"}, {"items": "items", "image": "media"}):
        results_of("json", body, {}, **extra)
    for settings in ({}, {"max_side": 100, "labels": ["a"]}):
        results_of("iiif", body, {}, **settings)


CANVAS = {
    "type": "Canvas",
    "items": [{"items": [{"motivation": "painting", "body": {"type": "Image", "id": GOOD}}]}],
}


@given(canvases=st.lists(values, max_size=4), more=st.dictionaries(NAMES, values, max_size=5))
def test_iiif(canvases: list[Any], more: dict[str, Any]) -> None:
    manifest = {**more, "type": "Manifest", "items": [*canvases, CANVAS]}
    body = json.dumps(manifest).encode()
    assert GOOD in urls_of(results_of("iiif", body, {}, max_side=100, labels=["label"]))


@given(data=st.data(), parts=st.lists(values, min_size=1, max_size=4))
def test_iiif_with_one_part_replaced(data: st.DataObject, parts: list[Any]) -> None:
    """A good manifest in which any member is something else."""
    service = {"@id": "http://s.example/1", "profile": "http://iiif.io/api/image/2/level0.json",
               "sizes": [{"width": 10, "height": 20}], "width": 100, "height": 200}  # fmt: skip
    manifest: dict[str, Any] = {
        "@type": "sc:Manifest", "label": [{"@value": "x", "@language": "en"}],
        "metadata": [{"label": "a", "value": "b"}], "attribution": "me", "license": "x",
        "sequences": [{"canvases": [{"label": "c", "images": [
            {"resource": {"@type": "dctypes:Image", "@id": GOOD, "service": service}}]}]}],
    }  # fmt: skip
    for part in parts:
        node: Any = manifest
        while True:
            keys = list(node) if isinstance(node, dict) else range(len(node))
            if not keys:
                break
            key = data.draw(st.sampled_from(list(keys)))
            if not isinstance(node[key], dict | list) or data.draw(st.booleans()):
                node[key] = part
                break
            node = node[key]
    results_of("iiif", json.dumps(manifest).encode(), {}, max_side=64, labels=["a"])


# lists

CELL = st.one_of(
    scalars, st.lists(scalars, max_size=3), st.dictionaries(NAMES, scalars, max_size=2)
)
RECORDS = st.lists(
    st.dictionaries(
        st.sampled_from(["url", "title", "labels", "license", "attribution"]) | text, CELL
    ) | values,
    max_size=6,
)  # fmt: skip


@given(RECORDS, st.booleans())
def test_jsonl(records: list[Any], zipped: bool) -> None:
    lines = [json.dumps(record).encode() for record in records]
    middle = len(lines) // 2
    lines[middle:middle] = [json.dumps({"url": GOOD}).encode()]
    body = b"\n".join(lines)
    body = gzip.compress(body) if zipped else body
    assert GOOD in urls_of(results_of("list", body, {}, format="jsonl"))


@given(st.binary(max_size=400), st.sampled_from(["txt", "csv", "tsv", "jsonl", "parquet"]),
       st.booleans())  # fmt: skip
@example(b"\xfe\xff", "txt", False)
def test_lists_of_anything(body: bytes, kind: str, zipped: bool) -> None:
    results_of("list", gzip.compress(body) if zipped else body, {}, format=kind)
    if zipped:
        results_of("list", gzip.compress(body)[:-5] + body[:3], {}, format=kind)


@given(st.lists(st.text(st.characters(exclude_characters='"\n\r', exclude_categories=("Cs",))),
                max_size=5))  # fmt: skip
def test_csv_and_text(lines: list[str]) -> None:
    body = "\n".join(["url,title", *lines, GOOD, *lines]).encode()
    assert GOOD in urls_of(results_of("list", body, {}, format="csv"))
    assert GOOD in urls_of(results_of("list", body, {}, format="txt"))


# XML


def element(name: str, content: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return content.map(lambda inner: f"<{name}>{inner}</{name}>")


ATTRIBUTE = st.sampled_from(["url", "href", "type", "width", "rel", "medium", "term"])
VALUE = st.sampled_from(
    ['"image/png"', '"²"', '"http://[bad"', '"&x;"', '"next"', '"x.jpg"', '""', "x"]
)
TAG = st.sampled_from([
    "media:content", "media:group", "enclosure", "link", "title", "category", "description", "loc",
    "image:image", "image:loc", "media:thumbnail", "author", "b", "license",
])  # fmt: skip
SNIPPET = st.recursive(
    st.sampled_from(["", "x", "&lt;img src=http://[bad&gt;", "<!-- c -->", "<?p?>", "&y;", "<",
                     "]]>", "<![CDATA[<img src='/a.jpg' srcset='x 1w, , y 9e99w'>]]>", "\x0b"]),
    lambda inner: st.builds(
        lambda tag, name, value, parts: f"<{tag} {name}={value}>{''.join(parts)}</{tag}>",
        TAG, ATTRIBUTE, VALUE, st.lists(inner, max_size=3),
    ),
    max_leaves=8,
)  # fmt: skip
SPACES = (
    'xmlns:media="http://search.yahoo.com/mrss/" '
    'xmlns:image="http://www.google.com/schemas/sitemap-image/1.1"'
)


@given(st.lists(SNIPPET, max_size=4), st.sampled_from(["feed", "pages"]))
def test_feed(entries: list[str], take: str) -> None:
    good = (
        f"<item><link>http://a.example/g</link><enclosure url='{GOOD}' type='image/jpeg'/></item>"
    )
    items = "".join(f"<item>{one}</item>" for one in entries)
    body = f"<rss {SPACES}><channel>{good}{items}</channel></rss>".encode()
    rows = results_of("feed", body, {"role": "feed"}, take=take)
    assert take == "pages" or GOOD in urls_of(rows)


@given(st.lists(SNIPPET, max_size=4), st.sampled_from(["sitemap", "pages"]))
def test_sitemap(entries: list[str], take: str) -> None:
    good = f"<url><image:image><image:loc>{GOOD}</image:loc></image:image></url>"
    body = f"<urlset {SPACES}>{good}{''.join(f'<url>{one}</url>' for one in entries)}</urlset>"
    rows = results_of("sitemap", body.encode(), {"role": "sitemap"}, take=take)
    assert take == "pages" or GOOD in urls_of(rows)
    index = (
        f"<sitemapindex>{''.join(f'<sitemap>{one}</sitemap>' for one in entries)}</sitemapindex>"
    )
    results_of("sitemap", index.encode(), {"role": "sitemap"})


def _same(body: bytes) -> bytes:
    return body


@given(st.binary(max_size=300) | SNIPPET.map(str.encode), st.sampled_from([_same, gzip.compress]))
def test_feeds_and_sitemaps_of_anything(body: bytes, pack: Callable[[bytes], bytes]) -> None:
    for kind in ("feed", "sitemap"):
        results_of(kind, pack(body), {"role": kind})
        results_of(kind, pack(b"<rss><channel>" + body), {"role": kind})
        results_of(kind, pack(b"<urlset>" + body)[:-3], {"role": kind})
