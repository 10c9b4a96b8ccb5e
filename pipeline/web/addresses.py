"""Which IP addresses may be connected to, and what counts as one host."""

from __future__ import annotations

import ipaddress
import socket
from functools import lru_cache
from urllib.parse import urlsplit

from pipeline.web.urls import DEFAULT_PORTS, request_url

_NOT_PUBLIC_4 = tuple(map(ipaddress.IPv4Network, (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
    "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
    "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
    "168.63.129.16/32",  # the host of a virtual machine at Azure
)))  # fmt: skip
"""IANA's special-purpose address registry (RFC 6890), and multicast."""

_GLOBAL_6 = ipaddress.IPv6Network("2000::/3")
"""Global unicast. It excludes site-local, unique local and multicast addresses, and the forms that
embed an IPv4 address (::/80 and 64:ff9b:1::/48)."""

_NOT_PUBLIC_6 = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "3fff::/20")))
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_ISATAP = (0x00005EFE, 0x02005EFE)


def is_public(address: str) -> bool:
    """Return True if an IP address belongs to the public internet.

    Loopback, private, link-local (cloud metadata), multicast and reserved addresses do not, nor do
    IPv6 addresses that embed one of these.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in network for network in _NOT_PUBLIC_4)
    low = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    if ip.ipv4_mapped or ip in _NAT64:
        return is_public(str(low))
    if ip.sixtofour:
        return is_public(str(ip.sixtofour))
    if (int(ip) >> 32) & 0xFFFFFFFF in _ISATAP and not is_public(str(low)):
        return False
    return ip in _GLOBAL_6 and not any(ip in network for network in _NOT_PUBLIC_6)


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of `host`.

    Raises:
        OSError: the name is unknown or invalid (socket.gaierror).
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # raised by the codec "idna"
        raise socket.gaierror(socket.EAI_NONAME, str(error)) from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


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
