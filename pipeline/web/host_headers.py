"""Headers with secrets, each for one host: from the user and password of a URL, or a recipe's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from pipeline.credentials import basic_authorization, origin, split_user
from pipeline.web.politeness import Politeness
from pipeline.web.urls import canonical_url, dropped_users

SECRET = frozenset({"authorization", "cookie", "proxy-authorization"})
"""Headers, in lower case, that no host gets but those for which they are meant."""

HostHeaders = dict[str, dict[str, str]]
T = TypeVar("T")


def take_credentials(value: T, found: HostHeaders) -> T:
    """`value` with every http(s) URL in it without its user and password; `found` gets them, as
    headers by origin."""
    return _taken(value, found)  # type: ignore[no-any-return]


def _taken(value: Any, found: HostHeaders) -> Any:
    if isinstance(value, str):
        bare, user = split_user(value) if "@" in value and "://" in value else (value, "")
        where = _origin(bare)
        if not user or not where:
            return value
        found.setdefault(where, {}).update(basic_authorization(user))
        return bare
    if isinstance(value, Mapping):
        return {key: _taken(one, found) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_taken(one, found) for one in value)
    if is_dataclass(value) and not isinstance(value, type):
        before = {one.name: getattr(value, one.name) for one in fields(value) if one.init}
        after = {name: _taken(one, found) for name, one in before.items()}
        changed = {name: one for name, one in after.items() if one != before[name]}
        return replace(value, **changed) if changed else value
    return value


def with_host_headers(
    politeness: Politeness, found: HostHeaders, starts: Iterable[str]
) -> Politeness:
    """Return the rules with the headers `found`, and with the secret ones of `headers` only for the
    hosts of the recipe's `starts` (for every host if none of them is a URL)."""
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
    """Return the origin as the requests have it, "" of what is not an http(s) URL."""
    return origin(canonical_url(url) or "")


def dropped_credentials(politeness: Politeness) -> dict[str, int]:
    """Return how many links with a user and password were seen, by host, where the recipe has
    none."""
    return {
        where: count
        for where, count in sorted(dropped_users.items())
        if origin(where) not in politeness.host_headers
    }


def request_headers(politeness: Politeness, url: str) -> dict[str, str]:
    """Return the headers that only the host of `url` gets; those of its own user and password are
    last."""
    _, user = split_user(url)
    return {**politeness.host_headers.get(origin(url), {}), **basic_authorization(user)}
