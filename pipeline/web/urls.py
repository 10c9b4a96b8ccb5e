"""Canonical URLs: one spelling for one resource, since an image's key is the hash of its URL.

The form is a browser's (WHATWG URL), narrowed where it leaves apart two spellings that servers
take for one: parentheses and brackets are always escaped, letters, digits and `-._~` never.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

import idna

DEFAULT_PORTS = {"http": 80, "https": 443}
TRACKING = frozenset((
    "fbclid", "gclid", "gclsrc", "dclid", "gbraid", "wbraid", "msclkid", "twclid", "ttclid",
    "yclid", "igshid", "srsltid", "li_fat_id", "mc_cid", "mc_eid", "mkt_tok", "vero_id",
    "oly_anon_id", "oly_enc_id", "_hsenc", "_hsmi", "_ga", "_gl",
))  # fmt: skip
"""Parameters that say where a visitor came from and never what is served; so does `utm_…`."""

_UNRESERVED = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")
_PATH_SAFE = _UNRESERVED | frozenset(b"/:@!$&'*+,;=")
_QUERY_SAFE = _PATH_SAFE | frozenset(b"?")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})|(.)", re.DOTALL)
_PLAIN = re.compile(r"[a-zA-Z0-9._~/:@!$&'*+,;=-]*")
_CONTROL = re.compile("[\t\n\r]")


def canonical_url(url: str, base: str | None = None) -> str | None:
    """The canonical form of `url`, resolved against `base`; None for what is not http(s).

    Scheme and host in lower case, the host in IDNA; no fragment, default port, dot segments or
    tracking parameters; what needs an escape has one, and what has one keeps it.
    """
    text = _CONTROL.sub("", url.strip())
    try:
        parts = urlsplit(urljoin(base, text) if base else text)
        scheme = parts.scheme.lower()
        if scheme not in DEFAULT_PORTS:
            return None
        netloc = _netloc(parts, scheme)
    except ValueError:
        return None
    if netloc is None:
        return None
    path = _without_dots(_escaped(parts.path.replace("\\", "/"), _PATH_SAFE))
    return urlunsplit((scheme, netloc, path, _query(parts.query), ""))


def url_host(url: str) -> str:
    """The host of a canonical URL, without its port."""
    return urlsplit(url).hostname or ""


def _netloc(parts: SplitResult, scheme: str) -> str | None:
    """User, host and port; None without a host that can be written in ASCII.

    Raises:
        ValueError: the port is not a number below 65536.
    """
    host = _ascii_host(parts.hostname or "")
    if not host:
        return None
    user = parts.netloc.rpartition("@")[0]
    port = parts.port
    suffix = "" if port is None or port == DEFAULT_PORTS[scheme] else f":{port}"
    return (f"{user}@" if user else "") + host + suffix


def _ascii_host(host: str) -> str | None:
    if ":" in host:  # IPv6; urlsplit took the brackets and checked the address
        return f"[{host}]"
    if host.isascii():
        return host if re.fullmatch(r"[a-z0-9._~-]+", host) else None
    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except idna.IDNAError:
        return None


def _without_dots(path: str) -> str:
    """`path` without its `.` and `..` segments (RFC 3986, 5.2.4)."""
    if "/." not in path:
        return path or "/"
    kept: list[str] = []
    for segment in path.split("/")[1:]:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if path.endswith(("/.", "/..")):
        kept.append("")
    return "/" + "/".join(kept)


def _query(query: str) -> str:
    kept = [part for part in query.split("&") if part and not _is_tracking(part)]
    return _escaped("&".join(kept), _QUERY_SAFE)


def _is_tracking(parameter: str) -> bool:
    name = parameter.partition("=")[0].lower()
    return name in TRACKING or name.startswith("utm_")


def _escaped(text: str, safe: frozenset[int]) -> str:
    """`text` with every byte outside `safe` as %XX, and escapes already there kept as they are."""

    if _PLAIN.fullmatch(text):
        return text

    def one(match: re.Match[bytes]) -> bytes:
        if match[1]:
            byte = int(match[1], 16)
            keep = byte in _UNRESERVED
        else:
            byte = match[2][0]
            keep = byte in safe
        return bytes([byte]) if keep else b"%%%02X" % byte

    return _ESCAPE.sub(one, text.encode("utf-8", "replace")).decode("ascii")
