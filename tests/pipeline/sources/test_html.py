"""What the HTML adapter takes from pages as they are met in the wild."""

from typing import Any

import pytest

from pipeline.config_io import parse_config
from pipeline.errors import UserError
from pipeline.sources import FoundImage, Page, PageRequest, PageResult
from pipeline.sources.html import parse, start
from pipeline.sources.html_options import HtmlSource

URL = "http://shells.example/gallery/index.html"


def config(**values: Any) -> HtmlSource:
    return parse_config(HtmlSource, {"start": [URL], **values}, "test")


def parsed(html: str | bytes, headers: dict[str, str] | None = None, **values: Any) -> PageResult:
    body = html if isinstance(html, bytes) else html.encode()
    context = values.pop("context", {})
    page = Page(PageRequest(URL, 1, context), body, URL, headers or {})
    return parse(config(**values), page)


def found(html: str | bytes, **values: Any) -> list[FoundImage]:
    return list(parsed(html, **values).images)


def urls(html: str, **values: Any) -> list[str]:
    return [one.url.removeprefix("http://shells.example/gallery/") for one in found(html, **values)]


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        # the link around a thumbnail
        ('<a href="full/a.jpg"><img src="thumb/a.jpg"></a>', "full/a.jpg"),
        ('<a href="a.html"><img src="thumb/a.jpg"></a>', "thumb/a.jpg"),
        ('<a href="/wiki/File:A.jpg"><img src="thumb/a.jpg"></a>', "thumb/a.jpg"),
        ('<a href="a.JPEG"><picture><img src="t.jpg"></picture></a>', "a.JPEG"),
        ('<a href="a.jpg" data-big="orig/a.jpg"><img src="t.jpg"></a>', "orig/a.jpg"),
        ('<a href="a.jpg"><img src="t.jpg" data-zoom-image="z.jpg"></a>', "z.jpg"),
        # srcset
        ('<img src="a.jpg" srcset="s.jpg 320w, l.jpg 1280w, m.jpg 640w">', "l.jpg"),
        ('<img src="a.jpg" srcset="b.jpg 1.5x, c.jpg 3x">', "c.jpg"),
        ('<img src="a.jpg" srcset="w_5,h_3/a.jpg 5w, w_90,h_80/a.jpg 90w">', "w_90,h_80/a.jpg"),
        ('<img src="a.jpg" width="2000" srcset="b.jpg 320w">', "a.jpg"),
        # lazy loading
        ('<img src="data:image/gif;base64,R0lG" data-src="a.jpg">', "a.jpg"),
        ('<img src="blur.jpg" data-srcset="s.jpg 320w, l.jpg 640w">', "l.jpg"),
        ('<img src="tiny.jpg" data-src="a.jpg" width="640">', "a.jpg"),
        ('<img data-original="a.jpg">', "a.jpg"),
        # picture
        (
            '<picture><source type="image/avif" srcset="a.avif 900w">'
            '<source type="image/jpeg" srcset="a.jpg 900w"><img src="s.jpg"></picture>',
            "a.jpg",
        ),
        (
            '<picture><source srcset="s.jpg 300w, l.webp 1200w"><img src="s.jpg"></picture>',
            "l.webp",
        ),
        # URLs that are not written as they should be
        ('<img src="photos/1 (6).jpg">', "photos/1%20%286%29.jpg"),
        ('<img src="a.jpg?utm_source=x&amp;v=2#top">', "a.jpg?v=2"),
        ("<img src='a.jpg\n'>", "a.jpg"),
    ],
)
def test_the_largest_candidate_wins(html: str, expected: str) -> None:
    assert urls(html) == [expected]


