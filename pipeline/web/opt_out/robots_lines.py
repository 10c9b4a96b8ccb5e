"""The lines of a robots.txt that state usage preferences and licences.

Protego decides who may fetch what and ignores these lines. Groups are chosen as in RFC 9309: all
that name this agent, or else all for `*`. Lines before the first group apply to all agents.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import quote, urljoin, urlsplit

from pipeline.web.opt_out.signals import Signal, signal_disallows, usage_disallows

MAX_RULES = 10_000
MAX_LICENSES = 4
"""Maximum number of licences per robots.txt: each costs a request."""

_NEW_LINE = re.compile(r"\r\n|\r|\n")
_DISALLOWS: dict[str, Callable[[str], bool]] = {
    "content-signal": signal_disallows,
    "content-usage": usage_disallows,
}
_NO_RULES = ("sitemap", "host")
"""Lines for the whole file, which do not end a list of agents."""

_UNRESERVED = re.compile(r"%(2d|2e|3\d|4[1-9a-f]|5[0-9af]|6[1-9a-f]|7[0-9ae])", re.IGNORECASE)
_ESCAPE = re.compile(r"%[0-9a-fA-F]{2}")
_SAFE = "/?:@!$&'()*+,;=%~#[]"


@dataclass(frozen=True)
class _Rule:
    """A preference for the paths that match `pattern`."""

    name: str
    pattern: str
    disallows: bool


@dataclass
class _Group:
    agents: list[str] = field(default_factory=list)
    rules: list[_Rule] = field(default_factory=list)
    licenses: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class RobotsLines:
    """The usage preferences and licences for one agent on one host."""

    rules: tuple[_Rule, ...] = ()
    licenses: tuple[str, ...] = ()

    def signals(self, url: str) -> list[Signal]:
        """Return the preferences against training for `url`.

        The longest matching pattern counts; if several of that length differ, disallowing wins.
        """
        if not self.rules:
            return []
        target = target_path(url)
        signals = []
        for name in _DISALLOWS:
            fitting = [rule for rule in self.rules
                       if rule.name == name and matches(rule.pattern, target)]  # fmt: skip
            longest = max((len(rule.pattern) for rule in fitting), default=0)
            if any(rule.disallows for rule in fitting if len(rule.pattern) == longest):
                signals.append(Signal(name, "robots.txt"))
        return signals


NO_LINES = RobotsLines()


def read_robots_lines(text: str, url: str, user_agent: str) -> RobotsLines:
    """Return the lines for `user_agent` of a robots.txt that was fetched from `url`."""
    everyone, groups = _groups(text)
    names = agent_names(user_agent)
    chosen = [group for group in groups if names & set(group.agents)]
    chosen = chosen or [group for group in groups if "*" in group.agents]
    rules = [rule for group in (everyone, *chosen) for rule in group.rules]
    # A licence in the agent's group replaces those of the whole file (RSL 1.0).
    licenses = [license for group in chosen for license in group.licenses] or everyone.licenses
    found = [_absolute(license, url) for license in licenses]
    return RobotsLines(
        tuple(rules[:MAX_RULES]), tuple(dict.fromkeys(filter(None, found)))[:MAX_LICENSES]
    )


def agent_names(user_agent: str) -> set[str]:
    """Return the names that a site may use for this agent, in lower case: its product token, and
    everything before the `/`."""
    name = user_agent.partition("/")[0].strip().lower()
    token = re.match(r"[a-z0-9_-]*", name)
    return {name, token[0] if token else ""} - {""}


def _groups(text: str) -> tuple[_Group, list[_Group]]:
    """Return the group for all agents, and the other groups."""
    everyone = _Group()
    groups: list[_Group] = []
    current = everyone
    in_agents = after_blank = False
    for key, value in _lines(text):
        if not key:
            after_blank = True
            continue
        if key == "user-agent":
            if not in_agents:
                current = _Group()
                groups.append(current)
            current.agents.append(value.partition("/")[0].strip().lower())
            in_agents = True
        elif key == "license":
            # A licence after a blank line behind a group applies to the whole site.
            apart = after_blank and not in_agents
            (everyone if apart else current).licenses.append(value)
            in_agents = False
        elif key not in _NO_RULES:
            in_agents = False
            if key in _DISALLOWS:
                current.rules.append(_rule(key, value))
        after_blank = False
    return everyone, groups


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """Yield each line's key, in lower case, and value; an empty key for a blank line."""
    for line in _NEW_LINE.split(text.removeprefix("\ufeff")):
        content = line.partition("#")[0].strip()
        if not line.strip():
            yield "", ""
        elif content:
            key, _, value = content.partition(":")
            yield key.strip().lower(), value.strip()


def _rule(name: str, value: str) -> _Rule:
    pattern = "/"
    if value.startswith("/"):
        pattern, _, value = value.replace("\t", " ").partition(" ")
    return _Rule(name, normalize(pattern), _DISALLOWS[name](value))


def _absolute(license: str, url: str) -> str:
    try:
        return urljoin(url, license) if license else ""
    except ValueError:
        return ""


def normalize(path: str) -> str:
    """Return a path or pattern with escapes normalised as in RFC 9309: unreserved characters are
    decoded (but not `%2A` and `%24`, which mean literal characters), others are in capitals."""
    path = quote(path, safe=_SAFE, errors="replace")
    path = _UNRESERVED.sub(_unescape, path)
    return _ESCAPE.sub(lambda match: match[0].upper(), path)


def _unescape(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    return character if re.match(r"[A-Za-z0-9._~-]", character) else match[0].upper()


def target_path(url: str) -> str:
    """Return the normalised path and query of `url`, with which patterns are compared."""
    parts = urlsplit(url)
    return normalize((parts.path or "/") + (f"?{parts.query}" if parts.query else ""))


def matches(pattern: str, target: str) -> bool:
    """Return True if the normalised `pattern` matches a prefix of the normalised `target`."""
    anchored = pattern.endswith("$")
    first, *rest = (pattern[:-1] if anchored else pattern).split("*")
    if not target.startswith(first):
        return False
    if not rest:
        return not anchored or target == first
    position = len(first)
    *middle, last = rest
    for part in middle:
        found = target.find(part, position)
        if found < 0:
            return False
        position = found + len(part)
    if anchored:
        return len(target) - len(last) >= position and target.endswith(last)
    return target.find(last, position) >= 0
