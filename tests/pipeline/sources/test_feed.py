import itertools
import time
from typing import Any

import pytest

from pipeline.config_io import parse_config
from pipeline.sources import FoundImage, Page, PageRequest, PageResult
from pipeline.sources.feed import FeedSource, parse, start

URL = "https://shells.example/feed.xml"
FEED = PageRequest(URL, 0, {"role": "feed"})

RSS = """<?xml version="1.0" encoding="UTF-8"?>
<rss version="2.0" xmlns:media="http://search.yahoo.com/mrss/" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:content="http://purl.org/rss/1.0/modules/content/" xmlns:atom="http://www.w3.org/2005/Atom"
 xmlns:creativeCommons="http://backend.userland.com/creativeCommonsRssModule">
<channel><title>Shells</title><link>https://shells.example/</link>
<atom:link rel="self" href="https://shells.example/feed.xml"/><atom:link rel="next" href="?page=2"/>
<creativeCommons:license>https://cc.example/by</creativeCommons:license>
<item><title>Cone</title><link>https://shells.example/cone</link><category>Conidae</category><category>rare</category>
  <media:group><media:content url="small.jpg" type="image/jpeg" width="320"/>
    <media:content url="large.jpg" type="image/jpeg" width="2000"/></media:group>
  <media:content url="film.mp4" type="video/mp4"/><media:credit>A. Author</media:credit>
  <media:thumbnail url="tiny.jpg"/></item>
<item><title>Cowrie</title><link>https://shells.example/cowrie</link>
  <dc:creator>B. Author</dc:creator>
  <enclosure url="cowrie.jpg" type="image/jpeg" length="1"/>
  <enclosure url="a.mp3" type="audio/mpeg"/></item>
<item><title>Whelk</title><link>https://shells.example/whelk</link>
  <content:encoded><![CDATA[<p><a href="whelk-full.jpg"><img src="whelk.jpg"></a>
  <img src="data:,"></p>]]></content:encoded></item>
<item><title>Words</title><link>https://shells.example/words</link><description>none</description></item>
</channel></rss>"""

ATOM = """<feed xmlns="http://www.w3.org/2005/Atom"><title>Shells</title>
<link rel="license" href="https://cc.example/0"/>
<entry><title type="html">Murex</title><link href="https://shells.example/murex"/>
  <link rel="enclosure" type="image/png" href="murex.png"/><category term="Muricidae"/>
  <author><name>C. Author</name></author></entry></feed>"""


def parsed(body: str, **values: Any) -> PageResult:
    config = parse_config(FeedSource, {"start": [URL], **values}, "test")
    return parse(config, Page(FEED, body.encode(), URL))


def test_rss() -> None:
    result = parsed(RSS)
    rights = "https://cc.example/by"
    assert list(result.images) == [
        FoundImage(
            "https://shells.example/large.jpg", "Cone", ("Conidae", "rare"), rights, "A. Author"
        ),
        FoundImage("https://shells.example/cowrie.jpg", "Cowrie", (), rights, "B. Author"),
        FoundImage("https://shells.example/whelk-full.jpg", "Whelk", (), rights),
    ]
    assert list(result.follow) == [
        PageRequest("https://shells.example/feed.xml?page=2", 0, {"role": "feed"})
    ]


def test_atom() -> None:
    assert list(parsed(ATOM).images) == [
        FoundImage(
            "https://shells.example/murex.png",
            "Murex",
            ("Muricidae",),
            "https://cc.example/0",
            "C. Author",
        )
    ]


def test_rdf() -> None:
    text = """<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"
      xmlns="http://purl.org/rss/1.0/"><channel><title>x</title></channel>
      <item><title>Cone</title><enclosure url="c.jpg"/></item></rdf:RDF>"""
    assert [one.url for one in parsed(text).images] == ["https://shells.example/c.jpg"]


def test_entries_lead_to_pages() -> None:
    config = parse_config(
        FeedSource, {"start": [URL], "take": "pages", "follow_exclude": ["words"]}, "x"
    )
    assert start(config) == [FEED]
    result = parse(config, Page(FEED, RSS.encode(), URL))
    assert [(one.url.rsplit("/")[-1], one.depth) for one in result.follow] == [
        ("cone", 1),
        ("cowrie", 1),
        ("whelk", 1),
        ("feed.xml?page=2", 0),
    ]
    page = Page(PageRequest("https://shells.example/cone", 1), b"<img src=big.jpg>")
    assert [one.url for one in parse(config, page).images] == ["https://shells.example/big.jpg"]


@pytest.mark.parametrize(
    ("offsite", "pages", "skipped"),
    [(False, ["here"], {"offsite": 1}), (True, ["here", "away"], {})],
    ids=["onsite", "offsite"],
)
def test_entries_on_other_hosts(offsite: bool, pages: list[str], skipped: dict[str, int]) -> None:
    text = (
        "<rss><channel><item><link>/here</link></item>"
        "<item><link>https://other.example/away</link></item></channel></rss>"
    )
    result = parsed(text, take="pages", offsite=offsite)
    assert [one.url.rpartition("/")[2] for one in result.follow] == pages
    assert dict(result.skipped) == skipped