@pytest.mark.parametrize(
    ("html", "reason"),
    [
        ("<!-- <img src='a.jpg'> --><p>text</p>", "nothing_selected"),
        ('<img src="data:image/png;base64,iVBORw0KGgo=">', "data_uri"),
        ('<img src="{{ image.url }}">', "template"),
        ('<img src="${image}">', "template"),
        ('<img src="%7B%7Bimage%7D%7D">', "template"),
        ('<img data-src="/files/a_{width}x.jpg" src="data:,">', "template"),
        ('<img srcset="{{small}} 1x, {{large}} 2x">', "template"),
        ('<img src="<%= image %>">', "template"),
        ('<img src="/static/placeholder.png">', "placeholder"),
        ('<img src="/static/spacer.gif">', "placeholder"),
        ('<img src="/w_49,h_65,blur_2/a.jpg">', "placeholder"),
        ('<img src="/pixel.gif?x=1" width="1" height="1">', "no_candidate"),
        ('<img src="http://">', "not_http"),
        ('<img src="file:///etc/passwd.jpg">', "not_http"),
        ("<img>", "no_candidate"),
        ('<div style="background-image: url(a.jpg)">x</div>', "nothing_selected"),
    ],
)
def test_nothing_is_taken_and_the_reason_is_told(html: str, reason: str) -> None:
    result = parsed(html)
    assert list(result.images) == []
    assert set(result.skipped) == {reason} or (reason == "template" and reason in result.skipped)


def test_ordinary_names_are_no_placeholders() -> None:
    names = ["gray_whelk.jpg", "transparent-shell.png", "loading_dock.jpg", "pixelated.jpg"]
    html = "".join(f'<img src="{name}">' for name in names)
    assert urls(html) == names


def test_selector_chooses_links_metas_and_containers() -> None:
    assert urls('<a class=o href="download?id=7">o</a>', image="a.o") == ["download?id=7"]
    assert urls('<a class=o href="page.html">o</a>', image="a.o") == []
    meta = '<meta property="og:image" content="/og.jpg"><meta property="og:image:width" content=9>'
    assert urls(meta, image="[property='og:image']") == ["http://shells.example/og.jpg"]
    figure = '<figure><a href="full.jpg"><img src="t.jpg"></a></figure>'
    assert urls(figure, image="figure") == ["full.jpg"]
    assert urls('<a class=x data-large="b.jpg">x</a>', image="a.x") == ["b.jpg"]
    assert urls('<a class=x data-mine="b.jpg">x</a>', image="a.x", full_size=["data-mine"]) == [
        "b.jpg"
    ]


def test_one_per_page_lets_all_compete() -> None:
    html = (
        '<meta property="og:image" content="og.jpg"><meta property="og:image:width" content="1200">'
        '<img src="shown.jpg" width="800"><img src="logo.jpg" width="80">'
    )
    selector = "img, [property='og:image']"
    assert urls(html, image=selector, one_per_page=True) == ["og.jpg"]
    assert urls(html, image=selector) == ["og.jpg", "shown.jpg", "logo.jpg"]


def test_json_ld() -> None:
    html = """<script type="application/ld+json">
    {"@graph": [{"@type": "ImageObject", "contentUrl": "one.jpg", "url": "page.html"},
                {"@type": ["Thing", "ImageObject"], "url": "two.jpg"},
                {"@type": "Article", "image": ["16x9.jpg", "4x3.jpg"],
                 "author": {"@type": "Person", "image": "face.jpg"}}]}</script>"""
    selector = "script[type='application/ld+json']"
    assert urls(html, image=selector) == ["one.jpg", "two.jpg", "16x9.jpg", "face.jpg"]
    broken = parsed("<script type='application/ld+json'>{oops</script>", image=selector)
    assert (list(broken.images), dict(broken.skipped)) == ([], {"bad_json_ld": 1})


@pytest.mark.parametrize(
    ("escaped", "name"),
    [
        (r"\u00fcber.jpg", "%C3%BCber.jpg"),
        (r"\u00e901.jpg", "%C3%A901.jpg"),
        (r"\u{fc}1.jpg", "%C3%BC1.jpg"),
        (r"\x611.jpg", "a1.jpg"),
        (r"\ud83d\udc1a.jpg", "%F0%9F%90%9A.jpg"),
        (r"\ud83d.jpg", "%EF%BF%BD.jpg"),
    ],
)
def test_escapes_in_scripts_and_attributes(escaped: str, name: str) -> None:
    data = f'[{{"src": "{escaped}"}}]'
    assert urls(f"<script>var photos = {data}</script>", image="script") == [name]
    assert urls(f"<div data-gallery='{data}'></div>", image="div") == [name]


