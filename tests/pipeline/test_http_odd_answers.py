"""Answers that no server should give, over real HTTP by both transports: each ends in one failure
of a known kind or in the body, and a good neighbour still arrives."""

from __future__ import annotations

import contextlib
import errno
import gzip
import socket
import time
import tracemalloc

import pytest

from pipeline.errors import Failure
from pipeline.fetcher import Fetcher
from pipeline.web.bulk_fetcher import BulkFetcher
from pipeline.web.curl_transport import CurlTransport
from tests.helpers.both_transports import (
    get,
    get_either_way,
    get_in_bulk,
    kind,
    polite,
    with_robots,
)
from tests.helpers.faulty_site import GOOD, FaultySite, Row, first, redirect, serve

OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % len(GOOD)


def raw(head: bytes, body: bytes = GOOD):
    """An answer of these bytes, and the end of the connection."""

    def behave(request) -> None:
        with contextlib.suppress(OSError):
            request.send(head + b"\r\n" + body)
        request.hang_up()

    return behave


def flood(line: bytes, times: int):
    def behave(request) -> None:
        with contextlib.suppress(OSError):
            request.send(b"HTTP/1.1 200 OK\r\n")
            for _ in range(times):
                request.send(line * 100)
        request.hang_up()

    return behave


def interim(line: bytes, times: int):
    def behave(request) -> None:
        with contextlib.suppress(OSError):
            for _ in range(times):
                request.send((line + b"\r\n\r\n") * 10)
            request.send(OK + b"\r\n" + GOOD)
        request.hang_up()

    return behave


