"""The gate, the backoff and the checks of answers: pure functions of the time handed in."""

from __future__ import annotations

import gzip
import itertools
import statistics
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from pydantic import ValidationError

from pipeline.web.attempts import (
    append_range,
    delay_before_retry,
    join_ranges,
    resume_headers,
)
from pipeline.web.failures import FAILURE_KINDS, kind_of_status
from pipeline.web.politeness import HostLimiter, Politeness
from pipeline.web.responses import (
    RawResponse,
    RequestFailure,
    check_response,
    decompress,
)
from pipeline.web.transfers import TransferTimeouts, retry_after


def finish(
    gate: HostLimiter, now: float, kind: str | None = None, after: float | None = None
) -> None:
    with gate.lock:
        gate.finish(now, kind, after)


def starts(
    gate: HostLimiter, until: float, kind: str | None = None, start: float = 0.0
) -> list[float]:
    """When requests start, if each is over at once and the next waits its turn."""
    now, times = start, []
    while now < until:
        now += gate.delay(now)
        gate.start(now)
        finish(gate, now, kind)
        times.append(now)
    return times


def test_the_rate_is_kept():
    times = starts(HostLimiter(Politeness(rate=4)), 10)
    assert len(times) in (40, 41)
    assert min(b - a for a, b in itertools.pairwise(times[1:])) >= 0.25 - 1e-9


def test_a_high_rate_may_be_late_by_a_little_but_not_saved_up():
    gate = HostLimiter(Politeness(rate=1000))
    starts(gate, 1)
    idle = 60.0
    burst = 0
    while gate.delay(idle) == 0:
        gate.start(idle)
        finish(gate, idle)
        burst += 1
    assert 40 <= burst <= 60  # a twentieth of a second's worth, whatever the pause was


def test_no_more_than_the_concurrency_at_a_time():
    gate = HostLimiter(Politeness(rate=1000, concurrency=2))
    gate.start(0)
    gate.start(1)
    assert gate.delay(2) == float("inf")
    finish(gate, 2)
    assert gate.delay(2) == 0


def test_429_and_503_slow_down_and_successes_bring_the_rate_back():
    gate = HostLimiter(Politeness(rate=10))
    for kind, slower in (("rate_limited", 2), ("unavailable", 4), ("rate_limited", 8)):
        gate.start(0)
        finish(gate, 0, kind)
        assert gate.slowdown == slower
    for _ in range(30):
        gate.start(0)
        finish(gate, 0, "rate_limited")
    assert gate.slowdown == 100
    now, slow = 1000.0, [gate.slowdown]
    for _ in range(25):
        gate.start(now)
        finish(gate, now)
        slow.append(gate.slowdown)
    assert slow == sorted(slow, reverse=True)
    assert slow[-1] == 1


def test_other_failures_leave_the_rate():
    gate = HostLimiter(Politeness(rate=10))
    gate.start(0)
    finish(gate, 0, "not_found")
    assert gate.slowdown == 1


def test_retry_after_rests_the_host():
    gate = HostLimiter(Politeness(rate=10, max_wait=60))
    gate.start(0)
    finish(gate, 1, "rate_limited", 30)
    assert gate.delay(1) == pytest.approx(30)
    assert not gate.is_unavailable(1)
    gate.start(31)
    finish(gate, 31, "rate_limited", 3600)
    assert gate.is_unavailable(31)
    assert not gate.is_unavailable(31 + 3600)


def test_a_host_that_keeps_failing_is_rested_longer_and_longer_and_probed_by_one():
    gate = HostLimiter(Politeness(rate=1000, concurrency=4, rest_after=3, backoff=1))
    now, rests = 0.0, []
    for _ in range(6):
        gate.start(now)
        finish(gate, now, "refused")
        rests.append(gate.cooldown_left(now))
        now += gate.cooldown_left(now) + 1
    assert rests == [0, 0, 8, 16, 32, 64]
    gate.start(now)
    assert gate.delay(now) == float("inf")  # one at a time
    finish(gate, now)
    assert not gate.is_probing
    assert gate.delay(now + 1) == 0


def test_crawl_delay_only_makes_it_slower():
    gate = HostLimiter(Politeness(rate=2))
    gate.crawl_delay(0.1)
    assert gate.interval == 0.5
    gate.crawl_delay(3)
    assert gate.interval == 3


