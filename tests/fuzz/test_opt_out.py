"""Policy files, headers, pages and metadata from outside: whatever they are, reading them ends, and
what is recorded of them can be written and read back."""

from __future__ import annotations

import json
import time

from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.outside_text import printable
from pipeline.web.hosts import HostPolicy, linked_licenses
from pipeline.web.opt_out.directives import PATH, header_signals, meta_signals, read_tdmrep
from pipeline.web.opt_out.robots_lines import read_robots_lines
from pipeline.web.opt_out.rsl import header_licenses, page_licenses, read_rsl
from pipeline.web.opt_out.signals import SIGNALS, Signal, describe, signal_names
from pipeline.web.opt_out.xml import read_metas
from pipeline.web.opt_out.xmp import data_mining_signals
from pipeline.web.politeness import Politeness
from pipeline.web.responses import RawResponse, RequestFailure, check_response
from pipeline.web.robots import parse_robots
from tests.helpers.opt_out_examples import VOCABULARY, image_with, packet, rsl

AGENT = "ShellGAN/0.1"
SITE = "https://a.example"
URL = f"{SITE}/img/x.jpg?y=1"
POLITENESS = Politeness()

WORDS = st.sampled_from([
    "User-agent: ", "*", "ShellGAN", "Content-Signal: ", "ai-train=no", "Content-Usage: ", "/", " ",
    "train-ai=n", "License: ", "https://a.example/l.xml", "//[", "\n", "\r", "\n\n", "#", ":", ",",
    ";", "=", '"', "(", ")", "$", "%2a", "%", "\ufeff", "\x00", "é", "<", ">", "rel=license", "1",
    "type=application/rsl+xml", "noai", "noimageai", "shellgan:", "tdm-reservation",
])  # fmt: skip
TEXT = st.one_of(st.lists(WORDS, max_size=40).map("".join), st.text(max_size=200))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["location", "tdm-reservation", "tdm-policy"]) | TEXT, inner, max_size=4
        )
    ),
    max_leaves=12,
)
HEADERS = st.dictionaries(
    st.sampled_from([
        "x-robots-tag", "tdm-reservation", "tdm-policy", "content-usage", "content-signal", "link",
        "content-type",
    ]),
    TEXT,
)  # fmt: skip


def check(signals: list[Signal]) -> None:
    """Signals have names of the list, and what is said of them can be stored."""
    for signal in signals:
        assert signal.name in SIGNALS
        assert json.loads(json.dumps(signal.to_json("why")).encode())["signal"] == signal.name
    detail = describe(signals)
    assert printable(detail) == detail
    detail.encode()
    if signals:
        assert set(signal_names(detail)) == {signal.name for signal in signals}


@given(TEXT, TEXT)
def test_robots_txt(before: str, after: str) -> None:
    text = f"{before}\nUser-agent: shellgan\nContent-Signal: ai-train=no\n{after}"
    lines = read_robots_lines(text, f"{SITE}/robots.txt", AGENT)
    check(lines.signals(URL))
    assert "content-signal" in {signal.name for signal in lines.signals(URL)}
    body = text.encode("utf-8", "surrogatepass")
    parse_robots(RawResponse(f"{SITE}/robots.txt", 200, {}, body), AGENT)


@given(HEADERS)
@example({"tdm-reservation": "1"})
def test_headers(headers: dict[str, str]) -> None:
    check(header_signals(headers, AGENT))
    header_licenses(headers, URL)
    answer = RawResponse(URL, 200, headers, b"<html><meta name=tdm-reservation content=0>")
    linked_licenses(answer)
    checked = check_response(POLITENESS, answer)
    if isinstance(checked, RequestFailure):
        assert checked.kind == "opt_out"
        assert set(signal_names(checked.detail)) <= SIGNALS.keys()


@given(JSON, st.binary(max_size=100))
def test_tdmrep_json(value: object, tail: bytes) -> None:
    text = json.dumps(value).encode()
    for body in (text, b"[" + text + b"]", text + tail, tail):
        found = read_tdmrep(body).reservation(URL)
        check(found.signals() if found else [])
    rule = b'[{"location": "/", "tdm-reservation": 1}, ' + text + b"]"
    good = read_tdmrep(rule).reservation(URL)
    assert good is not None
    assert good.reserved


@example(['">', "\ud7fc"], b"", 0)  # a code point without a character
@given(st.lists(TEXT, max_size=3), st.binary(max_size=60), st.integers(0, 200))
def test_rsl_files(texts: list[str], tail: bytes, cut: int) -> None:
    inside = "".join(texts).encode("utf-8", "replace").decode()
    terms = f"<license><prohibits>ai-train</prohibits>{inside}</license>"
    terms = f'<content url="{inside}">{terms}</content>'
    whole = rsl(terms)
    for body in (whole, whole[: -cut or None], whole[:cut] + tail, tail):
        document = read_rsl(body)
        if document is not None:
            check(document.signals(URL, inside))
    page_licenses([(text, text, text) for text in texts], URL)


@given(st.lists(st.tuples(TEXT, TEXT), max_size=5), st.binary(max_size=200))
def test_pages(metas: list[tuple[str, str]], body: bytes) -> None:
    check(meta_signals(metas, AGENT))
    check(meta_signals(read_metas(body), AGENT))
    html = "".join(f"<meta name='{name}' content='{text}'>" for name, text in metas)
    check(meta_signals(read_metas(html.encode("utf-8", "replace")), AGENT))


IMAGES = [
    image_with(packet(f"{VOCABULARY}DMI-PROHIBITED", form), kind)
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")
    for form in ("attribute", "element")
]


@given(st.sampled_from(IMAGES), st.lists(st.tuples(st.integers(0, 2000), st.binary(max_size=8))))
def test_image_files(image: bytes, changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(image)
    for position, piece in changes:
        data[position : position + len(piece)] = piece
    start = time.process_time()
    check(data_mining_signals(bytes(data)))
    assert time.process_time() - start < 2
    assert data_mining_signals(image)


@given(TEXT)
def test_values_of_metadata(value: str) -> None:
    cleaned = "".join(one for one in value if one.isprintable() and one not in "<>&\"'")
    check(data_mining_signals(image_with(packet(f"{VOCABULARY}DMI-PROHIBITED{cleaned}"), "JPEG")))


@given(st.binary(max_size=300), st.binary(max_size=300), TEXT)
def test_what_a_host_says_about_a_good_neighbour(tdmrep: bytes, terms: bytes, text: str) -> None:
    """Whatever its other files are, a host with one clear rule has that rule."""
    policy = HostPolicy(SITE, POLITENESS)
    lines = read_robots_lines(f"License: /l.xml\n{text}", f"{SITE}/robots.txt", AGENT)
    for _ in range(20):
        file = policy.next_file(lines)
        if file is None:
            break
        policy.take_file(file, RawResponse(file, 200, {}, tdmrep if file.endswith(PATH) else terms))
    assert policy.next_file(lines) is None
    found = policy.of_url(URL, lines)
    check(list(found.signals))