def move(location: bytes):
    return raw(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n", b"")


def get_after_close(fetcher: Fetcher, url: str):
    """The outcome of a request after the server has closed the connection: a client that reuses
    it may notice too late, and then succeeds with the next attempt."""
    outcome = fetcher.get(url, stage="x")
    return fetcher.get(url, stage="x") if kind(outcome) == "connection_lost" else outcome


def both(behave, **changes) -> list[str | None]:
    """The kinds by both transports; a neighbour on the same host must arrive beside it."""
    kinds = []
    with FaultySite() as site:
        site.rows["/odd"] = Row("/odd", behave)
        url, neighbour = site.url("/odd"), site.url("/good.jpg")
        rules = {"attempts": 1, "rest_after": 9, **changes}
        with Fetcher(polite(**rules)) as fetcher:
            kinds.append(kind(fetcher.get(url, stage="x")))
            assert get_after_close(fetcher, neighbour).body == GOOD
        outcomes = get_in_bulk([url, neighbour], **rules)
        assert len(outcomes) == 2
        assert outcomes[neighbour].body == GOOD
        kinds.append(kind(outcomes[url]))
    return kinds


# redirects


@pytest.mark.parametrize(
    "location",
    [
        b"http://[::1/x.jpg", b"http://a..example/", b"http://" + b"a" * 64 + b".example/",
        b"http://h:99999/", "http://h:\N{ARABIC-INDIC DIGIT THREE}/".encode(), b"http://[fe80::1%25lo]/x",
        b"http://[v1.a]/", b"", b" ", b"/\x01x.jpg", b"/" + b"a" * 20_000, b"ftp://127.0.0.1/x",
        b"javascript:alert(1)", b"data:image/png;base64,AAAA", b"file:///etc/passwd",
        b"http://\xff\xfe/", b"http://h:port/", b"https:/\x7f",
    ],
)  # fmt: skip
def test_a_redirect_to_what_is_no_address_is_one_failure(location):
    assert both(move(location)) == ["bad_redirect"] * 2


def test_a_location_of_64_kb_is_one_failure():
    assert set(both(move(b"/" + b"a" * 70_000))) <= {"bad_redirect", "protocol"}


@pytest.mark.parametrize(
    ("location", "path"),
    [
        (b"/good.jpg?a b", "/good.jpg?a+b"),
        (b"/1 (6).jpg", "/1%20(6).jpg"),
        ("/\N{SNAIL}.jpg".encode(), "/%F0%9F%90%8C.jpg"),
        (b"/m\xfcschel.jpg", "/m%FCschel.jpg"),
        ("/à".encode(), "/%C3%A0"),
        (b"/%C3%A0?sig=%2B%2F", "/%C3%A0?sig=%2B%2F"),
        (b"  /good.jpg#part\t", "/good.jpg"),
        (b"\\good.jpg", "/good.jpg"),
    ],
)
def test_a_location_is_taken_as_bytes(location, path):
    with FaultySite() as site:
        asked = []
        site.rows["/odd"] = Row("/odd", move(location))
        bare = path.partition("?")[0]
        site.rows[bare] = Row(bare, lambda r: (asked.append(r.path), r.answer(GOOD))[1])
        for outcome in get_either_way(site.url("/odd")):
            assert outcome.body == GOOD
            assert outcome.url == site.url(path)
    assert asked == [path, path]


def test_a_redirect_with_a_user_and_password_is_followed_and_neither_is_kept():
    with FaultySite() as site:
        site.rows["/odd"] = Row(
            "/odd", redirect(f"http://me:s%C3%A9cret%E2%82%AC@127.0.0.1:{site.port}/good.jpg")
        )
        for outcome in get_either_way(site.url("/odd")):
            assert outcome.body == GOOD
            assert "cret" not in outcome.url


# status lines and headers


@pytest.mark.parametrize(
    "line",
    [
        b"HTTP/1.1 200gOK", b"HTTP/1.1", b"HTTP/1.1 abc OK", b"HTTP/1.1 99999 OK", b"\xff\xfe\r\n",
        b"HTTP/1.1 -200 OK", b"ICY 200 OK", b"HTTP/1.1 20 OK", b"HTTP/x.y 200 OK",
    ],
)  # fmt: skip
def test_a_malformed_status_line_is_one_failure(line):
    for found in both(raw(line + b"\r\nContent-Length: 3\r\n", b"abc")):
        assert found in ("protocol", "connection_lost")


@pytest.mark.parametrize(
    "header",
    [
        b"HTTP/Foo: bar", b"HTTP/1.1 200 OK: x", b"no colon here", b": no name", b"X: \x80\xff",
        b"ETag: \"\xe9\x80\"", b"Last-Modified: \xff", b"X-Long: " + b"a" * 60_000,
        b"Content-Type: image/jpeg; a=\xc3\xa9", b"Retry-After: 99999999999999999999999",
    ],
)  # fmt: skip
def test_an_odd_header_is_no_obstacle(header):
    found = both(raw(OK + header + b"\r\n"))
    assert set(found) <= {None, "protocol", "truncated"}
    if b":" in header and header[:1] != b":":
        assert found == [None, None]


@pytest.mark.parametrize(
    "length", [b"-5", b"1e3", b"abc", b"9" * 5000, b"5, 7", b"0x10", b"", b"\xb2"]
)
def test_an_odd_content_length_is_one_failure_or_none(length):
    for found in both(raw(b"HTTP/1.1 200 OK\r\nContent-Length: " + length + b"\r\n")):
        assert found in (None, "protocol", "too_large", "truncated", "empty")


def test_two_content_lengths():
    for found in both(raw(OK + b"Content-Length: 4\r\n")):
        assert found in (None, "protocol", "truncated")


def test_a_flood_of_headers_is_bounded():
    for found in both(flood(b"X-A: " + b"b" * 2000 + b"\r\n", 40)):
        assert found in ("protocol", "connection_lost")


@pytest.mark.parametrize(
    "line", [b"HTTP/1.1 100 Continue", b"HTTP/1.1 103 Early Hints\r\nLink: </a>"]
)
def test_a_few_interim_answers_are_read_over_and_a_flood_is_not(line):
    assert both(interim(line, 2)) == [None, None]
    found = both(interim(line, 100_000), total_timeout=3)
    assert set(found) <= {"protocol", "connection_lost"}


def test_a_body_on_a_304_does_not_spoil_the_next_answer():
    def behave(request) -> None:
        request.send(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nHTTP/")

    with FaultySite() as site:
        site.rows["/odd"] = Row("/odd", behave)
        with Fetcher(polite(concurrency=1)) as fetcher:
            assert fetcher.get(site.url("/odd"), stage="x").status == 304
            assert fetcher.get(site.url("/good.jpg"), stage="x").body == GOOD
        outcomes = get_in_bulk([site.url("/odd"), site.url("/good.jpg")], concurrency=1)
        assert outcomes[site.url("/good.jpg")].body == GOOD


@pytest.mark.parametrize(
    "value",
    [b"Fri, 31 Dec 99999 23:59:59 GMT", b"1" + b"0" * 23, b"9" * 5000, b"inf",
     b"Mon, 01 Jan 0000 00:00:00 GMT", b"Mon, 01 Jan 2027 00:00:00 +99999999999999", b"-3", b"nan"],
)  # fmt: skip
def test_an_absurd_retry_after_is_bounded(value):
    answer = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nRetry-After: " + value + b"\r\n"
    with FaultySite() as site:
        site.rows["/odd"] = Row("/odd", raw(answer, b""))
        for outcome in get_either_way(site.url("/odd"), attempts=1):
            assert kind(outcome) == "unavailable"
        long = value[:1].isdigit() or b"99999 " in value
        with Fetcher(polite(attempts=1)) as fetcher:
            fetcher.get(site.url("/odd"), stage="x")
            after = kind(get_after_close(fetcher, site.url("/good.jpg")))
        assert after == ("host_cooldown" if long else None)


# bodies


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"x-gzip", b"utf-8", b"none", b"binary"])
def test_a_coding_that_the_body_is_not_in_is_ignored(coding):
    with FaultySite() as site:
        site.rows["/odd"] = Row("/odd", raw(OK + b"Content-Encoding: " + coding + b"\r\n"))
        for outcome in get_either_way(site.url("/odd")):
            assert outcome.body == GOOD


