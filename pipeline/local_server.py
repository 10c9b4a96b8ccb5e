"""Pages for a browser on this machine: their address, headers, requests, and server."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline.errors import UserError, describe_os_error

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route
    from starlette.types import ASGIApp, Receive, Scope, Send

MEDIA_TYPES = {
    "html": "text/html", "css": "text/css", "js": "text/javascript", "json": "application/json"
}  # fmt: skip
"""The media types of a page's files, by extension."""


class BadRequest(Exception):
    """An invalid request."""


async def read_body(request: Request, most: int) -> bytes:
    """Return the body of a request.

    Raises:
        BadRequest: it has more than `most` bytes; no more are read.
    """
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise BadRequest(f"more than {most} bytes")
        parts.append(part)
    return b"".join(parts)


async def respond(
    request: Request, work: Callable[[bytes], bytes], most: int, kind: str,
    statuses: Mapping[type[Exception], int] | None = None,
) -> Response:  # fmt: skip
    """Return the response that `work`, in a thread of its own, makes of the body of a request.

    Args:
        most: the largest body in bytes; status 400 beyond it, as after `BadRequest`.
        kind: the media type.
        statuses: statuses of exceptions whose text is meant for the user; the first matching class
            counts. All others are printed to the terminal (status 500): the server must outlive
            any request.
    """
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import ClientDisconnect
    from starlette.responses import PlainTextResponse, Response

    try:
        made = await run_in_threadpool(work, await read_body(request, most))
    except Exception as error:  # noqa: BLE001
        known: dict[type[Exception], int] = {BadRequest: 400, ClientDisconnect: 400}
        for type_, status in (known | dict(statuses or {})).items():
            if isinstance(error, type_):
                text = describe_os_error(error) if isinstance(error, OSError) else str(error)
                return PlainTextResponse(text, status)
        traceback.print_exception(error)
        return PlainTextResponse("internal error; see the terminal", 500)
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response(made, media_type=kind, headers=headers)


def create_local_app(
    routes: Sequence[Route], page: Mapping[str, bytes], hosts: Sequence[str], in_frame: bool = False
) -> Starlette:
    """Create an application of `routes` and the files of a page, by name; `index.html` states the
    policy of all. `hosts` as returned by `accepted_hosts`, `in_frame` as in `page_headers`.

    A name in `hosts` that begins with `*.` stands for all names with that ending, of proxies that
    may use other names for the page than for the requests that they forward.
    """
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.responses import Response
    from starlette.routing import Route

    headers = page_headers(policy_of(page["index.html"]), in_frame)

    def fixed(name: str) -> Callable[[Request], Any]:
        kind = MEDIA_TYPES[name.rpartition(".")[2]]
        return lambda _: Response(page[name], media_type=kind, headers=headers)

    files = [Route("/" if name == "index.html" else f"/{name}", fixed(name)) for name in page]
    return Starlette(routes=[*routes, *files], middleware=[Middleware(_Guard, hosts)])


class _Guard:
    """An ASGI middleware that refuses requests of pages of other sites."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self._app, self._hosts = app, [host.lower() for host in hosts]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.datastructures import Headers
        from starlette.responses import PlainTextResponse

        app = self._app
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            host = headers.get("host", "")
            if not self._is_accepted(host):
                app = PlainTextResponse(
                    "not a name of this server; open it by its IP address, as localhost, or by the "
                    "name in --host NAME",
                    400,
                )
            elif not self._is_own(headers.get("origin"), host):
                app = PlainTextResponse("another site may not ask", 403)
        await app(scope, receive, send)

    def _is_accepted(self, host: str) -> bool:
        """Return True for a known name, or an IP address: another site cannot choose to what an
        address leads, unlike what its own names mean."""
        name = _host_name(f"//{host}")
        return name in self._hosts or self._is_proxy(name) or _is_address(name)

    def _is_own(self, origin: str | None, host: str) -> bool:
        """Return True if a request comes from a page of this server, or from no page."""
        if origin is None:
            return True
        return origin.partition("://")[2] == host or self._is_proxy(_host_name(origin))

    def _is_proxy(self, name: str) -> bool:
        return any(host.startswith("*.") and name.endswith(host[1:]) for host in self._hosts)


def _host_name(url: str) -> str:
    """Return the host of a URL in lower case, without port and brackets; empty if it has none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def listen(host: str, port: int, default: int) -> socket.socket:
    """Return a listening socket; if `port` is the `default` one and is in use, on a free port.

    Raises:
        UserError: the address is not available.
    """
    if not host:  # it would mean all networks
        raise UserError(
            "--host: empty; use 127.0.0.1 (this machine only) or 0.0.0.0 (all networks)"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for wanted in (port, 0) if port == default else (port,):
        # with an explicit protocol asyncio sets TCP_NODELAY, which saves 44 ms per small response
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, wanted))
        except (OSError, OverflowError, UnicodeError, TypeError) as error:
            # no such port, or an invalid host name
            listener.close()
            reason = getattr(error, "strerror", None) or str(error)
            continue
        listener.listen(128)
        return listener
    raise UserError(f"--host {host} --port {port}: {reason}")


def page_url(host: str, listener: socket.socket) -> str:
    """Return the address at which a browser on this machine finds the page."""
    port = listener.getsockname()[1]
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    return f"http://[{shown}]:{port}/" if ":" in shown else f"http://{shown}:{port}/"


def accepted_hosts(host: str) -> list[str]:
    """Return the host names that requests to a server at `host` may use, besides IP addresses, so
    that pages of other sites cannot reach it through their own names. They are `localhost`, the
    name `host`, and, if other machines can reach it, the names of this machine."""
    names = {"localhost", host.lower()}
    if not _is_loopback(host):
        own = socket.gethostname().lower()
        short = own.partition(".")[0]
        names |= {own, short, f"{short}.local"}
    return sorted(names)


def _is_loopback(host: str) -> bool:
    """Return True if all addresses of a host name are those of this machine alone."""
    try:
        found = socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        return False
    return all(ipaddress.ip_address(address[0]).is_loopback for *_, address in found)


def page_headers(policy: str, in_frame: bool = False) -> dict[str, str]:
    """Return the headers of a page's files, with its Content-Security-Policy.

    Args:
        in_frame: pages of any address may show this one in a frame; only for a page without
            actions that change something.
    """
    frames = "*" if in_frame else "'none'"
    return {
        "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Content-Security-Policy": f"{policy}; base-uri 'none'; frame-ancestors {frames}",
    }  # fmt: skip


def policy_of(page: bytes) -> str:
    """Return the Content-Security-Policy stated in a page."""
    return page.decode().partition('Content-Security-Policy" content="')[2].partition('"')[0]


def serve_app(app: Starlette, listener: socket.socket, url: str, open_browser: bool) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    import webbrowser

    import uvicorn

    config = uvicorn.Config(
        app, log_level="error", access_log=False, timeout_graceful_shutdown=1, lifespan="off"
    )
    if open_browser and _has_windows():
        webbrowser.open(url)
    with listener, contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is the normal way to stop
        uvicorn.Server(config).run(sockets=[listener])


def _has_windows() -> bool:
    """Return True if a browser would open in a window, not in this terminal."""
    if sys.platform.startswith("linux"):
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return True
