"""Which addresses a crawler may talk to."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet.

    Loopback, private, link-local (cloud metadata), multicast and reserved ones do not, nor do
    IPv6 forms that embed such an IPv4 address.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        embedded = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if embedded is None and ip in ipaddress.ip_network("64:ff9b::/96"):
            embedded = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if embedded is not None:
            return is_public(str(embedded))
    return ip.is_global and not ip.is_multicast


def resolve(host: str, port: int) -> list[str]:
    """The addresses of `host`.

    Raises:
        OSError: the name is not known (socket.gaierror).
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def host_key(url: str) -> str:
    """What counts as one host for politeness: scheme, name and port.

    Raises:
        ValueError: the URL has no host or a port that is not one.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"not an http(s) URL: {url}")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{parts.hostname}:{port}"
