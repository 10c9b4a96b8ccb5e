"""Arbitrary text in every field of the generated pages: shown, never obeyed, never fetched."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import lxml.html
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jinja2 import Environment
from markdown_it import MarkdownIt

from pipeline.contract import ShardEntry, ShardIndex
from pipeline.markup import disarm_markdown, escape_markdown, policy_element
from pipeline.recipe import Recipe
from pipeline.select.preview_page import PAGE, Section, Thumbnail
from pipeline.shards.builder import BuiltShard
from pipeline.shards.card import card_page, card_text
from pipeline.shards.stats import DatasetStats
from pipeline.sources.html_options import HtmlSource
from training.exports import folder as exports
from training.reporting.card_page import card_html, harmless

PIECES = st.sampled_from([
    "<script>alert(1)</script>", "![x](http://evil.example/a.png)", "![x](contact.jpg)", "`",
    "```", "~~~\n", "|", "\n", "\n\n", "\r", "[a](javascript:x)", "<img src=//evil.example/x>",
    "<!--", "-->",
    "</main>", "<main>", "]]>", "&lt;b&gt;", "&#60;b&#62;", "\\", "\\\\", "*", "_", "**", "#", "> ",
    "<http://evil.example>", "[r]: http://evil.example", "[r]", "![r]", '"', "'", "<svg onload=x>",
    "<a href='javascript:x'>", "</td>", "<style>@import '//evil.example'</style>", "\x1b[31m",
    "\u202e", "<base href=//evil.example>", "data:text/html,x", "    ", "\t", "- ", "1. ", "<", ">",
    "!", "[", "]",
])  # fmt: skip
TEXT = st.lists(PIECES | st.text(max_size=8), max_size=8).map("".join)
LIVE = frozenset(
    ("script", "iframe", "object", "embed", "svg", "form", "base", "link", "a", "input")
)


def made_shard() -> BuiltShard:
    stats = {"measured": 1, "mean": [1.0], "mean_square": [2.0], "enlarged": 0, "fell_back": 0,
             "plain": 0}  # fmt: skip
    values: dict[str, Any] = dict.fromkeys(BuiltShard.__dataclass_fields__, None)
    return BuiltShard(
        **{**values, "name": "s", "nsamples": 1, "bytes": 1, "stats": stats, "skipped": []}
    )


def card_of(title: str, texts: list[str]) -> str:
    index = ShardIndex("mine", (ShardEntry("a.tar", 1, 1, "0" * 64),), (8, 8), 1, "png", "0" * 64,
                       labels=tuple(dict.fromkeys(texts)))  # fmt: skip
    counts = Counter(texts)
    facts = DatasetStats(
        kept=1,
        rejections=counts,
        licenses=counts,
        attributions=counts,
        labels=counts,
        hosts=counts,
        opt_outs=counts,
        overrides=Counter((one, one) for one in texts),
        first=title,
        last=title,
    )
    recipe = replace(Recipe(source=HtmlSource(start=("http://x.example/",))), title=title)
    return card_text(recipe, index, [made_shard()], facts, "now")


def check(page: str, pictures: int = 0, is_document: bool = True) -> Any:
    """No element that runs, leads away or loads anything but what is in the page."""
    tree = lxml.html.document_fromstring(page or "<p></p>")
    for element in tree.iter(lxml.html.etree.Element):
        if not isinstance(element.tag, str):
            assert is_document, element
            continue
        assert element.tag not in LIVE, element.tag
        for name, value in element.attrib.items():
            assert not name.startswith("on"), name
            if name in ("src", "href", "srcset", "background", "poster", "data"):
                assert value.startswith("data:image/"), value
    assert len(tree.findall(".//img")) <= pictures
    return tree


def render(markdown: str) -> str:
    """As a site shows it that lets HTML through, which the strictest reader does not."""
    parser = MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough")
    body: str = parser.render(markdown)
    return body


@given(TEXT)
@example("a|b\\")
@example("\\|")
@example("www.evil.example http://evil.example/x_y_z")
def test_one_line_of_markdown_is_the_text_again(text: str) -> None:
    escaped = escape_markdown(text)
    assert "\n" not in escaped
    shown = lxml.html.document_fromstring(f"<div>{render('x' + escaped)}</div>")
    assert not list(shown.iter("img", "script", "a", "code", "em", "strong", "style"))
    plain = render(f"| {escaped} | y |\n| - | - |\n")
    assert plain.count("<th>") == 2
    assert check(f"<div>{plain}</div>") is not None


@given(TEXT)
def test_a_whole_markdown_text_is_disarmed(text: str) -> None:
    check(f"<div>{render(disarm_markdown(text))}</div>")


@given(TEXT, st.lists(TEXT, min_size=1, max_size=4))
def test_the_card_of_a_dataset_shows_text_and_loads_nothing(title: str, texts: list[str]) -> None:
    card = card_of(title, texts)
    body = render(card)
    tree = lxml.html.document_fromstring(f"<div>{body}</div>")
    assert {image.get("src") for image in tree.iter("img")} == {"contact.jpg", "mean.png"}
    assert not list(tree.iter("script", "a", "style", "svg", "iframe"))
    page = card_page(card, Path("/nonexistent"))
    check(page)
    assert policy_element() in page
    # The report of a run shows it, too.
    check(f"<div>{harmless(page.partition('<main>')[2])}</div>", is_document=False)


@given(TEXT, st.binary(max_size=200))
@example("<a href=x>y</a><base href=//e><form><input onfocus=x><img src=//e/x onerror=y>", b"")
@example("<![x](http://evil.example/a.png)", b"")
def test_a_report_takes_nothing_live_from_a_card(text: str, noise: bytes) -> None:
    for markup in (text, noise.decode("latin-1"), f"<table><tr><td>{text}", f"<b {text}>"):
        clean = harmless(markup)
        check(f"<div>{clean}</div>", is_document=False, pictures=10)
        stack: list[str] = []
        for close, tag in re.findall(r"<(/?)(\w+)", clean):
            if tag in ("img", "br", "hr"):
                continue
            if close:
                assert stack.pop() == tag
            else:
                stack.append(tag)
        assert stack == []


@given(TEXT)
def test_the_preview_shows_text(text: str) -> None:
    shown = Thumbnail(text, text, "")
    section = Section(text, text, 1, [shown], [shown], scale=text)
    environment = Environment(autoescape=True)
    page = environment.from_string(PAGE).render(
        name=text, kept=1, sections=[section], thumb=140, policy=""
    )
    check(page.replace("<svg", "<div").replace("</svg", "</div"))


@given(TEXT)
def test_a_model_card_carries_the_datasets_card_disarmed(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exports, "read_bytes", lambda *_: text.encode("utf-8", "surrogatepass"))
        check(f"<div>{render(exports.dataset_card({'location': 'somewhere'}))}</div>")


@given(st.binary(max_size=300))
def test_a_broken_card_file_is_no_error(data: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.reporting.card_page.read_bytes", lambda *_: b"<main>" + data)
        assert isinstance(card_html("somewhere"), str)