def test_the_same_image_is_taken_once() -> None:
    html = '<img src="a.jpg"><noscript><img src="a.jpg"></noscript><img src="./a.jpg#x">'
    assert urls(html) == ["a.jpg"]


def test_include_and_exclude() -> None:
    html = '<img src="a/1.jpg"><img src="a/logo.png"><img src="b/2.jpg">'
    assert urls(html, exclude=["logo", "/b/"]) == ["a/1.jpg"]
    assert urls(html, include=["/b/", "logo"]) == ["a/logo.png", "b/2.jpg"]
    assert parsed(html, include=["nothing"]).skipped == {"excluded": 3}


def test_base_href() -> None:
    html = (
        '<base href="/elsewhere/"><base href="/no/"><img src="a.jpg"><a class=f href="p.html">p</a>'
    )
    result = parsed(html, follow=["a.f"])
    assert [one.url for one in result.images] == ["http://shells.example/elsewhere/a.jpg"]
    assert [one.url for one in result.follow] == ["http://shells.example/elsewhere/p.html"]


def test_texts_are_picked_from_item_page_url_or_given() -> None:
    html = """<h1>Cone  shells</h1><div class=tags><i>rare</i> <i>spotted</i></div>
    <figure><a href="a.jpg"><img src="t.jpg" alt="from alt"></a>
      <figcaption>Conus <b>gloria</b></figcaption><span class=by data-name="A. Author">by</span>
    </figure><figure><a href="b.jpg"><img src="u.jpg" alt="from alt"></a></figure>"""
    one, two = found(
        html,
        item="figure",
        image="a",
        title="figcaption",
        labels=[
            {"page": "h1"},
            {"item": ".by", "attribute": "data-name"},
            {"of": "page_url", "match": r"/(\w+)/[^/]*$"},
            {"page": ".tags i", "all": True},
        ],
        license={"value": "CC0-1.0"},
        attribution={"item": ".by", "attribute": "data-name"},
    )
    assert one == FoundImage(
        "http://shells.example/gallery/a.jpg",
        "Conus gloria",
        ("Cone shells", "A. Author", "gallery", "rare", "spotted"),
        "CC0-1.0",
        "A. Author",
    )
    # A label that is missing keeps its place, so that the others keep theirs.
    assert two.labels == ("Cone shells", "", "gallery", "rare", "spotted")
    assert (two.title, two.attribution) == ("", "")


def test_titles_and_licences_that_pages_give_by_themselves() -> None:
    html = (
        '<link rel="license" href="https://cc.example/by"><figure><img src="a.jpg" alt="alt">'
        '<figcaption>caption</figcaption></figure><img src="b.jpg" alt="alt">'
        '<p><img src="c.jpg" title="title"></p>'
    )
    rows = found(html)
    assert [one.title for one in rows] == ["caption", "alt", "title"]
    assert {one.license for one in rows} == {"https://cc.example/by"}


def test_links_are_followed_with_what_they_know() -> None:
    html = """<div class=card><a class=album href="cones.html">open</a><b>Cones</b></div>
      <a class=album href="#top">top</a><a class=album href="mailto:a@b.example">mail</a>
      <a class=album href="http://other.example/">away</a><a class=album href="index.html">self</a>
      <a class=album href="{{ url }}">template</a><a class=album href="cones.html#2">again</a>
      <a class=album href="login.html">no</a><a rel=next href="?page=2">next</a>"""
    follow = [{"select": "a.album", "item": ".card", "labels": ["b"], "title": "b"}]
    result = parsed(
        html,
        follow=follow,
        next="a[rel=next]",
        follow_exclude=["login"],
        context={"labels": ["Mollusca"]},
    )
    assert list(result.follow) == [
        PageRequest(
            "http://shells.example/gallery/cones.html",
            2,
            {"labels": ["Mollusca", "Cones"], "title": "Cones"},
        ),
        PageRequest("http://shells.example/gallery/index.html?page=2", 1, {"labels": ["Mollusca"]}),
    ]
    assert (result.skipped["offsite"], result.skipped["template"]) == (1, 1)
    assert len(parsed(html, follow=["a.album"], offsite=True).follow) == 3


