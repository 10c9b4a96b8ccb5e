"""Where pages keep full-size images besides `src` and `href`, and pages that cannot be trusted."""

import time
from typing import Any

import pytest

from pipeline.config_io import parse_config
from pipeline.errors import UserError
from pipeline.sources import Page, PageRequest, PageResult
from pipeline.sources.html import parse
from pipeline.sources.html_options import HtmlSource
from pipeline.sources.soup import MAX_DEPTH, MAX_TAGS, make_soup

URL = "http://shells.example/gallery/index.html"
BASE = URL.rpartition("/")[0] + "/"


def parsed(html: str | bytes, content_type: str = "text/html", **values: Any) -> PageResult:
    body = html if isinstance(html, bytes) else html.encode()
    source = parse_config(HtmlSource, {"start": [URL], **values}, "test")
    return parse(source, Page(PageRequest(URL, 1), body, URL, {"content-type": content_type}))


def urls(html: str, image: Any, **values: Any) -> list[str]:
    rows = parsed(html, image=image, **values).images
    return [one.url.removeprefix(BASE) for one in rows]


SETTINGS = f'{{"itemsBaseURL": "{BASE}"}}'
THUMB = '<img src="t/a.jpg">'


@pytest.mark.parametrize(
    ("html", "image"),
    [
        # lightGallery, Fancybox: on the link, or on an item around the thumbnail
        (f'<a data-src="a.jpg" href="m/a.jpg">{THUMB}</a>', "a"),
        (f'<a data-fancybox data-src="a.jpg" href="javascript:;">{THUMB}</a>', "a"),
        (f'<a data-src="a.jpg" href="page.html">{THUMB}</a>', "img"),
        (f'<li data-src="a.jpg" data-responsive="s/a.jpg 375">{THUMB}</li>', "li"),
        (f'<div class=i data-src="a.jpg"><a href="#">{THUMB}</a></div>', ".i"),
        # … where data-src inside a link to the image is the thumbnail, loaded late
        ('<a href="a.jpg"><div class=lazy data-src="t/a.jpg"></div></a>', "a"),
        # nanogallery2
        ('<a href="a.jpg" data-ngthumb="t/a.jpg">title</a>', "a"),
        ('<a href="" data-ngsrc="a.jpg" data-ngthumb="t/a.jpg">title</a>', "a"),
        ('<a href="m/a.jpg" data-ngsrc="a.jpg">title</a>', "a"),
        (f"<div data-nanogallery2='{SETTINGS}'><a href=\"a.jpg\">x</a></div>", "a"),
        # Flickity, backgrounds
        ('<img data-flickity-lazyload="a.jpg" src="t.gif">', "img"),
        ('<img data-flickity-lazyload-srcset="s/a.jpg 300w, a.jpg 900w">', "img"),
        ('<div class=c data-bg="a.jpg"></div>', ".c"),
        ('<div class=c data-bg="url(\'a.jpg\')"></div>', ".c"),
        ('<div class=c data-background="a.jpg"></div>', ".c"),
        ('<div class=c data-background-image="a.jpg"></div>', ".c"),
        ('<div class=c style="background-image: url(a.jpg)">x</div>', ".c"),
        ("<div class=c style='color:red;background: #fff url(\"a.jpg\") no-repeat'></div>", ".c"),
        ('<p class=c style="background:linear-gradient(#0),url(&quot;a.jpg&quot;)">', ".c"),
        # attributes of shops, plugins and lightboxes
        ('<div data-thumb="t/a.jpg"><img src="m/a.jpg" data-large_image="a.jpg"></div>', "img"),
        ('<img src="m/a.jpg" data-orig-file="a.jpg" data-large-file="l/a.jpg">', "img"),
        (f'<a href="m/a.jpg" data-pswp-src="a.jpg">{THUMB}</a>', "a"),
        ('<img src="m/a.jpg" data-zoom-src="a.jpg">', "img"),
        ('<img src="m/a.jpg" data-high-res="a.jpg">', "img"),
        ('<img src="m/a.jpg" data-full-url="a.jpg">', "img"),
        ('<img src="t/a.jpg" data-image="a.jpg">', "img"),
        ('<img src="x.gif" data-lazy-src="a.jpg">', "img"),
        # fallbacks for readers without scripts
        ('<img class=l src="t/a.jpg"><noscript><img src="a.jpg"></noscript>', "img.l"),
        ('<img src="t/a.jpg"> <noscript><img src="a.jpg"></noscript>', "img"),
        ('<figure><img src="data:,"><noscript><img src="a.jpg"></noscript></figure>', "figure"),
        # blurred previews
        ('<img src="w_9%2Ch_9%2Cblur_2/a.jpg"><img src="a.jpg">', "img"),
        ('<img src="w_9,e_blur:900,q_1/a.jpg" data-src="a.jpg">', "img"),
        ('<img src="t%2cblur_3%2cx/a.jpg"><noscript><img src="a.jpg"></noscript>', "img"),
    ],
)  # fmt: skip
def test_the_full_size_is_taken_and_nothing_else(html: str, image: str) -> None:
    assert urls(html, image) == ["a.jpg"]


