"""Canonical URLs: one spelling for one resource, since an image's key is the hash of its URL.

The form is that of browsers (WHATWG URL), except that spellings which servers treat as equal become
one: parentheses and brackets are always escaped, letters, digits and `-._~` never.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from functools import lru_cache
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

import idna

DEFAULT_PORTS = {"http": 80, "https": 443}
TRACKING = frozenset((
    "fbclid", "gclid", "gclsrc", "dclid", "gbraid", "wbraid", "msclkid", "twclid", "ttclid",
    "yclid", "igshid", "srsltid", "li_fat_id", "mc_cid", "mc_eid", "mkt_tok", "vero_id",
    "oly_anon_id", "oly_enc_id", "_hsenc", "_hsmi", "_ga", "_gl",
))  # fmt: skip
"""Query parameters for tracking, which do not affect the response; also all `utm_…`."""

_UNRESERVED = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")
_PATH_SAFE = _UNRESERVED | frozenset(b"/:@!$&'*+,;=")
_QUERY_SAFE = _PATH_SAFE | frozenset(b"?")
_USER_SAFE = _UNRESERVED | frozenset(b":!$&'*+,;=")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})|(.)", re.DOTALL)
_PLAIN = re.compile(r"[a-zA-Z0-9._~/:@!$&'*+,;=-]*")
_BEFORE_QUERY = re.compile(r"[^?#]*")
_CONTROL = re.compile("[\t\n\r]")
_CONTROLS = re.compile("[\x00-\x1f\x7f]")
_NOT_IN_REQUESTS = re.compile(rb"%(?![0-9A-Fa-f]{2})|[^\x21-\x7e]|[\"<>\\^`{|}]")
_HOST = re.compile(r"[a-z0-9._~-]+")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_MAX_HOST = 253
_MAX_LABEL = 63


def canonical_url(url: str, base: str | None = None) -> str | None:
    """Return the canonical form of `url`, resolved against `base`; None if it is not http(s).

    Scheme and host are in lower case, the host in IDNA. User and password, fragment, default port,
    dot segments and tracking parameters are removed. Characters are escaped if necessary, and
    existing escapes are kept.
    """
    text = with_slashes(_CONTROL.sub("", url.strip()))
    try:
        parts = urlsplit(urljoin(base, text) if base else text)
        scheme = parts.scheme.lower()
        if scheme not in DEFAULT_PORTS:
            return None
        parts = _without_user(parts)
        netloc = _netloc(parts, scheme)
    except ValueError:
        return None
    if netloc is None:
        return None
    path = _without_dots(_escaped(parts.path, _PATH_SAFE))
    return urlunsplit((scheme, netloc, path, _query(parts.query), ""))


def with_slashes(url: str) -> str:
    """Return `url` with `/` for each backslash before the query and fragment, as browsers do."""
    return _BEFORE_QUERY.sub(lambda match: match[0].replace("\\", "/"), url, count=1)


dropped_users: Counter[str] = Counter()
"""Number of URLs with a user and password passed to `canonical_url`, by scheme and host."""

_MAX_DROPPED = 1000


def _without_user(parts: SplitResult) -> SplitResult:
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return parts
    where = f"{parts.scheme.lower()}://{host}"
    if user and (where in dropped_users or len(dropped_users) < _MAX_DROPPED):
        dropped_users[where] += 1
    return parts._replace(netloc=host)


def host_or_none(url: str) -> str | None:
    """Return the host of a URL of any scheme, without its port; None if there is none."""
    try:
        return urlsplit(url).hostname or None
    except ValueError:
        return None


def request_url(url: str) -> str:
    """Return the URL to send in a request: printable ASCII without a fragment.

    Existing escapes are kept, so that a signed URL stays valid. A space becomes %20 in the path and
    + in the query, as in curl.

    Raises:
        ValueError: it is not an http(s) URL, contains control characters, or has an invalid host or
            port; the message says which.
    """
    if _CONTROLS.search(url):
        raise ValueError("control characters in the URL")
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    if scheme not in DEFAULT_PORTS:
        raise ValueError(f"not an http(s) URL: {scheme[:40] or 'no scheme'}")
    netloc = _netloc(parts, scheme)
    if netloc is None:
        raise ValueError(f"invalid host: {(parts.hostname or '')[:100]!r}")
    path, query = _escape_rest(parts.path, "%20"), _escape_rest(parts.query, "+")
    return urlunsplit((scheme, netloc, path or "/", query, ""))


def _escape_rest(text: str, space: str) -> str:
    raw = text.encode("utf-8", "surrogatepass").replace(b" ", space.encode())
    return _NOT_IN_REQUESTS.sub(lambda match: b"%%%02X" % match[0][0], raw).decode("ascii")


def _netloc(parts: SplitResult, scheme: str) -> str | None:
    """Return user, host and port; None without a valid host.

    Raises:
        ValueError: the port is not a number from 1 to 65535.
    """
    host = ascii_host(parts.hostname or "")
    if not host or ("[" in parts.netloc) != ("[" in host):  # brackets without IPv6
        return None
    user = _escaped(parts.netloc.rpartition("@")[0], _USER_SAFE).replace("@", "%40")
    port = parts.port
    if port == 0:
        raise ValueError("invalid port: 0")
    suffix = "" if port is None or port == DEFAULT_PORTS[scheme] else f":{port}"
    return (f"{user}@" if user else "") + host + suffix


def ascii_host(host: str) -> str | None:
    """Return the host of a URL as DNS and the Host header use it; None if it is invalid.

    A name is in IDNA, an IPv6 address in brackets (without a zone, which is valid on one machine
    only), and an IPv4 address is in dotted decimal notation, from any form that browsers accept.
    """
    if ":" in host:
        return _ipv6(host)
    if not host.isascii():
        if len(host) > _MAX_HOST:
            return None
        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except UnicodeError:  # an IDNAError is one
            return None
    labels = host.removesuffix(".").split(".")
    if not _HOST.fullmatch(host) or len(host) > _MAX_HOST + 1:
        return None
    if any(not 0 < len(label) <= _MAX_LABEL for label in labels):
        return None
    return _ipv4(labels) if _NUMBER.fullmatch(labels[-1]) else host


def _ipv6(host: str) -> str | None:
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        return None
    if address.scope_id is not None:
        return None
    if address.ipv4_mapped:  # newer Python versions write its end in decimal
        low = int(address) & 0xFFFFFFFF
        return f"[::ffff:{low >> 16:x}:{low & 0xFFFF:x}]"
    return f"[{address}]"


def _ipv4(labels: list[str]) -> str | None:
    """Parse up to four decimal, octal or hexadecimal numbers; the last fills the rest."""
    if len(labels) > 4 or not all(_NUMBER.fullmatch(label) for label in labels):
        return None
    try:
        numbers = [_ipv4_number(label) for label in labels]
    except ValueError:
        return None
    last = numbers.pop()
    if any(number > 255 for number in numbers) or last >= 256 ** (4 - len(numbers)):
        return None
    value = last + sum(number << (24 - 8 * place) for place, number in enumerate(numbers))
    return str(ipaddress.IPv4Address(value))


def _ipv4_number(text: str) -> int:
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    return int(text, 8 if text.startswith("0") else 10)


def _without_dots(path: str) -> str:
    """Return `path` without `.` and `..` segments (RFC 3986, 5.2.4)."""
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
    """Return `text` with every byte outside `safe` as %XX; existing escapes are kept."""
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


@lru_cache(maxsize=2048)
def host_key(url: str) -> str:
    """Return the key of a host for politeness: scheme, host and port (`https://host:443`).

    Raises:
        ValueError: the URL cannot be requested.
    """
    parts = urlsplit(request_url(url))
    host = parts.netloc.rpartition("@")[2]
    if parts.port is None:
        host = f"{host}:{DEFAULT_PORTS[parts.scheme]}"
    return f"{parts.scheme}://{host}"