@pytest.mark.parametrize("start", ["https://shells.example/", "https://www.shells.example/"])
def test_a_host_with_and_without_www_is_one_site(start: str) -> None:
    html = "".join(f'<a href="https://{host}shells.example/p">p</a>' for host in ("", "www.", "m."))
    result = parsed(html, start=[start], follow=["a"])
    assert [request.url for request in result.follow] == [
        "https://shells.example/p", "https://www.shells.example/p",
    ]  # fmt: skip
    assert result.skipped["offsite"] == 1


def test_a_link_that_gives_an_image_is_no_page() -> None:
    html = '<a href="m/a.jpg" data-big="a.jpg"><img src="t.jpg"></a><a href="p.html">p</a>'
    html += '<a href="b.jpg"><img src="u.jpg"></a>'
    result = parsed(html, follow=["a"], image="a:has(img)")
    assert [one.url.rpartition("/")[2] for one in result.images] == ["a.jpg", "b.jpg"]
    assert [one.url.rpartition("/")[2] for one in result.follow] == ["p.html"]
    # A page may be named as an image file is.
    assert len(parsed(html, follow=["a"], image=".none").follow) == 3


def test_what_links_know_reaches_the_images_behind_them() -> None:
    context = {"labels": ["Mollusca", "Cones"], "title": "Conus"}
    (one,) = found('<img src="a.jpg">', labels=[{"value": "x"}], context=context)
    assert (one.title, one.labels) == ("Conus", ("Mollusca", "Cones", "x"))


def test_charsets() -> None:
    text = '<img src="a.jpg" alt="Müschel">'
    assert found(text.encode("latin-1"), headers={"content-type": "text/html; charset=latin-1"})[
        0
    ].title == ("Müschel")
    assert found(f"<meta charset=iso-8859-1>{text}".encode("latin-1"))[0].title == "Müschel"
    xhtml = f'<?xml version="1.0" encoding="utf-8"?>\n<html xmlns="x">{text}</html>'
    assert found(xhtml)[0].title == "Müschel"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"%PDF-1.7", {"content-type": "application/pdf"}),
        (b"<html>", {"content-type": "image/jpeg"}),
        (b'{"a": 1}', {}),
        (b"", {}),
    ],
)
def test_what_is_not_html_is_a_problem(body: bytes, headers: dict[str, str]) -> None:
    result = parsed(body, headers=headers)
    assert result.error
    assert not result.images


def test_terms_of_the_page_are_reported() -> None:
    text = (
        '<meta name="Robots" content="noindex, noai"><meta name=tdm-reservation content=1>'
        '<link rel="License" type="application/rsl+xml" href="/license.xml"><img src=a.jpg>'
    )
    terms = parsed(text).terms
    assert terms.metas == (("robots", "noindex, noai"), ("tdm-reservation", "1"))
    assert terms.links == (("License", "application/rsl+xml", "/license.xml"),)


def test_start_pages_are_canonical() -> None:
    assert start(config(start=["HTTP://shells.example"])) == [PageRequest("http://shells.example/")]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"start": []}, "start"),
        ({"start": ["shells.example"]}, "not an http(s) URL"),
        ({"image": "a["}, "image: not a CSS selector"),
        ({"exclude": ["("]}, "exclude.0: not a regular expression"),
        ({"title": {"page": "h1", "item": "h2"}}, "exactly one of"),
        ({"selector": "a"}, "selector: unknown key"),
    ],
)
def test_a_mistake_in_the_recipe_is_one_line(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as error:
        config(**values)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
