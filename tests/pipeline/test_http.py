"""Pages over real HTTP on loopback: the same table of faults, turns, robots.txt, addresses."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import socket
import ssl
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.errors import Failure
from pipeline.fetcher import Fetcher, Politeness
from pipeline.web import connections, curl_transfer
from pipeline.web.bulk_fetcher import BulkFetcher
from pipeline.web.failures import FAILURE_KINDS
from pipeline.web.responses import Response
from tests.helpers.both_transports import (
    get,
    get_either_way,
    get_in_bulk,
    kind,
    polite,
    with_robots,
)
from tests.helpers.faulty_site import ATTEMPTS, GOOD, ROWS, FaultySite, Row, first, serve, status


@pytest.fixture(scope="module")
def pages() -> tuple[FaultySite, dict[str, Response | Failure]]:
    """Each row that is about more than pictures, by a fetcher of its own."""
    rows = [row for row in ROWS if "image" not in row.tags]
    with FaultySite() as site, ThreadPoolExecutor(16) as pool:
        outcomes = dict(zip(
            [row.path for row in rows],
            pool.map(get, [site.url(row.path) for row in rows]),
            strict=True,
        ))  # fmt: skip
    return site, outcomes


def test_pages_fail_by_the_same_table(pages):
    _, outcomes = pages
    kinds = {path: kind(outcome) for path, outcome in outcomes.items()}
    assert kinds == {row.path: row.kind for row in ROWS if row.path in outcomes}


def test_the_outcome_comes_with_the_kind_and_good_bodies_are_whole(pages):
    _, outcomes = pages
    for row in ROWS:
        outcome = outcomes.get(row.path)
        if isinstance(outcome, Failure):
            assert outcome.retryable == FAILURE_KINDS[outcome.kind]
            if row.attempts:
                assert outcome.attempts == row.attempts, row.path
        elif outcome is not None:
            assert outcome.body == row.data, row.path


def test_a_page_that_has_not_changed_is_an_answer():
    with FaultySite() as site:
        site.rows["/p"] = site.rows["/strange"]
        with Fetcher(polite()) as fetcher:
            answer = fetcher.get(site.url("/p"), stage="x", headers={"If-None-Match": '"a"'})
        assert answer.status == 304
        assert site.seen[-1]["if-none-match"] == '"a"'


def test_the_user_agent_says_who_and_how_to_reach_us(monkeypatch):
    monkeypatch.setenv("SHELLGAN_CONTACT", "mailto:someone@example.org")
    with FaultySite() as site:
        get_either_way(site.url("/good.jpg"))
        agents = {headers["user-agent"] for headers in site.seen}
    assert len(agents) == 1
    assert agents.pop().startswith("ShellGAN/")
    assert Politeness(contact="https://a.example").full_user_agent.endswith("+https://a.example)")


def test_a_reused_handle_carries_no_headers_over(faulty_site):
    """A resumed transfer must not leave its Range behind."""
    urls = [faulty_site.url("/resumable"), faulty_site.url("/good.jpg")]
    with BulkFetcher[str](polite(), "x", slots=1) as bulk:
        for url in urls:
            bulk.add(url, url)
            while bulk.pending:
                bulk.poll(0.1)
    last = faulty_site.seen[-1]
    assert last["path"] == "/good.jpg"
    assert "range" not in last


@pytest.mark.parametrize("mine", ["", "mine=3"])
def test_a_site_gets_its_cookies_back_but_not_very_many(mine):
    with FaultySite() as site:
        pages = [f"/page-{number}" for number in range(120)]
        for path in pages:
            site.rows[path] = Row(path, serve(GOOD, Set_Cookie=f"{path[1:]}=1; Path=/"))
        with Fetcher(polite(headers={"Cookie": mine} if mine else {})) as fetcher:
            for path in pages:
                fetcher.get(site.url(path), stage="x")
        sent = [headers.get("cookie", "") for headers in site.seen if "page" in headers["path"]]
    if mine:
        assert set(sent) == {mine}
    else:
        assert sent[:3] == ["", "page-0=1", "page-0=1; page-1=1"]
        assert 30 < max(text.count("=") for text in sent) <= 50


def test_cookies_of_other_sites_and_new_values_remove_none():
    pages = [f"/page-{number}" for number in range(50)]
    with FaultySite() as site, FaultySite() as other:
        for number, path in enumerate(pages):
            site.rows[path] = Row(path, serve(GOOD, Set_Cookie=f"{number}=1; Path=/"))
            other.rows[path] = Row(path, serve(GOOD, Set_Cookie=f"{number}=1; Path=/"))
        site.rows["/again"] = Row("/again", serve(GOOD, Set_Cookie="0=2; Path=/"))
        with Fetcher(polite()) as fetcher:
            for path in (*pages, "/again", "/again"):
                fetcher.get(site.url(path), stage="x")
            for path in pages:
                fetcher.get(other.url(path).replace("127.0.0.1", "localhost"), stage="x")
            fetcher.get(site.url("/again"), stage="x")
        sent = [headers.get("cookie", "") for headers in site.seen if headers["path"] == "/again"]
    assert [text.count("=") for text in sent] == [50, 50, 50]
    assert "0=2" in sent[-1]


# robots.txt


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ("User-agent: *\nDisallow: /", "/good.jpg", "robots"),
        ("User-agent: *\nDisallow: /\nAllow: /good", "/good.jpg", None),  # the longest rule wins
        ("User-agent: *\nDisallow: /*.jpg$", "/good.jpg", "robots"),
        ("User-agent: *\nDisallow: /*.jpg$", "/good.png", None),
        ("User-agent: ShellGAN\nDisallow: /\n\nUser-agent: *\nDisallow:", "/good.jpg", "robots"),
        ("User-agent: otherbot\nDisallow: /", "/good.jpg", None),
        ("<html>not robots</html>", "/good.jpg", None),
    ],
)
def test_robots_rules(text, path, expected):
    with with_robots(text) as site:
        assert [kind(one) for one in get_either_way(site.url(path))] == [expected] * 2
        assert [kind(one) for one in get_either_way(site.url(path), obey_robots=False)] == [
            None
        ] * 2


def test_robots_are_not_asked_about_the_address_of_an_api_and_are_about_all_else():
    with with_robots("User-agent: *\nDisallow: /") as site:
        rules = {"robots_except": (site.url("/good.jpg?api="),)}
        assert [kind(one) for one in get_either_way(site.url("/good.jpg?api=1"), **rules)] == [
            None
        ] * 2
        assert site.times("/robots.txt") == []
        assert [kind(one) for one in get_either_way(site.url("/good.jpg"), **rules)] == [
            "robots"
        ] * 2


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("404 Not Found", None), ("403 Forbidden", None), ("500 Oops", "robots_unreachable")],
)
def test_robots_that_cannot_be_had(answer, expected):
    with FaultySite(robots=status(answer)) as site:
        assert [kind(one) for one in get_either_way(site.url("/good.jpg"))] == [expected] * 2


def test_robots_are_asked_for_once_a_host_and_again_after_trouble():
    with FaultySite(robots=first(ATTEMPTS, status("503 Busy"), serve(b""))) as site:
        with Fetcher(polite(max_wait=0.3)) as fetcher:
            assert kind(fetcher.get(site.url("/good.jpg"), stage="x")) == "robots_unreachable"
            assert len(site.times("/robots.txt")) == ATTEMPTS
            time.sleep(0.35)
            for _ in range(3):
                assert kind(fetcher.get(site.url("/good.jpg"), stage="x")) is None
        assert len(site.times("/robots.txt")) == ATTEMPTS + 1


def test_crawl_delay_spaces_the_requests():
    with with_robots("User-agent: *\nCrawl-delay: 0.25") as site:
        get_in_bulk([site.url(f"/good.jpg?{n}") for n in range(4)])
        times = site.times("/good.jpg")
        assert min(b - a for a, b in itertools.pairwise(times)) >= 0.24


# turns


def test_the_rate_and_the_concurrency_of_a_host_are_kept():
    busy, most, lock = 0, 0, threading.Lock()

    def count(request) -> None:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.03)
        with lock:
            busy -= 1
        request.answer(GOOD)

    with FaultySite() as site:
        site.rows["/c"] = type(ROWS[0])("/c", count)
        urls = [site.url(f"/c?{n}") for n in range(24)]
        outcomes = get_in_bulk(urls, concurrency=3, rate=1000)
        with Fetcher(polite(concurrency=3, rate=1000)) as fetcher, ThreadPoolExecutor(12) as pool:
            list(pool.map(lambda url: fetcher.get(url, stage="x"), urls))
        assert len(outcomes) == 24
        assert 2 <= most <= 3
        site.log.clear()
        get_in_bulk(urls[:6], rate=20, obey_robots=False)
        times = site.times("/c")
        assert times[-1] - times[0] >= 5 / 20 - 0.01


def test_a_slow_host_holds_up_nobody_else(faulty_site):
    slow = [faulty_site.url("/never", host=f"s{n}.localhost") for n in range(3)]
    quick = [faulty_site.url(f"/good.jpg?{n}", host=f"q{n % 4}.localhost") for n in range(40)]
    outcomes = list(get_in_bulk([*slow, *quick]))
    assert set(outcomes[-3:]) == set(slow)


def test_a_dead_host_is_rested_and_then_given_up():
    with FaultySite() as site:
        dead = [f"http://dead.localhost:1/{n}" for n in range(30)]
        alive = [site.url(f"/good.jpg?{n}") for n in range(5)]
        outcomes = get_in_bulk(
            [*dead, *alive], rest_after=3, backoff=0.01, max_wait=0.2, obey_robots=False
        )
    kinds = [kind(outcomes[url]) for url in dead]
    assert set(kinds) == {"refused", "host_cooldown"} or set(kinds) == {"host_cooldown"}
    assert all(outcomes[url].retryable for url in dead)
    assert all(kind(outcomes[url]) is None for url in alive)


def test_a_retry_after_of_a_day_is_not_waited_for(faulty_site):
    url = faulty_site.url("/much-later")
    others = [faulty_site.url(f"/good.jpg?{n}") for n in range(3)]
    outcomes = get_in_bulk([url, *others], concurrency=1)
    assert kind(outcomes[url]) == "rate_limited"
    assert {kind(outcomes[other]) for other in others} == {"host_cooldown"}
    with Fetcher(polite()) as fetcher:
        assert kind(fetcher.get(url, stage="x")) == "rate_limited"
        assert kind(fetcher.get(others[0], stage="x")) == "host_cooldown"


def test_a_host_that_does_not_take_the_connection():
    """A listening socket whose queue is full: the kernel drops what else knocks."""
    with socket.socket() as listening, contextlib.ExitStack() as stack:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            knock = stack.enter_context(socket.socket())
            knock.setblocking(False)
            knock.connect_ex(listening.getsockname())
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/x"
        for outcome in get_either_way(url, connect_timeout=0.2, obey_robots=False, attempts=2):
            assert kind(outcome) == "connect_timeout"
            assert outcome.retryable
            assert outcome.attempts == 2


# addresses


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_private_addresses_are_refused(faulty_site, host):
    for outcome in get_either_way(faulty_site.url("/good.jpg", host=host), allow_private=False):
        assert kind(outcome) == "private_address"
        assert not outcome.retryable
        assert outcome.attempts == 1
    assert not faulty_site.log


def test_a_redirect_into_the_private_net_is_refused(faulty_site, monkeypatch):
    """127.0.0.1 plays a public host; the redirect leads to 127.0.0.2."""
    with FaultySite(address="127.0.0.2") as inside:
        from tests.helpers.faulty_site import Row, redirect

        faulty_site.rows["/trap"] = Row("/trap", redirect(inside.url("/good.jpg")))
        for module in (curl_transfer, connections):
            monkeypatch.setattr(module, "is_public", lambda address: address == "127.0.0.1")
        for outcome in get_either_way(faulty_site.url("/trap"), allow_private=False):
            assert kind(outcome) == "private_address"
        assert not inside.log
        assert faulty_site.times("/trap")


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
     "0.0.0.0", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1",
     "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "nonsense", "",
     "64:ff9b:1::1", "64:ff9b:1::808:808", "::127.0.0.1", "::8.8.8.8", "fec0::1", "feff::1",
     "::ffff:0:127.0.0.1", "::ffff:0:8.8.8.8", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2",
     "2001:db8::1", "3fff::1", "5f00::1", "100::1", "ff02::1", "2606:4700::5efe:10.0.0.1",
     "2606:4700::200:5efe:127.0.0.1", "192.0.0.8", "192.0.0.170", "192.0.0.192", "192.0.2.1",
     "192.88.99.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "240.0.0.1", "168.63.129.16",
     "2002:a00:1::1", "2001:20::1", "4000::1", "127.1", "0x7f000001"],
)  # fmt: skip
def test_addresses_that_are_not_public(address):
    assert not connections.is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "93.184.216.34",
        "2606:4700::1111",
        "64:ff9b::101:101",
        "::ffff:1.1.1.1",
        "2002:101:101::1",
        "2a00:1450:4001::5efe:1.1.1.1",
    ],
)
def test_addresses_that_are(address):
    assert connections.is_public(address)


# TLS


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
def test_certificates_are_checked(tmp_path: Path, monkeypatch):
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-keyout", key, "-out", certificate, "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(GOOD)))
            self.end_headers()
            self.wfile.write(GOOD)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass  # the client hung up, as it should

    server = Server(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        url = f"https://127.0.0.1:{server.server_port}/x"
        assert [kind(one) for one in get_either_way(url, obey_robots=False)] == ["tls"] * 2
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        for outcome in get_either_way(url, obey_robots=False):
            assert kind(outcome) is None
            assert outcome.body == GOOD
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