@pytest.mark.parametrize(
    "script",
    [
        '[{"@type": "ImageObject", "contentUrl": "a.jpg", "thumbnailUrl": "t/a.jpg"},'
        ' {"@type": "ImageObject", "contentUrl": "b.jpg"}]',
        '{"@graph": [{"@type": "ImageGallery", "associatedMedia":'
        ' [{"@type": "ImageObject", "contentUrl": "a.jpg"}, {"@type": "ImageObject", "url":'
        ' "b.jpg", "thumbnail": {"@type": "ImageObject", "url": "t/b.jpg"}}]}]}',
        '{"@type": "ImageGallery", "image": ["a.jpg", "b.jpg"]}',
        '{"@type": "Product", "image": ["a.jpg", "b.jpg"]}',
        '{"@type": "http://schema.org/ImageObject", "contentUrl": ["a.jpg", "b.jpg"]}',
        '{"@type": "Organization", "logo": {"@type": "ImageObject", "url": "logo.png"}, "photo":'
        ' ["a.jpg", "b.jpg"],}  // a comma too many',
    ],
)
def test_json_ld_arrays_hold_one_image_each(script: str) -> None:
    html = f'<script type="application/ld+json">{script}</script>'
    assert urls(html, "script[type*=ld]") == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize(
    "script",
    [
        # nanogallery2, PhotoSwipe 4, Galleria, lightGallery, and plain lists
        '$("#g").nanogallery2({items: [{src: "a.jpg", srct: "t/a.jpg", title: "it\\\'s"},'
        " {src: 'b.jpg', srct: 't/b.jpg'}, {src: 'c.jpg', kind: 'album', ID: 3}]});",
        f"$('#g').nanogallery2({{itemsBaseURL: '{BASE}', items: [{{src: 'a.jpg'}},"
        "{src: 'b.jpg', srcT: 't/b.jpg'}]})",
        "var items = [{src: 'a.jpg', w: 9, h: 9, msrc: 't/a.jpg'}, {src: 'b.jpg', w: 9, h: 9}];",
        "var items = [{mediumImage: {src: 'm/a.jpg', w: 3}, originalImage: {src: 'a.jpg', w: 9}},"
        "{mediumImage: {src: 'm/b.jpg', w: 3}, originalImage: {src: 'b.jpg', w: 9}}]",
        'var data = [{thumb: "t/a.jpg", image: "m/a.jpg", big: "a.jpg", title: ""},\n'
        '{thumb: "t/b.jpg", image: "b.jpg"},]',
        "var data = [{image: 'a.jpg'}, {image: 'b.jpg'}]\nGalleria.ready(function() {run(50)})",
        "window.images = ['a.jpg', // first\n 'b.jpg'];",
        '{"props": {"photos": {"x1": {"url": "a.jpg"}, "x2": {"url": "b.jpg"}}}}',
        'self.x = {"list": [{"sizes": [{"src": "s/a.jpg", "width": 9}, {"src": "a.jpg", "width":'
        ' 90}]}, {"srcset": ["b.jpg"]}]}',
        "lightGallery(el, {dynamicEl: [{src: 'a.jpg', thumb: 't/a.jpg', responsive: 's/a.jpg 9'},"
        "{src: 'b.jpg', thumb: 't/b.jpg'}]}); /* {src: 'no.jpg'} */ fetch('c.jpg');"
        "theme({logo: 'logo.png', loadingIcon: 'wait.gif'})",
    ],
)
def test_data_in_scripts(script: str) -> None:
    assert urls(f"<script>{script}</script>", "script") == ["a.jpg", "b.jpg"]


def test_data_in_attributes() -> None:
    html = """<div data-nanogallery2='{"items": [{"src": "a.jpg", "srct": "t/a.jpg"}]}'></div>"""
    assert urls(html, "[data-nanogallery2]") == ["a.jpg"]
    html = '<div data-images=\'["a.jpg", "b.jpg"]\'></div>'
    assert urls(html, "[data-images]") == ["a.jpg", "b.jpg"]


