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
