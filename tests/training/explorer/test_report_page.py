"""The report of a run, in a browser: wide and narrow, light and dark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

OVERFLOWS = "document.documentElement.scrollWidth > innerWidth"
LOOSE_PICTURES = "[...document.images].filter(i => !(i.complete && i.naturalWidth)).length"
GROUND = "getComputedStyle(document.body).backgroundColor"


def test_the_report_is_readable_on_a_desk_and_on_a_phone(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Any, browser: Any
) -> None:
    run = tmp_path / "runs" / "seen"
    options = ("--total-kimg", "0.24", "--record.sample_kimg", "0.08", "--loss.r1", "1")
    assert in_process(run, small_shards(labels=("cone", "whelk")), *options) == 0
    grounds = []
    for width, height, scheme in ((1200, 800, "light"), (390, 800, "dark")):
        browser.look(width, height, scheme)
        browser.open((run / "report.html").as_uri())
        browser.until("document.querySelectorAll('#charts svg').length > 0")
        assert not browser.js(OVERFLOWS), width
        assert browser.js(LOOSE_PICTURES) == 0
        grounds.append(browser.js(GROUND))
        titles = browser.js("[...document.querySelectorAll('#charts h2')].map(h => h.innerText)")
        for title in (
            "Losses",
            "Discriminator outputs",
            "Gradient norms",
            "Gradient penalties",
            "Standard dev",
        ):
            assert any(found.startswith(title) for found in titles), (title, titles)
        for kimg, place in (("0 kimg", "min"), ("0.24 kimg", "max")):
            browser.js(
                f"slider.value = slider.{place}, slider.dispatchEvent(new Event('input')), 0"
            )
            assert browser.js("document.getElementById('at').innerText") == kimg
        assert browser.complaints() == []
    assert grounds[0] != grounds[1]
