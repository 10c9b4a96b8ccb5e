"""All opt-out signals in headers and meta elements, including `noai`, `noimageai` and `noml`
(conventions in X-Robots-Tag and robots meta elements).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pipeline.web.opt_out.robots_lines import agent_names
from pipeline.web.opt_out.signals import Signal, signal_disallows, usage_disallows
from pipeline.web.opt_out.tdmrep import meta_reservation

_DIRECTIVES = ("noai", "noimageai", "noml")
_SEPARATOR = re.compile(r"[,;\s]+")


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
