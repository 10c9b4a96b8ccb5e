"""Curves as an SVG file: panels side by side, each with its own axes and a shared legend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_COLORS = ("#2a78b8", "#d2691e", "#2e8b57", "#a0428f")
_WIDTH, _HEIGHT, _LEFT, _GAP, _TOP, _BOTTOM = 230, 150, 46, 20, 34, 52
_LOWEST = 1e-6


@dataclass(frozen=True)
class Curve:
    """Values at thousands of images."""

    label: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """Curves in one pair of axes; `limits` of the vertical one, from the values if None. With `log`
    it is logarithmic."""

    title: str
    curves: Sequence[Curve]
    limits: tuple[float, float] | None = None
    log: bool = False


def normalized(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points with values scaled to [0, 1]."""
    values = [value for _, value in points]
    low, high = min(values, default=0.0), max(values, default=1.0)
    return [(x, (value - low) / (high - low or 1.0)) for x, value in points]


def draw(panels: Sequence[Panel]) -> str:
    """Return the SVG text."""
    step = _LEFT + _WIDTH + _GAP
    labels = list(dict.fromkeys(curve.label for panel in panels for curve in panel.curves))
    colors = {label: _COLORS[number % len(_COLORS)] for number, label in enumerate(labels)}
    width, height = len(panels) * step, _TOP + _HEIGHT + _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}"><style>text{{font:11px sans-serif;fill:#222}}</style>'
        f'<rect width="{width}" height="{height}" fill="#fff"/>'
    ]
    for number, panel in enumerate(panels):
        parts += _panel(panel, number * step + _LEFT, colors)
    x = _LEFT
    for label in labels:
        parts.append(f'<path d="M{x} {height - 11}h16" stroke="{colors[label]}" stroke-width="2"/>')
        parts.append(f'<text x="{x + 20}" y="{height - 7}">{escape(label)}</text>')
        x += 40 + 6 * len(label)
    return "".join([*parts, "</svg>\n"])


def _panel(panel: Panel, left: int, colors: dict[str, str]) -> list[str]:
    points = [point for curve in panel.curves for point in curve.points]
    last = max((x for x, _ in points), default=1.0) or 1.0
    values = [value for _, value in points]
    low, high = panel.limits or (min(0.0, *values, 0.0), max([*values, _LOWEST]) * 1.05)
    if panel.log:
        low, high = max(_LOWEST, min([*values, 1.0])), max([*values, _LOWEST])

    def height(value: float) -> float:
        if panel.log:
            share = math.log(max(value, low) / low) / (math.log(high / low) or 1.0)
        else:
            share = (value - low) / ((high - low) or 1.0)
        return _TOP + _HEIGHT * (1 - min(max(share, 0.0), 1.0))

    bottom = _TOP + _HEIGHT
    parts = [
        f'<text x="{left}" y="{_TOP - 14}" font-weight="bold">{escape(panel.title)}</text>',
        f'<path d="M{left} {_TOP}V{bottom}H{left + _WIDTH}" fill="none" stroke="#999"/>',
        f'<text x="{left - 5}" y="{_TOP + 8}" text-anchor="end">{high:.3g}</text>',
        f'<text x="{left - 5}" y="{bottom}" text-anchor="end">{low:.2g}</text>',
        f'<text x="{left}" y="{bottom + 15}">0</text>',
        f'<text x="{left + _WIDTH}" y="{bottom + 15}" text-anchor="end">{last:.3g} kimg</text>',
    ]
    for curve in panel.curves:
        path = " ".join(f"{left + _WIDTH * x / last:.1f},{height(y):.1f}" for x, y in curve.points)
        parts.append(
            f'<polyline fill="none" stroke-width="1.5" stroke="{colors[curve.label]}" '
            f'points="{path}"/>'
        )
    return parts
