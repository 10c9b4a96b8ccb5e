"""Servers for a browser on this machine: the names and the sites that requests may come from."""

from __future__ import annotations

import asyncio
import socket

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from pipeline.contract import accepted_hosts, create_local_app

OWN = "shelf"
PROXY = "*.colab.dev"


@pytest.fixture(autouse=True)
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: f"{OWN}.example.org")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost", "LOCALHOST"])
def test_a_server_on_loopback_has_no_other_names(host: str) -> None:
    assert set(accepted_hosts(host)) == {"localhost", host.lower()}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_another_server_has_the_names_of_the_machine(host: str) -> None:
    own = {OWN, f"{OWN}.example.org", f"{OWN}.local"}
    assert set(accepted_hosts(host)) == {"localhost", host, *own}


def status_of(hosts: list[str], host: str, origin: str | None = None) -> int:
    """The status of a POST with these headers to a server that accepts the hosts."""
    page = {"index.html": b"<html>"}
    routes = [Route("/draw", lambda _: PlainTextResponse("drawn"), methods=["POST"])]
    transport = httpx.ASGITransport(create_local_app(routes, page, hosts))
    headers = {"host": host} | ({} if origin is None else {"origin": origin})

    async def ask() -> int:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return (await client.post("/draw", headers=headers)).status_code

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("listens", "host", "status"),
    [
        ("127.0.0.1", "127.0.0.1:8972", 200),
        ("127.0.0.1", "LocalHost:9000", 200),  # a forwarded port
        ("127.0.0.1", "[::1]:8972", 200),
        ("127.0.0.2", "evil.example", 400),
        ("LOCALHOST", "evil.example:8972", 400),
        ("127.0.0.1", f"{OWN}.local", 400),
        ("0.0.0.0", "evil.example", 400),
        ("0.0.0.0", "192.0.2.7:8972", 200),
        ("0.0.0.0", "[2001:db8::1]:8972", 200),
        ("0.0.0.0", f"{OWN.upper()}.local:8972", 200),
        ("0.0.0.0", "localhost:8972", 200),
        ("0.0.0.0", "a.colab.dev", 400),
        ("0.0.0.0", "[", 400),
        ("0.0.0.0", "", 400),
    ],
)
def test_only_names_of_the_server_are_accepted(listens: str, host: str, status: int) -> None:
    assert status_of(accepted_hosts(listens), host) == status


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("localhost:8972", "http://localhost:8972", 200),
        ("192.0.2.7", "http://192.0.2.7", 200),
        ("localhost:8972", "https://evil.example", 403),
        ("localhost:8972", "http://localhost:80", 403),
        ("localhost:8972", "http://192.0.2.7:8972", 403),
        ("localhost:8972", "null", 403),
        ("localhost:8972", "", 403),
        ("a.colab.dev", "https://a.colab.dev", 200),  # a frame of a notebook
        ("localhost:8972", "https://a.colab.dev", 200),  # whose proxy changes the name
        ("localhost:8972", "https://a.colab.dev.evil.example", 403),
    ],
)
def test_pages_of_other_sites_may_not_ask(host: str, origin: str, status: int) -> None:
    assert status_of([*accepted_hosts("127.0.0.1"), PROXY], host, origin) == status
