"""Opt-outs in headers and meta elements, and tdmrep.json.

TDM Reservation Protocol (W3C community group, final report of 2024-05-10): a site reserves the
rights to text and data mining in `/.well-known/tdmrep.json`, by headers, or by meta elements; each
overrides the one before. Values other than `0` and `1` are ignored. `noai`, `noimageai` and `noml`
are conventions in X-Robots-Tag and robots meta elements.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.outside_text import parse_json
from pipeline.web.opt_out.robots_lines import agent_names, matches, normalize, target_path
from pipeline.web.opt_out.signals import Signal, signal_disallows, usage_disallows

PATH = "/.well-known/tdmrep.json"
MAX_RULES = 10_000

_DIRECTIVES = ("noai", "noimageai", "noml")
_SEPARATOR = re.compile(r"[,;\s]+")


@dataclass(frozen=True)
class Reservation:
    """Whether one place reserves the rights, the URL of the policy, and the name of the place."""

    reserved: bool
    policy: str = ""
    where: str = ""

    def signals(self) -> list[Signal]:
        return [Signal("tdm-reservation", self.where, self.policy)] if self.reserved else []


@dataclass(frozen=True)
class _Rule:
    pattern: str
    reservation: Reservation


@dataclass(frozen=True)
class TdmRep:
    """The rules of a tdmrep.json, in order."""

    rules: tuple[_Rule, ...] = ()

    def reservation(self, url: str) -> Reservation | None:
        """Return the reservation of the first rule that matches `url`, or None."""
        if not self.rules:
            return None
        target = target_path(url)
        return next((r.reservation for r in self.rules if matches(r.pattern, target)), None)


def read_tdmrep(body: bytes) -> TdmRep:
    """Return the rules of a tdmrep.json; none if it is invalid."""
    try:
        values = parse_json(body)
    except (ValueError, RecursionError):
        return TdmRep()
    if isinstance(values, dict):
        values = [values]
    if not isinstance(values, list):
        return TdmRep()
    rules = (_rule(value) for value in values[:MAX_RULES])
    return TdmRep(tuple(rule for rule in rules if rule is not None))


def _rule(value: Any) -> _Rule | None:
    if not isinstance(value, dict):
        return None
    location, reserved = value.get("location"), _reserved(value.get("tdm-reservation"))
    if not isinstance(location, str) or reserved is None:
        return None
    location = location.strip()
    pattern = normalize(location if location.startswith(("/", "*")) else f"/{location}")
    return _Rule(pattern, Reservation(reserved, _policy(value.get("tdm-policy")), PATH))


def header_reservation(headers: Mapping[str, str]) -> Reservation | None:
    """Return the reservation in headers (names in lower case), or None."""
    reserved = _reserved(headers.get("tdm-reservation"))
    if reserved is None:
        return None
    return Reservation(reserved, _policy(headers.get("tdm-policy")), "header")


def meta_reservation(metas: Sequence[tuple[str, str]]) -> Reservation | None:
    """Return the reservation in meta elements, given as name and content, or None."""
    found = [_reserved(content) for name, content in metas if name == "tdm-reservation"]
    stated = [reserved for reserved in found if reserved is not None]
    if not stated:
        return None
    policies = [content for name, content in metas if name == "tdm-policy"]
    return Reservation(any(stated), _policy(policies[0] if policies else ""), "meta element")


def _reserved(value: Any) -> bool | None:
    if isinstance(value, str):
        # A repeated header arrives as "1, 1".
        parts = {part.strip() for part in value.split(",")}
        return "1" in parts if parts & {"0", "1"} else None
    if isinstance(value, int | float) and not isinstance(value, bool) and value in (0, 1):
        return value == 1
    return None


def _policy(value: Any) -> str:
    return value.strip()[:500] if isinstance(value, str) else ""


def header_signals(headers: Mapping[str, str], user_agent: str) -> list[Signal]:
    """Return the signals in the headers of a response, except `tdm-reservation` and licences."""
    signals = []
    names = agent_names(user_agent) | {"", "*"}
    for part in headers.get("x-robots-tag", "").lower().split(","):
        agent, _, text = part.rpartition(":")
        if agent.strip() in names:
            signals += _signals(text, "X-Robots-Tag")
    if usage_disallows(headers.get("content-usage", "")):
        signals.append(Signal("content-usage", "header"))
    if signal_disallows(headers.get("content-signal", "")):
        signals.append(Signal("content-signal", "header"))
    return list(dict.fromkeys(signals))


def meta_signals(metas: Sequence[tuple[str, str]], user_agent: str) -> list[Signal]:
    """Return the signals in a page's meta elements, given as name (in lower case) and content."""
    signals = []
    names = agent_names(user_agent) | {"robots"}
    for name, content in metas:
        if name in names:
            signals += _signals(content.lower(), "meta element")
    reservation = meta_reservation(metas)
    if reservation is not None:
        signals += reservation.signals()
    return list(dict.fromkeys(signals))


def _signals(text: str, where: str) -> list[Signal]:
    return [Signal(word, where) for word in _SEPARATOR.split(text) if word in _DIRECTIVES]
