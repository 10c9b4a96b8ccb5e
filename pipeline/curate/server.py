"""The server of the curation page.

Only `localhost` and IP addresses are accepted as host, and everything but the page's own files
needs the token in the address that the command prints: other users of the machine and pages of
other sites have none.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from pipeline.contract import (
    BadRequest,
    UserError,
    accepted_hosts,
    create_local_app,
    respond,
)
from pipeline.curate.curator import Curator
from pipeline.imaging.limits import ImageError
from pipeline.select.curation import DECISIONS

HOST = "127.0.0.1"
TOKEN_HEADER = "x-curate-token"
MAX_THUMBNAILS = 512
"""Maximum number of thumbnails per request."""
_MAX_BODY = 32 << 20
_MAX_REASON = 200
_MAX_DIGITS = 10
_STATUSES: dict[type[Exception], int] = {UserError: 404, ImageError: 404, OSError: 507}

Work = Callable[[bytes, int], bytes]
"""Makes the response from the request's body and the index in its path."""


def create_app(curator: Curator, token: str) -> Starlette:
    """Create the server's application; `token` is what requests must present."""

    def thumbnails(body: bytes, _: int) -> bytes:
        return curator.thumbnails(_indices(body, len(curator)))

    def details(_: bytes, index: int) -> bytes:
        return json.dumps(curator.details(index)).encode()

    def decide(body: bytes, _: int) -> bytes:
        curator.decide(*_decisions(body, len(curator)))
        return b"saved"

    binary, posted = "application/octet-stream", ["POST"]
    answers: dict[str, tuple[Work, str, list[str]]] = {
        "/images": (lambda _body, _index: curator.images(), binary, ["GET"]),
        "/states": (lambda _body, _index: curator.states(), binary, ["GET"]),
        "/thumbnails": (thumbnails, "text/plain", posted),
        "/details/{index}": (details, "application/json", ["GET"]),
        "/similar/{index}": (lambda _, index: curator.similar(index), binary, ["GET"]),
        "/picture/{index}": (lambda _, index: curator.picture(index), "image/jpeg", ["GET"]),
        "/decisions": (decide, "text/plain", posted),
    }
    routes = [
        Route(path, _answering(work, kind, token, len(curator)), methods=methods)
        for path, (work, kind, methods) in answers.items()
    ]
    page = {one.name: one.read_bytes() for one in (files("pipeline.curate") / "page").iterdir()}
    return create_local_app(routes, page, accepted_hosts(HOST))


def _answering(
    work: Work, kind: str, token: str, count: int
) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        shown = request.headers.get(TOKEN_HEADER, "")
        if not secrets.compare_digest(shown.encode(), token.encode()):
            return PlainTextResponse("open the address that the command printed", 403)
        index = request.path_params.get("index", "0")
        is_number = index.isascii() and index.isdigit() and len(index) <= _MAX_DIGITS
        if not is_number or int(index) >= count:
            return PlainTextResponse("no such image", 404)
        return await respond(
            request, lambda body: work(body, int(index)), _MAX_BODY, kind, _STATUSES
        )

    return answer


def _indices(body: bytes, count: int) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """Return the image indices in a body, uint32 (n,).

    Raises:
        BadRequest: wrong length, too many, or no such image.
    """
    if len(body) % 4 or not 0 < len(body) <= 4 * MAX_THUMBNAILS:
        raise BadRequest(f"the body must contain 1 to {MAX_THUMBNAILS} indices")
    found = np.frombuffer(body, "<u4").astype(np.uint32)
    if found.max() >= count:
        raise BadRequest("no such image")
    return found


def _decisions(body: bytes, count: int) -> tuple[dict[str, list[int]], str]:
    """Return the image indices in a body by decision, and the reason.

    Raises:
        BadRequest: it is not such a JSON object.
    """
    try:
        values = json.loads(body)
        reason = values.pop("reason", "")
        good = isinstance(reason, str) and bool(values) and values.keys() <= set(DECISIONS)
        good = good and all(isinstance(indices, list) for indices in values.values())
        good = good and all(
            type(index) is int and 0 <= index < count
            for indices in values.values()
            for index in indices
        )
    except (ValueError, TypeError, AttributeError, RecursionError):
        good = False
    if not good:
        raise BadRequest("decisions: expected lists of image indices by decision, and a reason")
    return values, reason[:_MAX_REASON]