def test_backoff_is_exponential_with_full_jitter():
    politeness = Politeness(backoff=1, max_backoff=10, attempts=9)
    for attempt, most in ((1, 1), (2, 2), (3, 4), (4, 8), (5, 10), (6, 10)):
        delays = [
            delay_before_retry(politeness, attempt, RequestFailure("dns")) for _ in range(2000)
        ]
        assert all(delay is not None and 0 <= delay <= most for delay in delays)
        assert statistics.mean(delays) == pytest.approx(most / 2, rel=0.1)
        assert min(delays) < 0.02 * most + 1e-9
        assert max(delays) > 0.98 * most


@pytest.mark.parametrize("kind", sorted(FAILURE_KINDS))
def test_what_is_tried_again(kind):
    politeness = Politeness(attempts=3)
    again = delay_before_retry(politeness, 1, RequestFailure(kind)) is not None
    assert again == (FAILURE_KINDS[kind] and kind not in ("host_cooldown", "quota_page"))
    assert delay_before_retry(politeness, 3, RequestFailure(kind)) is None


def test_a_server_that_says_when_is_waited_for_unless_it_is_too_long():
    politeness = Politeness(backoff=0.01, max_wait=100)
    assert delay_before_retry(politeness, 1, RequestFailure("rate_limited", retry_after=40)) == 40
    assert (
        delay_before_retry(politeness, 1, RequestFailure("rate_limited", retry_after=101)) is None
    )


NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0), (" 3 ", 3.0), ("0", 0.0), ("-5", 0.0), ("", None), ("soon", None),
        ("inf", None), ("nan", None), ("1.5", 1.5),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(days=1), usegmt=True), 0.0),
        ("Sun, 01 Mar 2026 12:00:30 +0000", 30.0),
        ("Sun Mar  1 12:00:30 2026", 30.0),
    ],
)  # fmt: skip
def test_retry_after_in_seconds_and_dates(value, seconds):
    assert retry_after(value, NOW) == seconds


def answer(status: int = 200, body: bytes = b"x", **headers: str) -> RawResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return RawResponse("http://a.example/x", status, named, body)


def test_an_opt_out_counts_only_where_the_recipe_honours_it_and_not_for_robots_txt():
    served = answer(x_robots_tag="noai")
    assert check_response(Politeness(), served).kind == "opt_out"
    overridden = check_response(Politeness(honour_opt_out=False), served)
    assert isinstance(overridden, RawResponse)
    assert [one.name for one in overridden.signals] == ["noai"]
    assert check_response(Politeness(), served, is_policy=True) is served


@pytest.mark.parametrize("status", range(100, 600))
def test_every_status_is_good_or_has_a_kind(status):
    checked = check_response(Politeness(), answer(status))
    if 200 <= status < 300 or status in (301, 302, 303, 304, 307, 308):
        assert isinstance(checked, RawResponse)
    else:
        assert checked.kind in FAILURE_KINDS
        assert checked.status == status
        assert kind_of_status(status) == checked.kind


def test_an_encoding_that_is_unknown_or_broken_is_a_failure():
    assert decompress(answer(content_encoding="zstd"), 100).kind == "protocol"
    broken = gzip.compress(b"a picture")[:10] + b"\xff\xff"
    assert decompress(answer(content_encoding="gzip", body=broken), 100).kind == "protocol"
    assert decompress(answer(content_encoding="gzip, gzip", body=broken), 100).kind == "protocol"


def test_what_is_not_in_the_coding_that_it_names_is_taken_as_it_is():
    text = b"a picture of a shell" * 9
    for coding in ("gzip", "x-gzip", "deflate", "GZIP", "identity", "utf-8", "none", "gzip,"):
        assert decompress(answer(content_encoding=coding, body=text), 1000).body == text, coding
    bare = zlib.compressobj(wbits=-15)
    for body in (
        gzip.compress(text), zlib.compress(text), bare.compress(text) + bare.flush(),
        gzip.compress(text[:50]) + gzip.compress(text[50:]), gzip.compress(text) + b"trailing",
    ):  # fmt: skip
        assert decompress(answer(content_encoding="deflate", body=body), 1000).body == text
    assert decompress(answer(content_encoding="gzip", body=b"a"), 9).body == b"a"
    assert decompress(answer(content_encoding="gzip", body=gzip.compress(text)[:-9]), 999).kind == (
        "truncated"
    )
    assert decompress(answer(content_encoding="gzip", body=gzip.compress(text)), 99).kind == (
        "too_large"
    )


