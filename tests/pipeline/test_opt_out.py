"""Opt-out signals as pure functions: what each form says, and what a recipe may override."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.recipe import load_recipe
from pipeline.web.opt_out.directives import (
    header_reservation,
    header_signals,
    meta_signals,
    read_tdmrep,
)
from pipeline.web.opt_out.robots_lines import matches, normalize, read_robots_lines, target_path
from pipeline.web.opt_out.rsl import header_licenses, page_licenses, read_rsl
from pipeline.web.opt_out.signals import (
    SIGNALS,
    Signal,
    count_signals,
    describe,
    signal_disallows,
    signal_names,
    usage_disallows,
)
from pipeline.web.opt_out.xmp import data_mining_signals
from pipeline.web.politeness import Politeness
from pipeline.web.responses import RawResponse, RequestFailure, check_response
from tests.helpers.opt_out_examples import VOCABULARY, image_with, licence, packet, rsl

AGENT = "ShellGAN/0.1"
SITE = "https://a.example"


# names, counts, overrides


def test_details_name_their_signals_in_every_version() -> None:
    seen = [Signal("noai", "X-Robots-Tag"), Signal("tdm-reservation", "header", "https://a/p;q")]
    assert signal_names(describe(seen)) == ["noai", "tdm-reservation"]
    assert signal_names("x-robots-tag: shellgan: noimageai") == ["noimageai"]
    assert signal_names("tdm-reservation: 1") == ["tdm-reservation"]
    assert signal_names("a meta element of the page") == ["unnamed"]


def test_counting_by_name() -> None:
    rows = [
        {"kind": "opt_out", "detail": "noai: X-Robots-Tag; rsl: licence, policy https://a/l.xml"},
        {"kind": "opt_out", "detail": "noai: meta element"},
        {"kind": "robots", "detail": "noai: no"},
    ]
    assert count_signals(rows) == {"noai": 2, "rsl": 1}


def test_the_docs_list_every_signal() -> None:
    page = (Path(__file__).parents[2] / "docs" / "opt-out.md").read_text()
    table = "".join(line for line in page.splitlines() if line.startswith("| `"))
    assert all(f"`{name}`" in table for name in SIGNALS)


RECIPE = '[source]\nkind = "html"\nstart = ["https://a.example/"]\n[politeness.opt_out_overrides]\n'


def test_each_signal_can_be_overridden_with_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "one.toml"
    for name in SIGNALS:
        path.write_text(f'{RECIPE}{name} = "I own the site"\n')
        politeness = load_recipe(path).politeness
        assert politeness.override_reason(name) == "I own the site"
        others = [Signal(other, "header") for other in SIGNALS if other != name]
        assert politeness.refusing([Signal(name, "header"), *others]) == others


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('noai = ""', "politeness.opt_out_overrides: noai: no reason; state one"),
        ('noai = "  "', "no reason"),
        ('robots = "mine"', "unknown signal 'robots'; choose from content-signal, content-usage,"),
        ("noai = true", "politeness.opt_out_overrides.noai: "),
    ],
)
def test_overrides_without_a_reason_or_a_signal_are_refused(
    line: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "one.toml"
    path.write_text(f"{RECIPE}{line}\n")
    with pytest.raises(UserError) as refused:
        load_recipe(path)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_old_recipes_override_everything_at_once() -> None:
    politeness = Politeness(honour_opt_out=False)
    assert not politeness.refusing(Signal(name, "header") for name in SIGNALS)
    assert politeness.override_reason("noai") == "honour_opt_out = false"


# headers and meta elements


@pytest.mark.parametrize(
    ("headers", "names"),
    [
        ({}, []),
        ({"x-robots-tag": "noai"}, ["noai"]),
        ({"x-robots-tag": "noindex, NoImageAI"}, ["noimageai"]),
        ({"x-robots-tag": "noml"}, ["noml"]),
        ({"x-robots-tag": "noai, noimageai"}, ["noai", "noimageai"]),
        ({"x-robots-tag": "noai noimageai"}, ["noai", "noimageai"]),
        ({"x-robots-tag": "*: noai"}, ["noai"]),
        ({"x-robots-tag": "shellgan: noai"}, ["noai"]),
        ({"x-robots-tag": "googlebot: noai"}, []),
        ({"x-robots-tag": "googlebot: noindex, noai"}, ["noai"]),
        ({"x-robots-tag": "noindex, unavailable_after: 25 Jun 2027"}, []),
        ({"x-robots-tag": "noaii, max-image-preview: none"}, []),
        ({"content-usage": "train-ai=n"}, ["content-usage"]),
        ({"content-usage": "search=y, train-ai=y"}, []),
        ({"content-signal": "ai-train=no, search=yes"}, ["content-signal"]),
    ],
)
def test_signals_in_headers(headers: dict[str, str], names: list[str]) -> None:
    assert [one.name for one in header_signals(headers, AGENT)] == names


@pytest.mark.parametrize(
    ("value", "reserved"),
    [("1", True), (" 1 ", True), ("1, 1", True), ("0", False), ("2", None), ("", None)],
)
def test_tdm_reservation_as_header(value: str, reserved: bool | None) -> None:
    found = header_reservation({"tdm-reservation": value, "tdm-policy": "https://a/policy"})
    assert (found.reserved if found else None) == reserved
    if found:
        assert found.policy == "https://a/policy"


@pytest.mark.parametrize(
    ("metas", "names"),
    [
        ([("robots", "noindex")], []),
        ([("robots", "noindex, noai")], ["noai"]),
        ([("robots", "NOIMAGEAI,noml")], ["noimageai", "noml"]),
        ([("shellgan", "noai")], ["noai"]),
        ([("googlebot", "noai")], []),
        ([("tdm-reservation", "1"), ("tdm-policy", "https://a/p")], ["tdm-reservation"]),
        ([("tdm-reservation", "0")], []),
    ],
)
def test_signals_in_meta_elements(metas: list[tuple[str, str]], names: list[str]) -> None:
    assert [one.name for one in meta_signals(metas, AGENT)] == names


def test_an_answer_is_refused_by_name_and_policy() -> None:
    served = RawResponse(
        f"{SITE}/x", 200, {"tdm-reservation": "1", "tdm-policy": "https://a/p"}, b"x"
    )
    refused = check_response(Politeness(), served)
    assert isinstance(refused, RequestFailure)
    assert refused.detail == "tdm-reservation: header, policy https://a/p"
    mine = check_response(Politeness(opt_out_overrides={"tdm-reservation": "mine"}), served)
    assert isinstance(mine, RawResponse)
    assert mine.signals == (Signal("tdm-reservation", "header", "https://a/p"),)


# one line of preferences


@pytest.mark.parametrize(
    ("value", "disallows"),
    [
        ("train-ai=n", True),
        ("train-ai=y", False),
        ("train-ai=y, train-ai=n", True),
        ("train-ai=n, train-ai=y", False),
        ('a=(b c);x, train-ai=n;p="x, y", c=:Zg==:, d=-1.5, e=?1, f=@5', True),
        ("train-ai;allow=n, train-ai=y", False),
        ("bots=n", True),
        ("bots=n, train-ai=y", False),
        ("train-genai=n, train-ai=y", True),
        ("search=n", False),
        ("ai-use=n", False),
        ("Train-AI=n", False),  # no dictionary: keys are in lower case
        ("train-ai=n,", False),
        ('train-ai="n"', False),
        ("train-ai=n x", False),
        ("train-ai=n" + "," * 9000, False),
        ("", False),
    ],
)
def test_content_usage(value: str, disallows: bool) -> None:
    assert usage_disallows(value) is disallows


@pytest.mark.parametrize(
    ("value", "disallows"),
    [
        ("search=yes, ai-train=no", True),
        ("AI-Train = No", True),
        ("ai-train=no,ai-input=yes", True),
        ("search=yes,ai-train=yes", False),
        ("ai-input=no", False),
        ("xai-train=no", False),
        ("", False),
    ],
)
def test_content_signal(value: str, disallows: bool) -> None:
    assert signal_disallows(value) is disallows


# robots.txt


def in_robots(text: str, path: str = "/x.jpg", agent: str = AGENT) -> list[str]:
    lines = read_robots_lines(text, f"{SITE}/robots.txt", agent)
    return [one.name for one in lines.signals(SITE + path)]


NO = "Content-Signal: search=yes, ai-train=no"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (f"User-agent: *\n{NO}\nAllow: /", ["content-signal"]),
        (f"\ufeffUser-agent: *\r\n{NO}\r\n", ["content-signal"]),
        (f"user-AGENT : *\n  content-SIGNAL : ai-train=no # all\n{'x' * 99}", ["content-signal"]),
        (f"User-agent: GPTBot\n{NO}", []),
        (f"User-agent: GPTBot\n\n{NO}", []),
        (f"User-agent: GPTBot\nUser-agent: ShellGAN\n{NO}", ["content-signal"]),
        (f"User-agent: GPTBot\nSitemap: /s.xml\nUser-agent: shellgan\n{NO}", ["content-signal"]),
        (f"User-agent: *\n{NO}\n\nUser-agent: shellgan\nAllow: /", []),
        (f"User-agent: shellgan\nAllow: /\nUser-agent: *\n{NO}", []),
        (f"User-agent: shellgan\nAllow: /\n\nUser-agent: ShellGAN\n{NO}", ["content-signal"]),
        (f"User-agent: ShellGAN/2.0\n{NO}", ["content-signal"]),
        (f"User-agent: shell\n{NO}", []),
        (f"{NO}\nUser-agent: GPTBot\nDisallow: /", ["content-signal"]),
        ("User-agent: *\nContent-Usage: train-ai=n", ["content-usage"]),
        ("User-agent: *\nContent-Usage: / train-ai=n", ["content-usage"]),
        ("User-agent: *\nContent-Usage:\t/\ttrain-ai=n", ["content-usage"]),
        ("User-agent: *\nContent-Usage: /y train-ai=n", []),
        ("User-agent: *\nContent-Usage: /*.jpg$ train-ai=n", ["content-usage"]),
        ("User-agent: *\nContent-Usage: / train-ai=n\nContent-Usage: /x train-ai=y", []),
        ("User-agent: *\nContent-Usage: train-ai=y\nContent-Usage: train-ai=n", ["content-usage"]),
        ("User-agent: *\nContent-Usage: / train-ai=n\nContent-Usage: /x search=y", []),
        ("", []),
    ],
)  # fmt: skip
def test_preferences_in_robots_txt(text: str, names: list[str]) -> None:
    assert in_robots(text) == names


def test_names_of_an_agent_with_several_words() -> None:
    for name in ("my", "my shell bot", "MY SHELL BOT/3"):
        assert in_robots(f"User-agent: {name}\n{NO}", agent="My Shell Bot/1") == ["content-signal"]
    assert in_robots(f"User-agent: shell\n{NO}", agent="My Shell Bot/1") == []


@pytest.mark.parametrize(
    ("text", "licenses"),
    [
        (f"License: {SITE}/l.xml\n\nUser-agent: *\nAllow: /", (f"{SITE}/l.xml",)),
        (f"User-agent: GPTBot\nDisallow: /\n\nLicense: {SITE}/l.xml", (f"{SITE}/l.xml",)),
        (f"User-agent: GPTBot\nLicense: {SITE}/l.xml\nDisallow: /", ()),
        ("User-agent: *\nlicense: /l.xml", (f"{SITE}/l.xml",)),
        ("License: /all.xml\nUser-agent: shellgan\nLicense: /ours.xml", (f"{SITE}/ours.xml",)),
        ("License: http://[bad/l.xml\nLicense:", ()),
    ],
)
def test_licences_in_robots_txt(text: str, licenses: tuple[str, ...]) -> None:
    assert read_robots_lines(text, f"{SITE}/robots.txt", AGENT).licenses == licenses


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("/", "/any", True),
        ("/a", "/ab", True),
        ("/a$", "/ab", False),
        ("/a$", "/a", True),
        ("/*.jpg$", "/a.jpg/b.jpg", True),
        ("/*.jpg$", "/a.jpg?x", False),
        ("/*a*a*a*a*a*b", "/" + "a" * 5000, False),
        ("/caf%c3%a9", "/café", True),
        ("/%61", "/a", True),
        ("*", "/x", True),
        ("", "/x", True),
    ],
)
def test_path_patterns(pattern: str, path: str, fits: bool) -> None:
    assert matches(normalize(pattern), target_path(SITE + path)) is fits


# tdmrep.json


@pytest.mark.parametrize(
    ("body", "reserved"),
    [
        (b'[{"location": "/", "tdm-reservation": 1}]', True),
        (b'\xef\xbb\xbf[{"location": "/", "tdm-reservation": "1"}]', True),
        (b'{"location": "/", "tdm-reservation": 1}', True),
        (b'[{"location": "/img/", "tdm-reservation": 1}]', True),
        (b'[{"location": "img/*.jpg$", "tdm-reservation": 1}]', True),
        (b'[{"location": "/other", "tdm-reservation": 1}]', None),
        (b'[{"location":"/img/","tdm-reservation":0}, {"location":"/","tdm-reservation":1}]', 0),
        (b'[{"location": "/", "tdm-reservation": 2}]', None),
        (b'[{"location": "/", "tdm-reservation": true}]', None),
        (b'[null, 7, {"location": 5}, {"location": "/", "tdm-reservation": 1}]', True),
        (b'[{"location": "/\\ud83d", "tdm-reservation": 1}]', None),
        (b"[" * 100_000, None),
        (b"<html>not found</html>", None),
        (b"", None),
    ],
)  # fmt: skip
def test_tdmrep_json(body: bytes, reserved: bool | None) -> None:
    found = read_tdmrep(body).reservation(f"{SITE}/img/x.jpg")
    assert (found.reserved if found else None) == reserved


def test_the_policy_of_a_reservation_is_kept() -> None:
    body = b'[{"location": "/", "tdm-reservation": 1, "tdm-policy": "https://a.example/p.json"}]'
    found = read_tdmrep(body).reservation(f"{SITE}/x")
    assert found is not None
    assert found.signals()[0].to_json(None) == {
        "signal": "tdm-reservation", "where": "/.well-known/tdmrep.json",
        "policy": "https://a.example/p.json",
    }  # fmt: skip


# RSL


NO_TRAINING = '<prohibits type="usage">ai-train</prohibits>'


@pytest.mark.parametrize(
    ("body", "prohibits"),
    [
        (rsl(licence(NO_TRAINING)), True),
        (rsl(licence('<prohibits type="usage">search ai-all</prohibits>')), True),
        (rsl(licence('<prohibits type="usage">all</prohibits>')), True),
        (rsl(licence('<prohibits type="usage">train-ai</prohibits>')), True),
        (rsl(licence('<prohibits type="usage">ai-input</prohibits>')), False),
        (rsl(licence('<prohibits type="user">all</prohibits>')), False),
        (rsl(licence('<permits type="usage">search</permits>')), True),
        (rsl(licence('<permits type="usage">search,ai-train</permits>')), False),
        (rsl(licence('<permits type="usage">all</permits>')), False),
        (rsl(licence('<permits type="usage">all</permits>' + NO_TRAINING)), True),
        (rsl(licence('<permits type="geo">EU</permits>')), False),
        (rsl(licence('<payment type="crawl"/>')), False),
        (rsl(licence(NO_TRAINING, "/img/")), True),
        (rsl(licence(NO_TRAINING, "/img/*.jpg$")), True),
        (rsl(licence(NO_TRAINING, "/other/")), False),
        (rsl(licence(NO_TRAINING, "https://a.example/")), True),
        (rsl(licence(NO_TRAINING, "https://A.example/img/*")), True),
        (rsl(licence(NO_TRAINING, "https://b.example/")), False),
        (rsl(licence(NO_TRAINING), licence('<permits type="usage">all</permits>', "/img/")), True),
        (
            rsl(licence('<permits type="usage">search</permits>'), licence("", "/img/")),
            False,
        ),
        (rsl('<content url="/"/>'), False),
        (rsl(), False),
        (b'<r:rsl xmlns:r="https://rslstandard.org/rsl"><r:content url="/"><r:license>'
         b"<r:prohibits>ai-train</r:prohibits></r:license></r:content></r:rsl>", True),
    ],
)  # fmt: skip
def test_rsl(body: bytes, prohibits: bool) -> None:
    document = read_rsl(body)
    assert document is not None
    assert document.prohibits_training(f"{SITE}/img/x.jpg") is prohibits


BOMB = (
    b'<!DOCTYPE rsl [<!ENTITY a "aaaaaaaaaaaaaaaa"><!ENTITY b "'
    + b"&a;" * 999
    + b'"><!ENTITY c "'
    + b"&b;" * 999
    + b'">]><rsl><content url="&c;"/></rsl>'
)


@pytest.mark.parametrize("body", [b"", b"<html/>", b"<rsl", b"\xff\xfe", BOMB, BOMB[:100], b"{}"])
def test_what_is_no_rsl_says_nothing(body: bytes) -> None:
    assert read_rsl(body) is None


def test_licence_links() -> None:
    licence = '</l.xml>; rel="license"; type="application/rsl+xml"'
    link = f"</a.css>; rel=preload, {licence}, <b>; rel=license"
    assert header_licenses({"link": link}, f"{SITE}/x/y") == [f"{SITE}/l.xml"]
    links = [
        ("license", "application/rsl+xml", "l.xml"),
        ("license", "", "https://creativecommons.org/licenses/by/4.0/"),
        ("License", "application/rsl+xml; charset=utf-8", "http://[bad"),
    ]
    assert page_licenses(links, f"{SITE}/x/y") == [f"{SITE}/x/l.xml"]


# XMP


@pytest.mark.parametrize("form", ["attribute", "element", "resource"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_data_mining_in_every_format(kind: str, form: str) -> None:
    for value in ("DMI-PROHIBITED-AIMLTRAINING", "DMI-ALLOWED"):
        data = image_with(packet(VOCABULARY + value, form), kind)
        found = data_mining_signals(data)
        assert [one.name for one in found] == ["plus-data-mining"] * ("PROHIBITED" in value)
        assert all(value in one.where for one in found)


@pytest.mark.parametrize(
    ("value", "prohibits"),
    [
        *((f"{VOCABULARY}DMI-PROHIBITED{rest}", True) for rest in (
            "", "-AIMLTRAINING", "-GENAIMLTRAINING", "-EXCEPTSEARCHENGINEINDEXING",
            "-SEECONSTRAINT", "-SEEEMBEDDEDRIGHTSEXPR", "-SEELINKEDRIGHTSEXPR")),
        ("DMI-PROHIBITED-GENAIMLTRAINING", True),
        ("https://ns.useplus.org/ldf/vocab/dmi-prohibited", True),
        ("Prohibited for AI/ML training", True),
        (f"{VOCABULARY}DMI-UNSPECIFIED", False),
        (f"{VOCABULARY}DMI-ALLOWED", False),
        ("", False),
    ],
)  # fmt: skip
def test_values_of_data_mining(value: str, prohibits: bool) -> None:
    assert bool(data_mining_signals(image_with(packet(value), "JPEG"))) is prohibits


def test_compressed_png_text_and_extended_jpeg_metadata() -> None:
    prohibited = packet(f"{VOCABULARY}DMI-PROHIBITED")
    assert data_mining_signals(image_with(prohibited, "PNG", compressed=True))
    plain = image_with(packet(f"{VOCABULARY}DMI-ALLOWED"), "JPEG")
    half = len(prohibited) // 2
    segments = b""
    for offset, piece in ((half, prohibited[half:]), (0, prohibited[:half])):
        body = b"http://ns.adobe.com/xmp/extension/\0" + b"A" * 32
        body += len(prohibited).to_bytes(4) + offset.to_bytes(4) + piece
        segments += b"\xff\xe1" + (len(body) + 2).to_bytes(2) + body
    assert data_mining_signals(plain[:2] + segments + plain[2:])


def test_utf_16_metadata() -> None:
    text = packet(f"{VOCABULARY}DMI-PROHIBITED").decode().encode("utf-16")
    assert data_mining_signals(image_with(text, "JPEG"))


def test_metadata_of_an_ingredient_is_not_the_file_s() -> None:
    inner = packet(f"{VOCABULARY}DMI-PROHIBITED").decode()
    description = inner[inner.index("<rdf:Description") : inner.index("</rdf:RDF>")]
    outer = packet("DMI-ALLOWED", "element").decode()
    pantry = (
        '<pantry:x xmlns:pantry="http://ns.adobe.com/xap/1.0/mm/"><rdf:Bag><rdf:li>'
        f"{description}</rdf:li></rdf:Bag></pantry:x></rdf:Description>"
    )
    mixed = outer.replace("</rdf:Description>", pantry)
    assert not data_mining_signals(image_with(mixed.encode(), "JPEG"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_broken_metadata_never_raises(kind: str) -> None:
    whole = image_with(packet(f"{VOCABULARY}DMI-PROHIBITED", "element"), kind)
    for end in range(0, len(whole), 37):
        data_mining_signals(whole[:end])
    cut = packet(f"{VOCABULARY}DMI-PROHIBITED")[:-300]
    data_mining_signals(image_with(cut, kind))
    bomb = BOMB.replace(b"<rsl>", b"<rsl DataMining='1'>")
    assert data_mining_signals(image_with(bomb, kind)) == []
