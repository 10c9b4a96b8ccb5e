"""The comparison of runs as one self-contained SVG chart, for light and dark themes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from pipeline.contract import write_atomic
from training.evaluation.comparison import EvaluationResult, display_names

_COLORS = ("#2a78b8", "#d2691e", "#2e8b57", "#a0428f", "#8a7a1e", "#c23b4b", "#4b5fc4", "#5b6770")
_WIDTH, _ROW, _LEFT, _RIGHT = 790, 22, 220, 90
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #222 } .soft { fill: #667 }
.paper { fill: #fff } .line { stroke: #bbb } .real { stroke: #888; stroke-dasharray: 4 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6e6e6 } .soft { fill: #a5abb3 } .paper { fill: #15181c } .line { stroke: #454b52 }
}
"""


def write_chart(path: Path, results: Sequence[EvaluationResult]) -> None:
    """Write the chart: bars with standard deviations per metric, a dashed line for the baseline,
    and curves of the evaluations during training."""
    write_atomic(path, chart(results))


def chart(results: Sequence[EvaluationResult]) -> str:
    """Return the SVG text."""
    parts, top = [], 20
    names = display_names([result.run for result in results])
    for number, (name, result) in enumerate(zip(names, results, strict=True)):
        parts.append(f'<rect x="16" y="{top - 9}" width="10" height="10" fill="{_color(number)}"/>')
        words = f"{name}, {result.seen / 1000:g} kimg, {result.samples} samples"
        parts.append(f'<text x="32" y="{top}">{escape(words)}</text>')
        top += _ROW
    parts.append(f'<path class="real" d="M16 {top - 4}H26"/>')
    parts.append(f'<text x="32" y="{top}">baseline: real images</text>')
    top += _ROW
    for name in dict.fromkeys(name for result in results for name in result.estimates):
        drawn, top = _bars(name, results, top + 14)
        parts += drawn
    for name in dict.fromkeys(name for result in results for name in result.history):
        drawn, top = _curves(name, results, top + 30)
        parts += drawn
    height = top + 20
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}"><style>{_STYLE}</style>'
        f'<rect class="paper" width="{_WIDTH}" height="{height}"/>' + "".join(parts) + "</svg>\n"
    )


def _color(number: int) -> str:
    return _COLORS[number % len(_COLORS)]


def _bars(name: str, results: Sequence[EvaluationResult], top: int) -> tuple[list[str], int]:
    """Draw the bars of one metric from `top`; return where they end."""
    found = [(number, result.estimates.get(name)) for number, result in enumerate(results)]
    ends = [
        max(value.value + value.sd, value.baseline or 0)
        for _, value in found
        if value is not None and math.isfinite(value.value)
    ]
    scale = (_WIDTH - _LEFT - _RIGHT) / max([*ends, 1e-12])
    parts = [f'<text x="16" y="{top + 12}">{escape(name)}</text>']
    for number, value in found:
        if value is None:
            continue
        end = _LEFT + max(0.0, value.value) * scale
        low, high = (_LEFT + max(0.0, value.value + sign * value.sd) * scale for sign in (-1, 1))
        middle = top + 8
        parts += [
            f'<rect x="{_LEFT}" y="{top}" width="{end - _LEFT:.1f}" height="15" '
            f'fill="{_color(number)}"/>',
            f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="#111" stroke-width="1.5"/>',
            f'<text class="soft" x="{max(end, high) + 6:.1f}" y="{top + 12}">'
            f"{value.value:.4g}</text>",
        ]
        if value.baseline is not None:
            at = _LEFT + max(0.0, value.baseline) * scale
            parts.append(f'<path class="real" d="M{at:.1f} {top - 3}V{top + 18}"/>')
        top += 18
    return parts, top


def _curves(name: str, results: Sequence[EvaluationResult], top: int) -> tuple[list[str], int]:
    """Draw the metric over images seen during training."""
    points = [point for result in results for point in result.history.get(name, [])]
    last = max(1, *(seen for seen, _ in points))
    most = max(1e-12, *(value for _, value in points))
    wide, high = _WIDTH - _LEFT - _RIGHT, 130
    parts = [
        f'<text x="16" y="{top}">{escape(name)}</text>',
        f'<text class="soft" x="16" y="{top + 16}">during training</text>',
        f'<path class="line" fill="none" d="M{_LEFT} {top}V{top + high}H{_LEFT + wide}"/>',
        f'<text class="soft" x="{_LEFT - 46}" y="{top + 6}">{most:.4g}</text>',
        f'<text class="soft" x="{_LEFT + wide - 50}" y="{top + high + 16}">{last / 1000:g} kimg'
        "</text>",
    ]
    for number, result in enumerate(results):
        curve = [
            f"{_LEFT + wide * seen / last:.1f},{top + high * (1 - max(0.0, value) / most):.1f}"
            for seen, value in result.history.get(name, [])
        ]
        color = _color(number)
        parts.append(f'<polyline fill="none" stroke="{color}" points="{" ".join(curve)}"/>')
        for x, y in (point.split(",") for point in curve):
            parts.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{color}"/>')
    return parts, top + high + 16