@pytest.mark.parametrize(
    ("coding", "body", "expected"),
    [
        (b"br", GOOD, "protocol"),
        (b"zstd", GOOD, "protocol"),
        (b"gzip", gzip.compress(GOOD, mtime=0)[:-9], "truncated"),
        (b"gzip", gzip.compress(b"text", mtime=0)[:10] + b"\xff" * 40, "protocol"),
        (b"gzip, gzip", gzip.compress(gzip.compress(GOOD, mtime=0), mtime=0), "protocol"),
        (b"gzip", gzip.compress(bytes(30 << 20), mtime=0), "too_large"),
    ],
)
def test_a_coding_that_cannot_be_undone_is_the_same_failure_for_pages_and_images(
    coding, body, expected
):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Encoding: %s\r\n" % (
        len(body),
        coding,
    )
    assert both(raw(head, body)) == [expected] * 2


@pytest.mark.parametrize(
    "chunk",
    [b"-1\r\nx\r\n", b"fffffffffffffffffff\r\nx\r\n", b"zz\r\n", b"\r\n", b"5;x=\xff\r\nabc"],
)
def test_a_chunk_that_is_none_is_one_failure(chunk):
    for found in both(raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", chunk)):
        assert found in ("truncated", "protocol", "connection_lost")


@pytest.mark.parametrize(
    "etag",
    [
        b'"\xe9\x80\xff"',
        b'"a\x00b"',
        b'"a\x0bb"',
        b'W/"x"',
        b'"' + b"e" * 3000 + b'"',
        b'"a"b"',
        b"\xff",
    ],
)
@pytest.mark.parametrize("date", [b"Sun, 01 Mar 2026 12:00:30 GMT", b"\xff\x80", b"yesterday"])
def test_an_interrupted_body_with_odd_validators_is_had_in_the_end(etag, date):
    half = OK + b"ETag: " + etag + b"\r\nLast-Modified: " + date + b"\r\n"
    with FaultySite() as site:
        site.rows["/odd"] = Row("/odd", first(1, raw(half, GOOD[:500])))
        outcome = get_in_bulk([site.url("/odd")])[site.url("/odd")]
        assert outcome.body == GOOD if not isinstance(outcome, Failure) else b"\0" in etag
        again = [seen for seen in site.seen if seen["path"] == "/odd"][1:]
    for request in again:
        if "if-range" in request:
            assert request["if-range"].encode("latin-1") in (etag, date)


@pytest.mark.parametrize(
    "given",
    [
        b"bytes 500-",
        b"bytes 9-1/2",
        b"bytes " + b"9" * 5000 + b"-1/*",
        b"bytes \xb2-3/4",
        b"",
        b"items 0-4/5",
    ],
)
def test_a_range_that_was_not_asked_for_is_not_joined(given):
    part = b"HTTP/1.1 206 Partial\r\nContent-Length: 4\r\nContent-Range: " + given + b"\r\n"
    half = OK + b'ETag: "v1"\r\n'

    def behave(request) -> None:
        what = (raw(half, GOOD[:500]), raw(part, b"abcd"), serve(GOOD))[min(request.count, 2)]
        what(request)

    with FaultySite() as site:
        site.rows["/odd"] = Row("/odd", behave)
        outcome = get_in_bulk([site.url("/odd")])[site.url("/odd")]
        assert outcome.body == GOOD


def test_validators_of_a_page_go_back_as_they_came_or_not_at_all():
    with FaultySite() as site, Fetcher(polite()) as fetcher:
        for etag, sent in (
            ('"\xe9\xff"', True),
            ('"a\nb"', False),
            ('"\u20ac"', False),
            ("x" * 9999, False),
        ):
            answer = fetcher.get(site.url("/good.jpg"), stage="x", headers={"If-None-Match": etag})
            assert answer.body == GOOD
            assert (site.seen[-1].get("if-none-match") == etag) is sent


# streams without an end


def chunks(body: bytes, times: int):
    """A body in chunks of one byte each, over and over."""

    def behave(request) -> None:
        coded = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
        with contextlib.suppress(OSError):
            request.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(times):
                request.send(coded)
            request.send(b"0\r\n\r\n")
        request.hang_up()

    return behave


def test_an_image_in_chunks_of_a_byte_arrives():
    assert both(chunks(GOOD, 1), first_byte_timeout=5, total_timeout=20) == [None, None]


@pytest.mark.slow
def test_a_body_in_a_flood_of_tiny_chunks_is_cut_off_early():
    """Each piece costs memory and time, by which two MB in chunks of a byte can stop a run."""
    slow = {"first_byte_timeout": 5, "total_timeout": 60, "max_bytes": 64 << 20}
    slow["max_page_bytes"] = slow["max_bytes"]
    with FaultySite() as site:
        site.rows["/odd"] = Row("/odd", chunks(bytes(range(100)), 40_000))
        for outcome in get_either_way(site.url("/odd"), attempts=1, **slow):
            assert kind(outcome) == "protocol"
            assert outcome.detail == "a body in pieces of less than 32 bytes"


def test_the_body_of_an_answer_is_not_kept_once_it_was_handed_out(faulty_site):
    body = bytes(8 << 20)
    faulty_site.rows["/big"] = Row("/big", serve(body))
    transfers = CurlTransport(polite(max_bytes=16 << 20, total_timeout=20))
    transfers.start("big", faulty_site.url("/big"), {})
    tracemalloc.start()
    done: list = []
    while not done:
        done = transfers.poll(0.1)
    assert done[0][1].body == body
    done.clear()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    transfers.close()
    assert kept < 1 << 20


def test_what_unpacks_to_nothing_is_bounded_as_it_arrives(faulty_site):
    """Thousands of empty gzip members hold no byte, and may not be read for ever."""
    sent = []

    def behave(request) -> None:
        request.send(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n")
        end = time.monotonic() + 5
        with contextlib.suppress(OSError):
            while time.monotonic() < end:
                request.send(gzip.compress(b"") * 1000)
                sent.append(20_000)
        request.hang_up()

    faulty_site.rows["/odd"] = Row("/odd", behave)
    outcomes = get_either_way(
        faulty_site.url("/odd"), attempts=1, total_timeout=20, max_page_bytes=1 << 20
    )
    assert {kind(outcome) for outcome in outcomes} == {"too_large"}
    assert sum(sent) < 40 << 20


def test_an_address_without_a_route_is_unreachable_by_both_transports(monkeypatch):
    """Not a timeout: nothing was waited for."""

    def no_route(*_: object, **__: object) -> None:
        raise OSError(errno.EHOSTUNREACH, "No route to host")

    monkeypatch.setattr("urllib3.util.connection.create_connection", no_route)
    outcome = get("http://127.0.0.1:9/x", attempts=1)
    assert (kind(outcome), outcome.detail) == ("unreachable", "[Errno 113] No route to host")


def test_how_long_a_server_asks_to_wait_is_in_the_failure():
    answer = raw(b"HTTP/1.1 429 Slow\r\nRetry-After: 1" + b"0" * 23 + b"\r\n", b"")
    with FaultySite() as site:
        site.rows["/odd"] = Row("/odd", answer)
        for outcome in get_either_way(site.url("/odd")):
            assert (kind(outcome), outcome.detail) == ("rate_limited", "Retry-After 604800 s")


def test_a_status_line_that_is_none_is_shown():
    with FaultySite() as site:
        site.rows["/odd"] = Row("/odd", raw(b"HTTP/1.1 200gOK\r\n"))
        for outcome in get_either_way(site.url("/odd"), attempts=1):
            assert outcome.detail == "status line 'HTTP/1.1 200gOK'"


def test_a_robots_txt_that_leads_in_a_circle_has_no_rules_for_pages_and_images():
    with FaultySite(robots=redirect("/robots.txt")) as site:
        for outcome in get_either_way(site.url("/good.jpg")):
            assert kind(outcome) is None


@pytest.mark.parametrize(
    ("robots", "expected"),
    [
        (raw(b"HTTP/1.1 200gOK\r\n"), "robots.txt: status line 'HTTP/1.1 200gOK'"),
        (raw(b"HTTP/1.1 500 Broken\r\n"), "robots.txt: status 500"),
        (lambda request: request.hang(2), "robots.txt: 0 bytes by then"),
    ],
)
def test_a_page_that_waits_for_robots_txt_in_vain_says_so(robots, expected):
    with FaultySite(robots=robots) as site:
        for outcome in get_either_way(site.url("/good.jpg"), attempts=1):
            assert outcome.detail == expected


def test_why_a_host_is_left_alone_is_in_the_failure():
    answer = raw(b"HTTP/1.1 429 Slow\r\nRetry-After: 999999999\r\nContent-Length: 0\r\n", b"")
    with FaultySite(robots=answer) as site:
        page, image = get_either_way(site.url("/good.jpg"), attempts=1)
    assert page.detail == "robots.txt: status 429, Retry-After 604800 s"
    assert image.kind == "host_cooldown"
    assert image.detail.startswith("a pause requested by the server; 604")


def test_what_is_too_large_names_the_limit(faulty_site):
    page, image = get_either_way(
        faulty_site.url("/announced-too-large"), max_page_bytes=5000, max_bytes=6000
    )
    announced = f"{1 << 30} bytes announced"
    assert page.detail == f"{announced}, 5000 allowed; politeness.max_page_bytes can allow more"
    assert image.detail == f"{announced}, 6000 allowed; politeness.max_bytes can allow more"


def test_an_endless_stream_of_parts_is_refused_at_its_head(faulty_site):
    def stream(request) -> None:
        request.answer(b"", type_="multipart/x-mixed-replace; boundary=x", length=-1)
        request.drip(b"--x\r\nContent-Type: image/jpeg\r\n\r\n" + GOOD * 50, 0.01, 100_000)
        request.hang_up()

    faulty_site.rows["/odd"] = Row("/odd", stream)
    for outcome in get_either_way(faulty_site.url("/odd")):
        assert kind(outcome) == "wrong_type"
        assert outcome.attempts == 1


@pytest.mark.parametrize("etag", ["", '"v1"'])
def test_a_body_that_never_ends_is_asked_for_once(faulty_site, etag):
    def stream(request) -> None:
        headers = {"ETag": etag} if etag else {}
        request.answer(b"", length=-1, **headers)
        request.drip(bytes(4 << 20), 0.02, 400)
        request.hang_up()

    faulty_site.rows["/odd"] = Row("/odd", stream)
    for outcome in get_either_way(faulty_site.url("/odd"), total_timeout=0.7):
        assert kind(outcome) == "total_timeout"
        assert outcome.attempts == 1
        assert "still arriving" in outcome.detail


def test_an_error_with_an_endless_body_is_that_error(faulty_site):
    def behave(request) -> None:
        request.answer(b"", status="404 Not Found", length=-1)
        with contextlib.suppress(OSError):
            for _ in range(50):
                request.send(bytes(1 << 16))
                time.sleep(0.02)
        request.hang_up()

    faulty_site.rows["/odd"] = Row("/odd", behave)
    for outcome in get_either_way(faulty_site.url("/odd")):
        assert kind(outcome) == "not_found"


# addresses


class _SixSite(FaultySite):
    """The same site on [::1]."""


@pytest.fixture
def six_site(monkeypatch):
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 on this machine")
    import socketserver

    monkeypatch.setattr(socketserver.ThreadingTCPServer, "address_family", socket.AF_INET6)
    with FaultySite(address="::1", robots=serve(b"User-agent: *\nDisallow: /private/\n")) as site:
        site.address = "[::1]"
        yield site


def test_ipv6_literals_work_with_their_robots_txt_and_redirects(six_site):
    target = six_site.url("/good.jpg")
    six_site.rows["/to-six"] = Row("/to-six", redirect(target))
    for outcome in (*get_either_way(target), *get_either_way(six_site.url("/to-six"))):
        assert outcome.body == GOOD
        assert outcome.url == target
    for outcome in get_either_way(six_site.url("/private/x.jpg")):
        assert kind(outcome) == "robots"
    assert {host for host, _, _ in six_site.log} == {f"[::1]:{six_site.port}"}
    for outcome in get_either_way(target, allow_private=False):
        assert kind(outcome) == "private_address"


@pytest.mark.parametrize(
    "host",
    ["2130706433", "0x7f.1", "0177.0.0.1", "127.1", "0", "[::ffff:127.0.0.1]", "[::127.0.0.1]",
     "[::ffff:0:127.0.0.1]", "[64:ff9b:1::7f00:1]", "[64:ff9b::127.0.0.1]", "[fec0::1]",
     "169.254.169.254"],
)  # fmt: skip
def test_spellings_of_private_addresses_are_refused_also_behind_a_redirect(host, monkeypatch):
    from pipeline.web import connections, curl_transfer
    from pipeline.web.connections import is_public

    with FaultySite() as site:
        site.rows["/trap"] = Row("/trap", redirect(f"http://{host}:{site.port}/good.jpg"))
        for outcome in get_either_way(f"http://{host}:{site.port}/good.jpg", allow_private=False):
            assert kind(outcome) == "private_address"
        for module in (curl_transfer, connections):  # 127.0.0.2 plays a public host
            monkeypatch.setattr(
                module, "is_public", lambda one: one == "127.0.0.2" or is_public(one)
            )
        trap = f"http://127.0.0.2:{site.port}/trap"
        with FaultySite(address="127.0.0.2") as outside:
            outside.rows["/trap"] = site.rows["/trap"]
            trap = outside.url("/trap")
            for outcome in get_either_way(trap, allow_private=False):
                assert kind(outcome) == "private_address"
        assert not site.log


def test_a_name_with_a_public_and_a_private_address_is_refused(monkeypatch):
    from pipeline.web import connections

    monkeypatch.setattr(connections, "resolve", lambda *_: ["93.184.216.34", "10.0.0.1"])
    assert kind(get("http://mixed.example/x", allow_private=False, attempts=1)) == "private_address"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_name_that_leads_elsewhere_when_asked_again_gets_no_byte(scheme, monkeypatch):
    from pipeline.web import connections

    monkeypatch.setattr(connections, "resolve", lambda *_: ["93.184.216.34"])
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"{scheme}://localhost:{server.getsockname()[1]}/x"
        found = get(url, allow_private=False, attempts=1, obey_robots=False)
        assert kind(found) == "private_address"
        server.settimeout(10)
        peer, _ = server.accept()
        with peer:
            peer.settimeout(10)
            assert peer.recv(100) == b""


@pytest.mark.parametrize(
    "url",
    ["http://a..example/", "http://" + "a" * 64 + ".example/x", "http://h:99999/", "http://h:\u0663/",
     "http://[fe80::1%25eth0]/", "http://[::1/x", "http://", "ftp://h/", "http://h/\x00", "http://\ud83d/",
     "http://[v1.x]/", "http://1.2.3.4.5/", "http://h:0/", "\ud83d", "http://a b/"],
)  # fmt: skip
def test_a_url_that_cannot_be_requested_is_one_failure(url, faulty_site):
    good = faulty_site.url("/good.jpg")
    assert kind(get(url)) == "bad_url"
    outcomes = get_in_bulk([url, good])
    assert kind(outcomes[url]) == "bad_url"
    assert outcomes[good].body == GOOD


@pytest.mark.parametrize(
    "url", ["http://-/", "http://~/", "http://_.invalid/", "http://a-.invalid/"]
)
def test_a_name_that_nobody_has_is_one_failure(url):
    for outcome in get_either_way(url, attempts=1, obey_robots=False):
        assert kind(outcome) in ("dns", "bad_url")


# robots.txt


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_a_robots_txt_with_a_byte_order_mark_is_obeyed(encoding):
    text = "User-agent: *\nDisallow: /good\n".encode(encoding)
    if encoding == "utf-16-be":
        text = b"\xfe\xff" + text
    with FaultySite(robots=serve(text, type_="text/plain")) as site:
        for outcome in get_either_way(site.url("/good.jpg")):
            assert kind(outcome) == "robots"
        for outcome in get_either_way(site.url("/1%20(6).jpg")):
            assert outcome.body == GOOD


@pytest.mark.parametrize(
    ("size", "end"), [(600_000, b"\n"), (600_000, b"\r"), (80 << 20, b"\n")],
    ids=["LF", "CR", "huge"],
)  # fmt: skip
def test_of_a_large_robots_txt_the_beginning_is_read(size, end):
    start = b"User-agent: *\nDisallow: /private/\n"

    def behave(request) -> None:
        with contextlib.suppress(OSError):
            request.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            request.send(start.replace(b"\n", end))
            for _ in range(size // 65536):
                request.send((b"# comment" + end) * 6554)
            request.send(b"\nUser-agent: *\nDisallow: /good\n".replace(b"\n", end))
        request.hang_up()

    with FaultySite(robots=behave) as site:
        assert [kind(one) for one in get_either_way(site.url("/private/x.jpg"))] == ["robots"] * 2
        assert [kind(one) for one in get_either_way(site.url("/good.jpg"))] == [None] * 2


def test_a_robots_txt_that_redirects_to_nowhere_has_no_rules():
    for target in (b"http://[::1/robots.txt", b"ftp://x/robots.txt", b""):
        with FaultySite(robots=move(target)) as site:
            assert [kind(one) for one in get_either_way(site.url("/good.jpg"))] == [None] * 2


@pytest.mark.slow
def test_a_robots_txt_of_thousands_of_agents_and_rules_is_read_at_once():
    agents = "".join(f"User-agent: a{n}\n" for n in range(12_000))
    rules = "".join(f"Disallow: /{n}\n" for n in range(12_000))
    with with_robots(f"{agents}User-agent: *\n{rules}Disallow: /good\n") as site:
        began = time.process_time()
        assert [kind(one) for one in get_either_way(site.url("/good.jpg"))] == ["robots"] * 2
        assert time.process_time() - began < 10


def test_a_robots_txt_that_the_parser_breaks_on_is_no_permission(monkeypatch):
    from protego import Protego

    def broken(*_: object) -> None:
        raise RuntimeError("odd")

    with FaultySite() as site:
        monkeypatch.setattr(Protego, "can_fetch", broken)
        for outcome in get_either_way(site.url("/good.jpg")):
            assert kind(outcome) == "robots_unreachable"
        monkeypatch.setattr(Protego, "parse", broken)
        for outcome in get_either_way(site.url("/good.jpg")):
            assert kind(outcome) == "robots_unreachable"


# the boundary


def test_a_bug_ends_its_own_url_alone(faulty_site, monkeypatch):
    from pipeline.web import attempts

    def broken(answer):
        if answer.url.endswith("/moved"):
            raise ZeroDivisionError("a bug")
        return original(answer)

    original = attempts.redirect_target
    monkeypatch.setattr(attempts, "redirect_target", broken)
    bad, good = faulty_site.url("/moved"), faulty_site.url("/good.jpg")
    with Fetcher(polite()) as fetcher:
        outcome = fetcher.get(bad, stage="x")
        assert kind(outcome) == "internal"
        assert "ZeroDivisionError: a bug" in outcome.detail
        assert fetcher.get(good, stage="x").body == GOOD
    outcomes = get_in_bulk([bad, good], concurrency=1)
    assert kind(outcomes[bad]) == "internal"
    assert "ZeroDivisionError: a bug" in outcomes[bad].detail
    assert outcomes[good].body == GOOD


def test_a_check_that_breaks_ends_its_own_url_alone(faulty_site):
    def check(answer):
        if answer.url.endswith(".png"):
            raise MemoryError
        return

    urls = [faulty_site.url("/good.png"), faulty_site.url("/good.jpg")]
    outcomes = {}
    with BulkFetcher[str](polite(concurrency=1), "x", check=check) as bulk:
        for url in urls:
            bulk.add(url, url)
        while bulk.pending:
            outcomes.update(bulk.poll(0.1))
    assert kind(outcomes[urls[0]]) == "internal"
    assert outcomes[urls[1]].body == GOOD


# sizes


def test_a_page_has_a_limit_of_its_own():
    with FaultySite() as site:
        site.rows["/big"] = Row("/big", serve(b"x" * 5000, type_="text/html"))
        site.rows["/streamed"] = Row("/streamed", raw(b"HTTP/1.1 200 OK\r\n", b"x" * 5000))
        packed = gzip.compress(bytes(5000))
        site.rows["/packed"] = Row("/packed", serve(packed, Content_Encoding="gzip"))
        with Fetcher(polite(max_page_bytes=4000)) as fetcher:
            for path in ("/big", "/streamed", "/packed"):
                assert kind(fetcher.get(site.url(path), stage="x")) == "too_large"
                large = fetcher.get(site.url(path), stage="x", max_bytes=6000)
                assert len(large.body) == 5000
        outcomes = get_in_bulk([site.url("/big")], max_page_bytes=4000)
        assert len(outcomes[site.url("/big")].body) == 5000  # the limit of images is another
