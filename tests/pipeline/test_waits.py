"""Whoever waits is told for what: in time, by name, and not too often."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline.fetcher import Fetcher
from pipeline.web import waits
from pipeline.web.bulk_fetcher import BulkFetcher
from pipeline.web.politeness import MAX_DELAY, HostLimiter, Politeness
from pipeline.web.waits import Wait, WaitReporter, describe_seconds
from tests.helpers.both_transports import polite
from tests.helpers.faulty_site import GOOD, FaultySite, page, serve


@pytest.fixture
def impatient(monkeypatch):
    """Waits that are told of after a fifth of a second."""
    monkeypatch.setattr(waits, "PATIENCE", 0.2)
    monkeypatch.setattr(waits, "_TICK", 0.05)


def test_a_host_and_reason_are_told_at_growing_pauses_and_few_at_a_time():
    told: list[tuple[float, Wait]] = []
    now = 0.0
    reporter = WaitReporter(lambda wait: told.append((now, wait)))
    day = Wait("http://a", "delay", "a crawl-delay", 86400)
    for second in range(600):
        now = float(second)
        reporter.update([(now, day)], now)
    assert [when for when, _ in told] == [0, 10, 30, 70, 150, 310]
    told.clear()
    many = [(11.0, Wait(f"http://{n}", "delay", "a delay")) for n in range(100)]
    for second in range(1000, 1040):
        now = float(second)
        reporter.update(many, now)
    assert 4 <= len(told) <= 20
    assert len({wait.host for _, wait in told}) == len(told)


def test_a_short_wait_is_not_worth_a_word():
    told: list[Wait] = []
    reporter = WaitReporter(told.append)
    for second in range(100):
        reporter.update([(3.0, Wait("http://a", "rate", "the rate", 5.0))], second)
    assert not told


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3, "3 s"), (90, "90 s"), (300, "5 min"), (7200, "2 h"), (86400, "24 h"), (172800, "2 days")],
)
def test_seconds_in_words(seconds, text):
    assert describe_seconds(seconds) == text


def test_a_gate_says_what_it_waits_for():
    gate = HostLimiter(Politeness(rate=0.1, rest_after=2))
    gate.start(0)
    assert gate.waits_for(1) == "politeness.rate"
    gate.crawl_delay(1e308)
    assert gate.interval == MAX_DELAY
    assert "crawl-delay" in gate.waits_for(1)
    for delay in (float("nan"), -5.0):
        gate.crawl_delay(delay)
        assert gate.interval == MAX_DELAY
    with gate.lock:
        gate.finish(1, "rate_limited", 1e23)
        assert gate.cooldown_left(1) == MAX_DELAY
        gate.start(1)
        gate.finish(2, None, float("nan"))
    assert gate.cooldown_left(2) <= MAX_DELAY


def test_pages_name_the_host_and_the_reason(impatient):
    told: list[Wait] = []
    with FaultySite(robots=serve(b"User-agent: *\nCrawl-delay: 86400\n")) as site:
        rules = polite(first_byte_timeout=1)
        with Fetcher(rules, told.append) as fetcher:
            work = threading.Thread(
                target=fetcher.get, args=(site.url("/good.jpg"),), kwargs={"stage": "x"}
            )
            work.start()
            while not told:
                time.sleep(0.01)
            fetcher.stop()
            work.join()
    assert told
    assert told[0].host == f"http://127.0.0.1:{site.port}"
    assert "crawl-delay" in told[0].reason
    assert told[0].left > 86_000


def test_a_slow_server_is_named(impatient):
    told: list[Wait] = []
    with FaultySite() as site, Fetcher(polite(attempts=1), told.append) as fetcher:
        fetcher.get(site.url("/never"), stage="x")
    assert {wait.reason for wait in told} == {"the beginning of a response"}


def test_images_name_the_host_and_the_reason(impatient):
    told: list[Wait] = []
    slow = FaultySite(robots=serve(b"User-agent: *\nCrawl-delay: 86400\n"))
    with slow as site, BulkFetcher[str](polite(), "x", on_wait=told.append) as bulk:
        bulk.add("a", site.url("/good.jpg"))
        while not told:
            bulk.poll(0.1)
    assert told[0].host == f"http://127.0.0.1:{site.port}"
    assert "crawl-delay" in told[0].reason


RECIPE = """
[source]
kind = "html"
start = ["{url}/"]
follow = ["a"]
image = "img"
[politeness]
allow_private = true
"""


@pytest.mark.parametrize("command", ["crawl", "check-recipe", "new-recipe"])
def test_commands_print_the_wait_and_end_when_interrupted(tmp_path: Path, command):
    site = FaultySite(robots=serve(b"User-agent: *\nCrawl-delay: 86400\n"))
    with site:
        body = page("x", "<a href='/1.html'>1</a><img src='/good.jpg'>")
        site.rows["/"] = type(next(iter(site.rows.values())))("/", serve(body, type_="text/html"))
        url = site.url("")
        recipe = tmp_path / "slow.toml"
        recipe.write_text(RECIPE.format(url=url))
        arguments = {
            "crawl": ["crawl", str(recipe), "--root", str(tmp_path)],
            "check-recipe": ["check-recipe", str(recipe), "--url", f"{url}/"],
            "new-recipe": ["new-recipe", f"{url}/", "--allow-private"],
        }[command]
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", *arguments], cwd=tmp_path, text=True,
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        lines: list[str] = []

        def read() -> None:
            assert process.stderr is not None
            lines.extend(process.stderr)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        while process.poll() is None and not any("crawl-delay" in line for line in lines):
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 130
        reader.join()
        process.stderr.close()
    told = [line for line in lines if "crawl-delay" in line]
    assert told, lines
    assert f"127.0.0.1:{site.port}" in told[0]
    assert "24 h" in told[0]


def test_what_waits_does_not_keep_a_good_neighbour(impatient):
    told: list[Wait] = []
    with FaultySite() as site, Fetcher(polite(attempts=1), told.append) as fetcher:
        slow = threading.Thread(
            target=fetcher.get, args=(site.url("/never"),), kwargs={"stage": "x"}
        )
        slow.start()
        assert fetcher.get(site.url("/good.jpg"), stage="x").body == GOOD
        slow.join(10)