def test_entries_on_the_host_of_a_redirected_feed() -> None:
    config = parse_config(FeedSource, {"start": [URL], "take": "pages"}, "test")
    links = ("https://blog.example/a", "https://www.shells.example/b", "https://other.example/c")
    items = "".join(f"<item><link>{link}</link></item>" for link in links)
    body = f"<rss><channel>{items}</channel></rss>".encode()
    result = parse(config, Page(FEED, body, "https://blog.example/feed"))
    assert [one.url[-1] for one in result.follow] == ["a", "b"]
    assert dict(result.skipped) == {"offsite": 1}


XHTML = '<{0}div xmlns{1}="http://www.w3.org/1999/xhtml"><{0}img src="a.jpg"/></{0}div>'


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (f'<content type="xhtml">{XHTML.format("", "")}</content>', "a.jpg"),
        (f'<content type="xhtml">{XHTML.format("h:", ":h")}</content>', "a.jpg"),
        ('<content type="html">&lt;img src="a.jpg"&gt;<!-- x --></content>', "a.jpg"),
        ('<content xml:base="2/">&lt;img src="a.jpg"&gt;</content>', "2/a.jpg"),
        ('<content>x<br/>&lt;img src="a.jpg"&gt;</content>', "a.jpg"),
        ('<content><div><![CDATA[<img src="a.jpg">]]></div></content>', "a.jpg"),
        ('<link rel="enclosure" type="IMAGE/JPEG" href="a"/>', "a"),
        ('<m:content xmlns:m="http://search.yahoo.com/mrss/" medium="IMAGE" url="a"/>', "a"),
        ('<link rel="alternate" href="page"/><link rel="enclosure" href="a.jpg"/>', "a.jpg"),
    ],
    ids=["xhtml", "prefix", "escaped", "base", "both", "cdata", "type", "medium", "link"],
)
@pytest.mark.parametrize("base", ["", "https://cdn.example/1/"])
def test_images_and_bases_of_atom(entry: str, expected: str, base: str) -> None:
    attribute = f' xml:base="{base}"' if base else ""
    text = f"<feed{attribute}><entry><title>x</title>{entry}</entry></feed>"
    assert [one.url for one in parsed(text).images] == [
        (base or "https://shells.example/") + expected
    ]
    (page,) = parsed(text, take="pages", offsite=True).follow or [None]
    assert page is None or page.url == (base or "https://shells.example/") + "page"


@pytest.mark.parametrize("body", ["<html></html>", "oops", ""])
def test_other_things_are_problems(body: str) -> None:
    assert parsed(body).error


def test_prefixes_that_are_not_declared() -> None:
    text = (
        "<rss><channel><item><media:content url='a.jpg'/><dc:creator>me</dc:creator></item>"
        "<item><enclosure url='b.jpg'/></item></channel></rss>"
    )
    result = parsed(text)
    assert [(one.url[-5:], one.attribution) for one in result.images] == [
        ("a.jpg", "me"),
        ("b.jpg", ""),
    ]
    assert result.skipped["broken_xml"] == 1


def test_a_feed_that_breaks_off_gives_what_came() -> None:
    whole = [one.url for one in parsed(RSS).images]
    cut = parsed(RSS[: RSS.index("<item><title>Whelk")])
    assert [one.url for one in cut.images] == whole[:2]
    assert list(cut.skipped) == ["broken_xml"]


def test_entities_that_grow_do_not() -> None:
    names = "abcdefghij"
    entities = "".join(
        f'<!ENTITY {after} "{f"&{before};" * 10}">' for before, after in itertools.pairwise(names)
    )
    bomb = (
        f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">{entities}]><rss><channel>'
        "<item><enclosure url='g.jpg' type='image/jpeg'/><title>&j;</title></item>"
        "<item><enclosure url='&j;' type='image/jpeg'/></item></channel></rss>"
    )
    rows = list(parsed(bomb).images)
    assert all(len(one.url) < 100 and len(one.title) < 100 for one in rows)


@pytest.mark.slow
def test_very_many_entries_are_cut_and_read_in_a_time_that_grows_with_them() -> None:
    item = "<item><enclosure url='/{}.jpg' type='image/jpeg'/></item>"
    text = f"<rss><channel>{''.join(item.format(n) for n in range(8_000))}</channel></rss>"
    begun = time.process_time()
    assert len(list(parsed(text).images)) == 8_000
    assert time.process_time() - begun < 30
    text = f"<rss><channel>{'<item/>' * 100_003}</channel></rss>"
    assert parsed(text).skipped["too_many_entries"] == 3
