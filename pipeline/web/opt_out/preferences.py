"""Parses usage preferences: IETF AIPREF `Content-Usage` and Cloudflare's `Content-Signal`.

AIPREF: draft-ietf-aipref-attach-05 (2026-08-19) and draft-ietf-aipref-vocab-08 (2026-09-14).
"""

from __future__ import annotations

import re

from pipeline.web.opt_out.structured import parse_tokens

_USAGE_LABELS = ("train-genai", "train-ai", "bots")
"""The labels that cover training a GAN, the most specific first. `train-ai` is from the current
draft; the others are from earlier drafts and still in use."""

_SIGNAL = re.compile(r"([a-z-]+)\s*=\s*([a-z]+)")


def usage_disallows(value: str) -> bool:
    """Return True if a `Content-Usage` value disallows training, by its most specific label."""
    members = parse_tokens(value)
    for label in _USAGE_LABELS:
        if members.get(label) in ("y", "n"):
            return members[label] == "n"
    return False


def signal_disallows(value: str) -> bool:
    """Return True if a `Content-Signal` value (`search=yes, ai-train=no`) disallows training."""
    return any(
        (match := _SIGNAL.fullmatch(part.strip().lower())) and match.groups() == ("ai-train", "no")
        for part in re.split(r"[,;]", value)
    )
