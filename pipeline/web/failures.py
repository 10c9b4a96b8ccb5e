"""All kinds of failures, and whether a later retry can help."""

from __future__ import annotations

import traceback

from pipeline.errors import Failure, is_disk_full

FAILURE_KINDS: dict[str, bool] = {
    # the address
    "bad_url": False,
    "dns": True,
    "private_address": False,
    # the connection
    "refused": True,
    "unreachable": True,
    "tls": True,
    "connect_timeout": True,
    "first_byte_timeout": True,
    "total_timeout": True,
    "too_slow": True,
    "connection_lost": True,
    "truncated": True,
    "protocol": True,
    # redirects
    "redirect_loop": False,
    "bad_redirect": False,
    # the status
    "not_found": False,
    "gone": False,
    "forbidden": False,
    "request_timeout": True,
    "rate_limited": True,
    "client_error": False,
    "server_error": True,
    "unavailable": True,
    "bad_status": False,
    # policy
    "robots": False,
    "robots_unreachable": True,
    "opt_out": False,
    "host_cooldown": True,
    # the body
    "too_large": False,
    "empty": True,
    "quota_page": True,
    "virus_scan_page": False,
    "login_page": False,
    "html_page": False,
    "wrong_type": False,
    "damaged": False,
    "undecodable": False,
    "zero_size": False,
    "too_many_pixels": False,
    "animated": False,
    # pages
    "parse_error": False,
    # a bug of this program at one page or image; its detail is the traceback
    "internal": True,
}
"""Every kind of failure, and whether a retry can help. `resolved` in a log is not a failure: it
cancels an earlier one."""


def failure(
    stage: str,
    url: str,
    kind: str,
    *,
    key: str | None = None,
    status: int | None = None,
    attempts: int = 1,
    detail: str = "",
) -> Failure:
    """Return a `Failure`, retryable if its kind is.

    Raises:
        KeyError: `kind` is not in `FAILURE_KINDS`.
    """
    most = 2000 if kind == "internal" else 300
    return Failure(stage, url, kind, FAILURE_KINDS[kind], key, status, attempts, detail[:most])


def internal_failure(stage: str, url: str, error: Exception, key: str | None = None) -> Failure:
    """Return the failure of a page or image on which an unexpected exception occurred."""
    return failure(stage, url, "internal", key=key, detail=describe_internal(error))


def describe_internal(error: Exception) -> str:
    """Return the detail of an `internal` failure: the end of the traceback."""
    return "".join(traceback.format_exception(error, limit=-6))[-2000:]


def caught_failure(stage: str, url: str, error: Exception, key: str | None = None) -> Failure:
    """Return the failure that an exception at one image means.

    Raises:
        OSError: `error` itself if the disk is full, since that is not a failure of the image.
    """
    if isinstance(error, OSError) and is_disk_full(error):
        raise error
    if isinstance(error, MemoryError):
        return failure(stage, url, "too_many_pixels", key=key, detail="out of memory")
    return internal_failure(stage, url, error, key)


def kind_of_status(status: int) -> str:
    """Return the failure kind of an HTTP status other than 2xx and 304."""
    named = {
        401: "forbidden", 402: "forbidden", 403: "forbidden", 404: "not_found",
        408: "request_timeout", 410: "gone", 425: "request_timeout", 429: "rate_limited",
        451: "forbidden", 501: "client_error", 503: "unavailable", 505: "client_error",
    }  # fmt: skip
    if status in named:
        return named[status]
    if 400 <= status < 500:
        return "client_error"
    return "server_error" if status >= 500 else "bad_status"


_AGAIN = "retry later"
_NOTHING = "nothing: the image is not used"
FAILURE_HELP: dict[str, tuple[str, str]] = {
    "bad_url": ("not a usable URL", "correct the recipe's selector or `rewrite`"),
    "dns": ("the host name cannot be resolved", "check the network and the host, then retry"),
    "private_address": (
        "an address in a private network",
        "set `politeness.allow_private` if the site is your own",
    ),
    "refused": ("the host refused the connection", _AGAIN),
    "unreachable": ("the host cannot be reached", "check the network, then retry"),
    "tls": ("the encrypted connection failed", "check the host's certificate and your clock"),
    "connect_timeout": ("no connection in time", "retry, or raise `politeness.connect_timeout`"),
    "first_byte_timeout": (
        "no response in time", "retry, or raise `politeness.first_byte_timeout`",
    ),
    "total_timeout": ("not complete in time", "retry, or raise `politeness.total_timeout`"),
    "too_slow": ("slower than the recipe admits", "retry, or lower `politeness.min_speed`"),
    "connection_lost": ("the connection ended early", _AGAIN),
    "truncated": ("the body is incomplete", _AGAIN),
    "protocol": ("not a valid HTTP response", _AGAIN),
    "redirect_loop": ("redirects in a circle, or too many", "open the URL in a browser"),
    "bad_redirect": ("a redirect that leads nowhere", "open the URL in a browser"),
    "not_found": ("status 404", "nothing: it does not exist"),
    "gone": ("status 410", "nothing: it was removed"),
    "forbidden": ("status 401, 402, 403 or 451", "ask the site, or set `politeness.headers`"),
    "request_timeout": ("status 408 or 425", _AGAIN),
    "rate_limited": ("status 429", "retry later with a lower `politeness.rate`"),
    "client_error": ("another status from 400 to 499, or 501 and 505", "check the URL"),
    "server_error": ("another status of 500 or above", _AGAIN),
    "unavailable": ("status 503", _AGAIN),
    "bad_status": ("a status below 400 without content", "open the URL in a browser"),
    "robots": ("disallowed by robots.txt", "leave it out, or ask the site"),
    "robots_unreachable": ("robots.txt could not be read", _AGAIN),
    "opt_out": ("the site or the image opts out of such uses", "leave it out, or ask the site"),
    "host_cooldown": ("the host has a pause after failures, or asked for one", _AGAIN),
    "too_large": ("more bytes than the recipe admits", "raise `politeness.max_bytes`"),
    "empty": ("a response without content", _AGAIN),
    "quota_page": ("a page about a used-up quota instead of the image", "retry on another day"),
    "virus_scan_page": ("a page about a missing virus scan instead of the image", _NOTHING),
    "login_page": ("a login page instead of the image", "set `politeness.headers`"),
    "html_page": ("another web page instead of the image", "correct the recipe's selector"),
    "wrong_type": ("not an image of a supported format", _NOTHING),
    "damaged": ("an image with damaged or missing parts", _NOTHING),
    "undecodable": ("an image that cannot be decoded", _NOTHING),
    "zero_size": ("an image without pixels", _NOTHING),
    "too_many_pixels": (
        "more pixels, or memory to decode them, than the recipe admits",
        "raise `politeness.max_pixels` or `originals.decode_megabytes`",
    ),
    "animated": ("an animation", _NOTHING),
    "parse_error": ("a page without the format of its source", "run `check-recipe` with its URL"),
    "internal": ("an error of this program; the detail is the traceback", "report it, and retry"),
}  # fmt: skip
"""The meaning of each kind, and what a user can do."""
