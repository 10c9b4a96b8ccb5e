"""robots.txt of any bytes: read quickly, and with a bounded delay."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.web.politeness import MAX_DELAY
from pipeline.web.responses import MAX_POLICY, RawResponse
from pipeline.web.robots import parse_robots, robots_text
from pipeline.web.urls import request_url

AGENT = "ShellGAN/0.1"
NAMES = st.sampled_from(
    ("*", "shellgan", "ShellGAN/0.1", "*gan*", "other", "\xff", "", "**", "s*h")
)
VALUES = st.one_of(
    st.text(max_size=20),
    st.sampled_from(("/", "/*", "/*$", "$", "*", "/%", "/%zz", "/[", "1e308", "-1", "nan", "inf",
                     "9" * 5000,
                     "1/" + "9" * 5000 + "d", "5/0s", "1/1m 0000-9999", "http://[::1", "/\ud83d",
                     "//[")),
)  # fmt: skip
LINES = st.one_of(
    st.builds("User-agent: {}".format, NAMES),
    st.builds("{}: {}".format, st.sampled_from((
        "Disallow", "Allow", "Crawl-delay", "Request-rate", "Visit-time", "Sitemap", "Host",
        "Content-Signal",
        "Content-Usage", "License", "useragent", "user agent", "disalow",
    )), VALUES),
    st.text(max_size=30),
)  # fmt: skip
FILES = st.one_of(
    st.builds(
        lambda lines, end, mark, coding: mark + end.join(lines).encode(coding, "replace"),
        st.lists(LINES, max_size=15),
        st.sampled_from(("\n", "\r\n", "\r", "\x85", "\u2028")),
        st.sampled_from((b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")),
        st.sampled_from(("utf-8", "utf-16-le", "latin-1")),
    ),
    st.binary(max_size=200),
)
URLS = st.builds("http://a.example/{}".format, VALUES)


@given(FILES, URLS)
def test_any_file_has_an_answer_and_a_bounded_delay(body, url):
    try:
        wire = request_url(url)
    except ValueError:
        return
    robots = parse_robots(RawResponse("http://a.example/robots.txt", 200, {}, body), AGENT)
    refused = robots.why_disallowed(wire, AGENT)
    assert refused is None or refused.kind in ("robots", "robots_unreachable")
    assert refused is None or "cannot be read" not in refused.detail, refused.detail
    delay = robots.crawl_delay(AGENT)
    assert delay is None or 0 <= delay <= MAX_DELAY


@pytest.mark.slow
@settings(max_examples=10)
@given(
    st.lists(LINES, min_size=1, max_size=4), st.sampled_from(("User-agent: {}", "Disallow: /{}"))
)
def test_a_large_file_is_read_at_once(lines, pattern):
    part = "\n".join([*lines, ""])
    text = part + "".join(pattern.format(n) + "\n" for n in range(2000)) + part
    body = (text * (MAX_POLICY // len(text) + 1)).encode("utf-8", "replace")
    began = time.process_time()
    assert len(robots_text(body)) <= MAX_POLICY
    parse_robots(RawResponse("http://a.example/robots.txt", 200, {}, body), AGENT).why_disallowed(
        "http://a.example/x", AGENT
    )
    assert time.process_time() - began < 20


@given(
    st.lists(st.sampled_from(("/a", "/b", "/c/d")), min_size=1, max_size=3), st.binary(max_size=99)
)
def test_a_rule_for_all_is_obeyed_whatever_comes_before_it(paths, noise):
    rules = "User-agent: *\n" + "".join(f"Disallow: {path}\n" for path in paths)
    body = noise.replace(b"\xff\xfe", b"").replace(b"\xfe\xff", b"") + b"\n" + rules.encode()
    robots = parse_robots(RawResponse("http://a.example/robots.txt", 200, {}, body), AGENT)
    for path in paths:
        assert robots.why_disallowed(f"http://a.example{path}/x", AGENT)
