"""Sizes, durations and counts as text."""

from __future__ import annotations


def format_bytes(count: float) -> str:
    """Format bytes in powers of 1000, such as `12.3 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def count_of(count: float, what: str, plural: str = "") -> str:
    """Return a number with its noun, such as `1 image`, `1,234 images` or `0.5 hours`."""
    number = f"{count:g}" if isinstance(count, float) else f"{count:,}"
    return f"{number} {what if count == 1 else plural or what + 's'}"


def line_interval(elapsed: float, shortest: float = 5.0) -> float:
    """Return the seconds from one line of progress to the next in a log, after `elapsed` seconds of
    work: a tenth of them, at most a minute, so that a night of work takes hundreds of lines."""
    return min(60.0, max(shortest, elapsed / 10))


def format_duration(seconds: float) -> str:
    """Format seconds as `1:02:03`, or `2:03` below an hour."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
