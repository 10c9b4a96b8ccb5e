"""The request policy without sockets: a driver of ten lines, a clock of its own, scripted hosts."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.web.host_queue import FetchJob, HostQueue
from pipeline.web.hosts import Host, Hosts
from pipeline.web.politeness import Politeness
from pipeline.web.request import Done, FetchFile, Request, Send, WaitUntil
from pipeline.web.responses import RawResponse, RequestFailure

Server = Callable[[str], RawResponse | RequestFailure]
A, B = "http://a.example", "http://b.example"


def response(url: str, status: int = 200, body: bytes = b"", **headers: str) -> RawResponse:
    return RawResponse(url, status, {k.replace("_", "-"): v for k, v in headers.items()}, body)


class World:
    """Hosts, a clock and what was sent."""

    def __init__(self, server: Server, **rules: object) -> None:
        rules = {"rate": 1.0, "attempts": 3, "backoff": 1.0, "max_wait": 100.0, **rules}
        self.hosts = Hosts(Politeness(**rules), Host)
        self.server = server
        self.now = 0.0
        self.sent: list[tuple[float, Send]] = []
        self.waits: list[WaitUntil] = []

    def run(self, request: Request[Host]) -> RawResponse | RequestFailure:
        while True:
            action = request.next(self.now)
            if isinstance(action, Done):
                return action.outcome
            if isinstance(action, WaitUntil):
                assert action.time > self.now
                self.waits.append(action)
                self.now = action.time
            elif isinstance(action, FetchFile):
                action.host.take_file(action.url, self.run(action.request), self.now)
            else:
                self.sent.append((self.now, action))
                request.receive(self.server(action.url), self.now)

    def get(self, url: str, **options) -> RawResponse | RequestFailure:
        return self.run(Request(self.hosts, url, **options))

    @property
    def paths(self) -> list[str]:
        return [send.url for _, send in self.sent]


def site(pages: dict[str, RawResponse | RequestFailure]) -> Server:
    """Every other URL is a 404."""
    return lambda url: pages.get(url, response(url, 404))


def test_policy_files_come_before_the_first_page_and_once_per_host():
    world = World(site({f"{A}/1": response(f"{A}/1"), f"{A}/2": response(f"{A}/2")}))
    assert world.get(f"{A}/1").status == 200
    assert world.get(f"{A}/2").status == 200
    assert [path.rpartition("/")[2] for path in world.paths] == [
        "robots.txt",
        "tdmrep.json",
        "1",
        "2",
    ]
    times = [time for time, _ in world.sent]
    assert times == [0, 1, 2, 3]


def test_what_robots_txt_forbids_is_not_sent_also_behind_a_redirect():
    robots = response(f"{B}:80/robots.txt", body=b"User-agent: *\nDisallow: /x")
    moved = response(f"{A}/1", 302, location=f"{B}/x")
    world = World(lambda url: robots if url.startswith(B) and "robots" in url else
                  moved if url == f"{A}/1" else response(url, 404))  # fmt: skip
    assert world.get(f"{A}/1").kind == "robots"
    assert f"{B}/x" not in world.paths


def test_an_opt_out_of_the_first_hop_holds_at_the_last():
    pages = {
        f"{A}/1": response(f"{A}/1", 302, location=f"{A}/2", x_robots_tag="noai"),
        f"{A}/2": response(f"{A}/2"),
    }
    world = World(site(pages), obey_robots=False)
    assert world.get(f"{A}/1").kind == "opt_out"
    assert f"{A}/2" not in world.paths


def test_other_requests_wait_while_one_fetches_a_policy_file():
    world = World(site({}))
    first, second = (Request(world.hosts, f"{A}/{n}") for n in "12")
    file = first.next(0)
    assert isinstance(file, FetchFile)
    assert isinstance(second.next(0), WaitUntil)
    file.host.take_file(file.url, response(file.url), 0)
    assert isinstance(second.next(0), FetchFile)  # of the next file
    assert isinstance(first.next(0), WaitUntil)


def test_a_policy_file_goes_before_pages_that_came_earlier_or_by_a_redirect():
    host = HostQueue[str](A, Politeness())
    hosts = Hosts(Politeness(), HostQueue)
    page = FetchJob("page", Request(hosts, f"{A}/1"))
    host.queue.append(page)
    host.is_fetching = True
    assert not host.has_next
    action = Request(hosts, f"{A}/2").next(0)
    file = FetchJob(None, action.request, action)
    host.files.append(file)
    host.queue.appendleft(page)
    assert host.has_next
    assert host.take_next() is file


def test_a_failure_names_the_url_as_it_was_given():
    url = f"{A}:80/a b#c"
    world = World(site({}), obey_robots=False, honour_opt_out=False)
    request = Request(world.hosts, url)
    world.run(request)
    assert world.paths == [f"{A}/a%20b"]
    failed = request.result("crawl")
    assert (failed.url, failed.kind, failed.status) == (url, "not_found", 404)


def test_retry_after_is_kept_and_too_long_a_pause_fails_the_others():
    busy = response(f"{A}/1", 429, retry_after="50")
    world = World(lambda _: busy, obey_robots=False, honour_opt_out=False)
    assert world.get(f"{A}/1").kind == "rate_limited"
    times = [time for time, _ in world.sent]
    assert len(times) == 3
    assert all(later - earlier >= 50 for earlier, later in itertools.pairwise(times))
    world.server = lambda url: response(url, 503, retry_after="5000")
    assert world.get(f"{A}/2").kind == "unavailable"
    assert world.get(f"{A}/3").kind == "host_cooldown"


def test_a_broken_body_is_resumed_and_joined():
    partial = response(f"{A}/1", 200, b"ab", etag='"v"', content_length="4")
    rest = response(f"{A}/1", 206, b"cd", etag='"v"', content_range="bytes 2-3/4")
    answers = [RequestFailure("truncated", partial=partial), rest]
    world = World(lambda _: answers.pop(0), obey_robots=False, honour_opt_out=False)
    assert world.get(f"{A}/1").body == b"abcd"
    assert world.sent[1][1].headers == {"Range": "bytes=2-", "If-Range": '"v"'}


def test_an_aborted_request_gives_its_place_back_once():
    world = World(site({}), obey_robots=False, honour_opt_out=False)
    request = Request(world.hosts, f"{A}/1")
    assert isinstance(request.next(0), Send)
    assert request.host.limiter.busy == 1
    request.abort(ValueError("a bug"), 0)
    request.abort(ValueError("again"), 0)
    assert request.host.limiter.busy == 0
    failed = request.next(1).outcome
    assert (failed.kind, "a bug" in failed.detail) == ("internal", True)


@pytest.mark.parametrize("licensed", [False, True])
def test_a_licence_that_a_response_links_to_is_read_before_it_is_handed_out(licensed):
    rsl = b"""<rsl xmlns="https://rslstandard.org/rsl"><content url="/"><license>
    <%s type="usage">ai-train</%s></license></content></rsl>"""
    word = b"permits" if licensed else b"prohibits"
    license_url = f"{A}/license.xml"
    link = f'<{license_url}>; rel="license"; type="application/rsl+xml"'
    pages = {
        f"{A}/1": response(f"{A}/1", link=link),
        license_url: response(license_url, body=rsl % (word, word)),
    }  # fmt: skip
    world = World(site(pages), obey_robots=False)
    outcome = world.get(f"{A}/1")
    assert world.paths[-1] == license_url
    assert isinstance(outcome, RawResponse) == licensed


OUTCOMES = st.one_of(
    st.sampled_from([200, 204, 304, 400, 403, 404, 429, 500, 503, 206, 416, 999]).map(
        lambda status: lambda url: response(url, status)
    ),
    st.tuples(st.sampled_from([301, 302, 307]), st.sampled_from([A, B]), st.integers(0, 4)).map(
        lambda hop: lambda url: response(url, hop[0], location=f"{hop[1]}/{hop[2]}")
    ),
    st.floats(0, 1000).map(
        lambda after: lambda url: response(url, 503, retry_after=f"{after:.0f}")
    ),
    st.sampled_from(["dns", "refused", "truncated", "too_slow", "total_timeout", "internal"]).map(
        lambda kind: lambda url: RequestFailure(kind)
    ),
    st.sampled_from(
        [b"User-agent: *\nDisallow: /", b"User-agent: *\nCrawl-delay: 5", b"\xff\0"]
    ).map(lambda body: lambda url: response(url, body=body)),
)


@given(
    st.lists(OUTCOMES, min_size=1, max_size=30), st.lists(st.integers(0, 4), min_size=1, max_size=6)
)
def test_whatever_is_answered_requests_end_and_hosts_keep_their_rate(answers, numbers):
    script = [*answers]

    def server(url: str) -> RawResponse | RequestFailure:
        return script.pop(0)(url) if script else response(url)

    world = World(server, max_redirects=3)
    for number in numbers:
        before = len(world.sent)
        outcome = world.get(f"{A}/{number}")
        assert isinstance(outcome, RawResponse | RequestFailure)
        # Per attempt: the hops, each with the files of its host and their own hops.
        assert len(world.sent) - before <= 3 * 4 * (1 + 3 * 4 * 3)
    for host in world.hosts.all():
        assert host.limiter.busy == 0
        assert not host.is_fetching
        times = [time for time, send in world.sent if world.hosts.of(send.url) is host]
        assert all(b - a >= 1 - 1e-9 for a, b in itertools.pairwise(times))


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=12), st.integers(0, 5))
def test_redirects_end_within_their_limit(names, most):
    hops = {f"{A}/{a}{n}": f"{A}/{b}{n + 1}" for n, (a, b) in enumerate(itertools.pairwise(names))}
    world = World(
        lambda url: response(url, 302, location=hops[url]) if url in hops else response(url),
        obey_robots=False, honour_opt_out=False, max_redirects=most,
    )  # fmt: skip
    outcome = world.get(f"{A}/{names[0]}0")
    assert len(world.sent) == min(len(names), most + 1)
    if len(names) - 1 > most:
        assert outcome.kind == "redirect_loop"
    else:
        assert outcome.url == f"{A}/{names[-1]}{len(names) - 1}"
