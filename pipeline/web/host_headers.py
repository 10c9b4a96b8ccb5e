"""Secret headers for single hosts, from the recipe or a user and password in a URL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from pipeline.credentials import basic_authorization, origin, split_user
from pipeline.web.politeness import Politeness
from pipeline.web.urls import canonical_url, dropped_users

SECRET = frozenset({"authorization", "cookie", "proxy-authorization"})
"""Secret headers, in lower case: only the hosts that they are meant for get them."""

HostHeaders = dict[str, dict[str, str]]
T = TypeVar("T")


def take_credentials(value: T, found: HostHeaders) -> T:
    """Return `value` with the user and password removed from every http(s) URL in it.

    They are added to `found`, as headers by origin.
    """
    return _strip(value, found)  # type: ignore[no-any-return]


def _strip(value: Any, found: HostHeaders) -> Any:
    if isinstance(value, str):
        bare, user = split_user(value) if "@" in value and "://" in value else (value, "")
        where = _origin(bare)
        if not user or not where:
            return value
        found.setdefault(where, {}).update(basic_authorization(user))
        return bare
    if isinstance(value, Mapping):
        return {key: _strip(one, found) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_strip(one, found) for one in value)
    if is_dataclass(value) and not isinstance(value, type):
        before = {one.name: getattr(value, one.name) for one in fields(value) if one.init}
        after = {name: _strip(one, found) for name, one in before.items()}
        changed = {name: one for name, one in after.items() if one != before[name]}
        return replace(value, **changed) if changed else value
    return value


def with_host_headers(
    politeness: Politeness, found: HostHeaders, starts: Iterable[str]
) -> Politeness:
    """Return the politeness options with the headers `found`. Secret headers in `headers` are
    limited to the hosts of the recipe's `starts` (not limited if none of them is a URL)."""
    hosts = {where for url in starts if (where := _origin(url))}
    secret = {name: value for name, value in politeness.headers.items() if name.lower() in SECRET}
    if not hosts:
        secret = {}
    by_host: HostHeaders = {where: dict(secret) for where in hosts} if secret else {}
    for where, headers in found.items():
        by_host[where] = {**headers, **by_host.get(where, {})}
    for url, headers in politeness.host_headers.items():
        bare, user = split_user(url)
        where = _origin(bare)
        by_host[where] = {**by_host.get(where, {}), **basic_authorization(user), **headers}
    rest = {name: value for name, value in politeness.headers.items() if name not in secret}
    if by_host == politeness.host_headers and rest == politeness.headers:
        return politeness
    return replace(politeness, headers=rest, host_headers=by_host)


def _origin(url: str) -> str:
    """Return the origin of the canonical URL; empty if `url` is not an http(s) URL."""
    return origin(canonical_url(url) or "")


def dropped_credentials(politeness: Politeness) -> dict[str, int]:
    """Return the number of links with a user and password per host for which the recipe has no
    headers."""
    return {
        where: count
        for where, count in sorted(dropped_users.items())
        if origin(where) not in politeness.host_headers
    }


def request_headers(politeness: Politeness, url: str) -> dict[str, str]:
    """Return the headers for the host of `url`; a user and password in `url` take precedence."""
    _, user = split_user(url)
    return {**politeness.host_headers.get(origin(url), {}), **basic_authorization(user)}
