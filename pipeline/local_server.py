"""Pages for a browser on this machine: their address, headers, requests, and server."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from typing import TYPE_CHECKING

from pipeline.errors import UserError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
MEDIA_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
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
    """Return the host names that requests may use (`*`: any), so that pages of other sites cannot
    reach a server on loopback through their own names."""
    return ["127.0.0.1", "localhost", "[::1]"] if host in _LOOPBACK else ["*"]


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
