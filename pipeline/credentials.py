"""User names and passwords in URLs: used for requests, and removed from URLs everywhere else.

The credentials of an S3 URL are the access key and the secret key.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any
from urllib.parse import unquote, unquote_to_bytes, urlsplit, urlunsplit

_S3 = frozenset({"s3", "s3a"})
_DEFAULT_PORTS = {"http": 80, "https": 443}


def split_user(url: str) -> tuple[str, str]:
    """Return the URL without user and password, and `user:password` as written ("" if there is
    none)."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url, ""
    user, at, host = parts.netloc.rpartition("@")
    return (urlunsplit(parts._replace(netloc=host)), user) if at else (url, "")


def basic_authorization(user: str) -> dict[str, str]:
    """Return the Basic authorization header (RFC 7617) for `user:password`, written as in a URL;
    no header if it is empty."""
    if not user:
        return {}
    name, _, password = user.partition(":")
    token = b64encode(unquote_to_bytes(name) + b":" + unquote_to_bytes(password)).decode()
    return {"Authorization": f"Basic {token}"}


def origin(url: str) -> str:
    """Return scheme, host and port of an http(s) URL as a URL; "" for any other text."""
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme.lower())
    except ValueError:
        return ""
    if port is None or not parts.hostname or parts.scheme.lower() not in _DEFAULT_PORTS:
        return ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme.lower()}://{host}:{port}"


def with_user_of(base: str, url: str) -> str:
    """Return `url` with the user and password of `base` if it has none and both have the same
    origin."""
    _, user = split_user(base)
    parts = urlsplit(url)
    if not user or "@" in parts.netloc or not origin(url) or origin(url) != origin(base):
        return url
    return urlunsplit(parts._replace(netloc=f"{user}@{parts.netloc}"))


def fsspec_arguments(url: str) -> tuple[str, dict[str, Any]]:
    """Return the URL and the options for fsspec, which reads the users of non-S3 URLs itself."""
    if urlsplit(url).scheme not in _S3:
        return url, {}
    bare, user = split_user(url)
    key, _, secret = user.partition(":")
    return (bare, {"key": unquote(key), "secret": unquote(secret)}) if user else (url, {})
