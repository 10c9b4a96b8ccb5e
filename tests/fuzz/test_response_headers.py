"""Answers of any bytes, over real sockets by both transports."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.errors import Failure
from pipeline.fetcher import Fetcher
from pipeline.web.attempts import join_ranges, resume_headers
from pipeline.web.bulk_fetcher import BulkFetcher
from pipeline.web.failures import FAILURE_KINDS
from pipeline.web.politeness import MAX_DELAY
from pipeline.web.responses import CodingError, Decoder, RawResponse, RequestFailure, Response
from pipeline.web.transfers import parse_head, refused_head, retry_after, sendable
from tests.helpers.both_transports import polite
from tests.helpers.faulty_site import GOOD, FaultySite, Row, serve

LINES = st.sampled_from((
    b"HTTP/1.1 200 OK", b"HTTP/1.1 200gOK", b"HTTP/1.0 206 Part", b"HTTP/1.1 304 Same",
    b"HTTP/1.1 302 Found",
    b"HTTP/1.1 100 Continue", b"HTTP/1.1 103 Hints", b"HTTP/1.1 101 Switch", b"HTTP/1.1 404 No",
    b"HTTP/1.1 503 Busy", b"HTTP/1.1", b"HTTP/Foo: bar", b"", b"Content-Length: 5",
    b"Content-Length: -1",
    b"Content-Length: 99999999999999999999", b"Content-Length: x", b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked", b"Content-Encoding: gzip", b"Content-Encoding: br",
    b"Content-Encoding: deflate", b"Content-Range: bytes 0-4/5", b"Content-Range: \xff",
    b"ETag: \"\xe9\"",
    b"ETag: \"a\"", b"Last-Modified: \xff", b"Retry-After: 9e99", b"Location: /good.jpg",
    b"Location: http://[::1",
    b"Location: \xff\x80", b"Location: ?\xc3\xa9 b", b" folded: x", b"\tfolded", b"no colon",
    b": nothing",
    b"X: \x00", b"X: \r", b"Set-Cookie: a=b; expires=\xff; path=\x01", b"Set-Cookie: ;;;=",
    b"Connection: close",
    b"Link: <", b"WWW-Authenticate: Basic", b"X-Robots-Tag: \xff: noai", b"TDM-Reservation: 1\xff",
    b"Alt-Svc: h3=\":0\"", b"Content-Type: multipart/x-mixed-replace",
    b"Content-Type: \xff; charset=\x80",
))  # fmt: skip
BODIES = st.one_of(
    st.binary(max_size=60),
    st.sampled_from((b"5\r\nabcde\r\n0\r\n\r\n", b"-1\r\n", b"ffffffffffffffffffff\r\n",
                     b"5;\xff\r\nab", b"\x1f\x8b\x08")),
)  # fmt: skip
ANSWERS = st.one_of(
    st.builds(
        lambda lines, body, end: end.join([*lines, b"", b""]) + body,
        st.lists(LINES, max_size=9),
        BODIES,
        st.sampled_from((b"\r\n", b"\r\n", b"\n")),
    ),
    st.builds(
        lambda lines, body: (
            b"HTTP/1.1 200 OK\r\n" + b"".join(one + b"\r\n" for one in lines) + b"\r\n" + body
        ),
        st.lists(LINES, max_size=6),
        BODIES,
    ),
    st.binary(max_size=120),
)


@pytest.fixture(scope="module")
def site() -> Iterator[SimpleNamespace]:
    """A site with a page whose answer is `site.answer`."""
    answers = SimpleNamespace(answer=b"")

    def behave(request) -> None:
        with contextlib.suppress(OSError):
            request.send(answers.answer)
        request.hang_up()

    with FaultySite(robots=serve(b"")) as faulty:
        faulty.rows["/odd"] = Row("/odd", behave)
        answers.url = faulty.url
        yield answers


def settled(outcome: Response | Failure) -> None:
    if isinstance(outcome, Failure):
        assert outcome.kind in FAILURE_KINDS
        assert outcome.kind != "internal", outcome.detail
    else:
        assert outcome.status in range(200, 305)


RULES = polite(
    attempts=2, backoff=0, max_backoff=0.001, rest_after=10**6, max_wait=0, first_byte_timeout=1,
    total_timeout=2,
)  # fmt: skip


@settings(report_multiple_bugs=False)
@given(answer=ANSWERS)
def test_any_answer_is_a_page_or_one_failure_and_a_neighbour_arrives(site, answer):
    site.answer = answer
    with Fetcher(RULES) as fetcher:
        settled(fetcher.get(site.url("/odd"), stage="x"))
        neighbour = fetcher.get(site.url("/good.jpg"), stage="x")
        assert neighbour.body == GOOD if isinstance(neighbour, Response) else (
            neighbour.kind == "host_cooldown" and b"Retry-After" in answer
        )  # fmt: skip


@settings(report_multiple_bugs=False)
@given(answers=st.lists(ANSWERS, min_size=1, max_size=3))
def test_any_answer_is_an_image_or_one_failure_and_a_neighbour_arrives(site, answers):
    outcomes = {}
    site.answer = answers[0]
    with BulkFetcher[str](RULES, "x") as bulk:
        for number, answer in enumerate(answers):
            site.answer = answer
            bulk.add(str(number), site.url("/odd"))
            end = time.monotonic() + 8
            while bulk.pending and time.monotonic() < end:
                outcomes.update(bulk.poll(0.1))
        bulk.add("good", site.url("/good.jpg"))
        end = time.monotonic() + 8
        while bulk.pending and time.monotonic() < end:
            outcomes.update(bulk.poll(0.1))
    assert len(outcomes) == len(answers) + 1
    neighbour = outcomes.pop("good")
    assert neighbour.body == GOOD if isinstance(neighbour, Response) else (
        neighbour.kind == "host_cooldown" and any(b"Retry-After" in one for one in answers)
    )  # fmt: skip
    for outcome in outcomes.values():
        settled(outcome)


HEADERS = st.dictionaries(
    st.sampled_from(("content-length", "content-type", "etag", "last-modified", "content-range",
                     "accept-ranges", "content-encoding")),
    st.one_of(st.text(max_size=30), st.binary(max_size=30).map(lambda raw: raw.decode("latin-1")),
              st.sampled_from(("bytes 3-5/6", "bytes 0-1/2", '"v"', "9" * 5000, "gzip"))),
)  # fmt: skip


@given(st.lists(st.one_of(LINES, st.binary(max_size=30)), max_size=12))
def test_a_head_is_read_or_has_no_status_line(lines):
    with contextlib.suppress(ValueError):
        status, headers = parse_head(line + b"\r\n" for line in lines)
        assert 0 <= status <= 999
        assert all(name == name.lower() for name in headers)


@given(
    HEADERS, st.binary(max_size=9), HEADERS, st.sampled_from((200, 206, 416)), st.binary(max_size=9)
)
@example({"etag": '"v"'}, b"abc", {"etag": '"v"', "content-range": "bytes 3-5/6"}, 206, b"def")
def test_pieces_are_joined_or_refused(head, body, later, status, rest):
    partial = RawResponse("http://a/x", 200, head, body)
    sent = sendable(resume_headers(partial))
    for value in sent.values():
        assert not set(value.encode("latin-1")) & set(range(32))
    refused_head(head, 100)
    whole = join_ranges(partial, RawResponse("http://a/x", status, later, rest), 100)
    if isinstance(whole, RequestFailure):
        assert whole.kind in ("truncated", "protocol", "too_large")
    elif status == 206:
        assert whole.body == body + rest


@given(
    st.one_of(
        st.text(max_size=40),
        st.from_regex(r"[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} \d+ \d+:\d+:\d+ [+-]?\w+"),
    )
)
def test_a_retry_after_is_bounded(value):
    seconds = retry_after(value)
    assert seconds is None or 0 <= seconds <= MAX_DELAY


@given(
    st.sampled_from(("gzip", "deflate", "x-gzip", "utf-8", "", "br", "gzip, deflate")),
    st.lists(st.binary(max_size=40)),
)
def test_a_coding_is_undone_within_its_bound(coding, pieces):
    with contextlib.suppress(CodingError):
        decoder = Decoder(coding, 100)
        out = b"".join([*map(decoder.feed, pieces), decoder.finish()])
        assert len(out) <= 101
        assert decoder.is_over == (len(out) == 101)
