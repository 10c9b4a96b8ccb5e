"""Matches images with the files or entries that describe them, by their paths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, takewhile

from pipeline.importers.tree import base_name

_MOST = 64
"""More paths that share only their last components are not compared."""


def match_paths(wanted: Sequence[str], there: Iterable[str]) -> dict[str, list[str]]:
    """Return which of the paths `there` belongs to each of the paths `wanted`.

    It has the same last component, and as many components before it in common as possible; of
    several, it has the most first components in common. A path that fits another wanted one better
    belongs only to that one.

    Returns:
        by the wanted path, its match, or several that fit equally well; wanted paths without a
        match are left out.
    """
    names = {base_name(path) for path in wanted}
    left, free = list(wanted), [path for path in there if base_name(path) in names]
    found: dict[str, list[str]] = {}
    for count in range(max((path.count("/") + 1 for path in wanted), default=0), 0, -1):
        matches = _best_matches(left, free, count)
        claimed = set(chain.from_iterable(matches.values()))
        left = [path for path in left if path not in matches]
        free = [path for path in free if path not in claimed]
        found |= matches
    return found


def _best_matches(wanted: Sequence[str], there: Sequence[str], count: int) -> dict[str, list[str]]:
    """Return the matches of paths with the same last `count` components."""
    by_end: dict[str, list[str]] = {}
    for path in there:
        by_end.setdefault(_end(path, count), []).append(path)
    chosen: dict[str, tuple[int, list[str]]] = {}
    best: dict[str, int] = {}
    for path in wanted:
        near = by_end.get(_end(path, count), [])
        common = [_common(path, one) if len(near) <= _MOST else 0 for one in near]
        most = max(common, default=0)
        chosen[path] = most, [one for one, n in zip(near, common, strict=True) if n == most]
        best.update((one, most) for one in chosen[path][1] if most >= best.get(one, 0))
    kept = {
        path: [one for one in near if best[one] == most] for path, (most, near) in chosen.items()
    }
    return {path: near for path, near in kept.items() if near}


def _end(path: str, count: int) -> str:
    return "/".join(path.rsplit("/", count)[-count:])


def _common(one: str, other: str) -> int:
    """Return the number of first components that two paths have in common."""
    pairs = zip(one.split("/"), other.split("/"), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