def test_an_image_is_read_from_the_attribute_a_recipe_names() -> None:
    html = '<a href="m/a.jpg" data-mine="a.jpg"><img src="t/a.jpg"></a><a>none</a>'
    assert urls(html, {"select": "a", "attribute": "data-mine"}) == ["a.jpg"]
    assert urls('<i onclick="show(\'a.jpg\', 1)">x</i>', {
        "select": "i", "attribute": "onclick", "match": "'([^']+)'",
    }) == ["a.jpg"]  # fmt: skip
    for html, name in (
        ('<img srcset="s.jpg 1x, a.jpg 2x">', "srcset"),
        ('<p style="background: url(a.jpg)">', "style"),
    ):
        assert urls(html, {"select": "*", "attribute": name}) == ["a.jpg"]
    assert urls('<a href="download?id=7">x</a>', {"select": "a", "attribute": "href"}) == [
        "download?id=7"
    ]
    assert urls('<figure><a href="a.jpg">x</a></figure>', {"select": "a"}, item="figure") == [
        "a.jpg"
    ]


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ({"select": "a["}, "image.select: not a CSS selector"),
        ({"selector": "a"}, "image.selector: unknown key"),
        ({"select": "a", "match": "x"}, "needs an attribute"),
        (7, "image"),
    ],
)
def test_a_mistake_in_image_is_one_line(image: Any, words: str) -> None:
    with pytest.raises(UserError) as error:
        parse_config(HtmlSource, {"start": [URL], "image": image}, "test")
    assert words in str(error.value)


BAD_URLS = ("http://[bad", "//[::1/x", "http://[2001:db8::zz]/", "http://a b.example:port/")


def test_a_bad_url_costs_one_link() -> None:
    good = "".join(f'<a href="p{n}.html">{n}</a><img src="{n}.jpg">' for n in range(70))
    bad = "".join(
        f'<a href="{url}">x</a><a class=i href="{url}a.jpg">x</a><img src="{url}a.jpg">'
        f'<img srcset="{url}a.jpg 2x"><p style="background:url({url}a.jpg)">'
        for url in BAD_URLS
    )
    result = parsed(bad + good, follow=["a"], image="img, a.i, p")
    assert len(list(result.images)) == 70
    assert [one.url.removeprefix(BASE) for one in result.follow] == [
        f"p{n}.html" for n in range(70)
    ]
    assert result.skipped["bad_url"] >= 12
    assert parsed('<a href="mailto:a@b.example">x</a>', follow=["a"], image="b").skipped == {
        "nothing_selected": 1
    }


def test_a_bad_url_beside_a_good_one_is_counted() -> None:
    result = parsed('<a href="http://[bad/x.jpg"><img src="a.jpg"></a>')
    assert [one.url for one in result.images] == [BASE + "a.jpg"]
    assert result.skipped == {"bad_url": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        b"<div>" * 100_000,
        b"<figure>" * 20_000 + b"<a href=b.jpg>" * 20_000,
        b"<img " + b"".join(b'a%d="b" ' % n for n in range(75_000)) + b">",
        b'<img srcset="' + b"b.jpg 1w," * 100_000 + b'">',
        b'<p style="' + b"background:url(" * 62_500 + b'">',
        b"<script>" + b"/*{[" * 250_000 + b"</script>",
        b"<script>" + b'\\"' * 500_000 + b"</script>",
        b'<script type="application/ld+json">' + b"[" * 1_000_000 + b"</script>",
        b"<table>" + b"<tr><td><img src=b.jpg>" * 20_000,
        b'<img src="b\x00.jpg">\x00' * 20_000,
    ],
    ids=["divs", "deep links", "attributes", "srcset", "style", "comments", "quotes", "json",
         "table", "nul"],
)  # fmt: skip
def test_a_page_of_1_mb_takes_bounded_time_and_gives_what_came_before(body: bytes) -> None:
    began = time.process_time()
    result = parsed(b'<img src="a.jpg">' + body, image="img, script, a, p", follow=["nav a"])
    assert BASE + "a.jpg" in [one.url for one in result.images]
    assert time.process_time() - began < 30


@pytest.mark.slow
def test_large_and_deep_pages_are_cut_and_that_is_told() -> None:
    result = parsed("<p>" * MAX_TAGS + "<img src=a.jpg>", image="img, b")
    assert result.skipped == {"cut_after_too_many_tags": 1}
    deep = make_soup(Page(PageRequest(URL), b"<i>" * 5000 + b"<b>x</b><p>y</p>", URL))
    b = deep.find("b")
    assert b is not None
    assert MAX_DEPTH / 2 < len(list(b.parents)) <= MAX_DEPTH + 2


@pytest.mark.parametrize("charset", ["nonsense", "utf-16", "idna", "base64", "utf-7", ""])
@pytest.mark.parametrize(
    "body", [b'<img src="a.jpg">', b"\xff\xfe<img src=a.jpg>\xd8\x3d", b"<\x00"]
)
def test_charsets_that_are_wrong_do_no_harm(charset: str, body: bytes) -> None:
    parsed(body, f"text/html; charset={charset}")


def test_lone_surrogates_can_be_written() -> None:
    html = '<img src="a&#xD83D;.jpg" alt="&#xD83D; shell">'
    (row,) = parsed(html).images
    assert (row.url + row.title).encode()
    script = '<script>[{"src": "\\ud83d.jpg"}]</script>'
    (row,) = parsed(script, image="script").images
    assert row.url.encode()