# resuming


def test_only_a_body_with_a_validator_is_resumed():
    assert resume_headers(None) == {}
    assert resume_headers(answer()) == {}
    assert resume_headers(answer(etag='W/"weak"')) == {}
    assert resume_headers(answer(etag='"v"', accept_ranges="none")) == {}
    assert resume_headers(answer(etag='"v"', content_encoding="gzip")) == {}
    assert resume_headers(answer(etag='"v"', body=b"abc")) == {
        "Range": "bytes=3-",
        "If-Range": '"v"',
    }
    date = "Sun, 01 Mar 2026 12:00:30 GMT"
    assert resume_headers(answer(etag='W/"w"', last_modified=date))["If-Range"] == date


def piece(start: int, body: bytes, total: str = "6") -> RawResponse:
    end = start + len(body) - 1
    return answer(206, body, content_range=f"bytes {start}-{end}/{total}")


def test_pieces_are_joined_and_wrong_ones_refused():
    half = answer(body=b"abc", etag='"v"', content_type="image/png")
    whole = join_ranges(half, piece(3, b"def"), 100)
    assert (whole.status, whole.body) == (200, b"abcdef")
    assert whole.headers["content-length"] == "6"
    assert whole.headers["content-type"] == "image/png"
    assert join_ranges(half, piece(2, b"cdef"), 100).kind == "truncated"
    assert join_ranges(half, piece(3, b"de"), 100).kind == "truncated"
    assert join_ranges(half, piece(3, b"def", "*"), 100).body == b"abcdef"
    assert join_ranges(None, piece(3, b"def"), 100).kind == "protocol"
    assert join_ranges(half, answer(body=b"other"), 100).body == b"other"
    assert join_ranges(half, answer(416), 100).kind == "truncated"


def test_a_piece_that_breaks_off_too_is_kept():
    half = answer(body=b"ab", etag='"v"')
    assert append_range(half, piece(2, b"cd")).body == b"abcd"
    assert append_range(half, piece(1, b"cd")) is None
    assert append_range(half, None) is half
    assert append_range(None, half) is half


# the clock of one request


def test_the_clock_is_of_the_request_not_of_the_socket():
    polite = Politeness(
        first_byte_timeout=5, total_timeout=60, min_speed=100, min_speed_window=10
    )  # fmt: skip
    pace = TransferTimeouts(polite, 0)
    assert pace.timeout_kind(4.9) is None
    assert pace.timeout_kind(5.1) == "first_byte_timeout"
    pace.received(0, 5)
    for second in range(5, 60):
        pace.received(200, second)
        assert pace.timeout_kind(second) is None
    assert pace.timeout_kind(60.1) == "total_timeout"

    dripping = TransferTimeouts(polite, 0)
    outcomes = []
    for second in range(1, 30):
        dripping.received(50, second)
        outcomes.append(dripping.timeout_kind(second))
    assert outcomes[:9] == [None] * 9
    assert "too_slow" in outcomes


@pytest.mark.parametrize(
    "wrong", [{"rate": 0}, {"concurrency": 0}, {"speed": 3}, {"contact": "a b"}]
)
def test_a_table_with_a_mistake_is_refused(wrong):
    with pytest.raises(ValidationError):
        Politeness(**wrong)


def test_mediawiki_says_that_it_is_busy_with_a_status_of_200():
    headers = {"mediawiki-api-error": "maxlag", "retry-after": "5"}
    busy = check_response(
        Politeness(), RawResponse("https://a.example/api.php", 200, headers, b"{}")
    )
    assert isinstance(busy, RequestFailure)
    assert (busy.kind, busy.retry_after, busy.retryable) == ("unavailable", 5.0, True)
    other = {"mediawiki-api-error": "badcontinue"}
    answer = RawResponse("https://a.example/api.php", 200, other, b"{}")
    assert check_response(Politeness(), answer) is answer
