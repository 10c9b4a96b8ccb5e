"""Timeouts and minimum speed of one transfer, for every transport."""

from __future__ import annotations

from pipeline.web.politeness import Politeness

_MANY_PIECES = 200_000
_TINY_PIECE = 32
TINY_PIECES = f"a body in pieces of less than {_TINY_PIECE} bytes"
"""The message for a transfer with `has_tiny_pieces`."""


class TransferTimeouts:
    """Checks the speed of a transfer that started at `now` (seconds of a monotonic clock).

    The timeouts apply to the whole request, not to a socket: a slow drip keeps a socket alive
    forever.
    """

    def __init__(self, politeness: Politeness, now: float) -> None:
        self._politeness = politeness
        self._start = now
        self._first: float | None = None
        self._window = now
        self._received = 0
        self._received_before = 0
        self._pieces = 0

    @property
    def has_started(self) -> bool:
        """Whether the headers of the response have arrived."""
        return self._first is not None

    def elapsed(self, now: float) -> float:
        """Return the seconds since the start."""
        return now - self._start

    def received(self, nbytes: int, now: float) -> None:
        """Record that the headers (0) or `nbytes` of the body arrived."""
        if self._first is None:
            self._first = self._window = now
        self._received += nbytes
        self._pieces += 1

    @property
    def has_tiny_pieces(self) -> bool:
        """Whether the body arrives in so many tiny pieces that it occupies the CPU."""
        return self._pieces > _MANY_PIECES and self._received < _TINY_PIECE * self._pieces

    def timeout_kind(self, now: float) -> str | None:
        """Return the failure kind if the transfer is too late or too slow at `now`, else None."""
        polite = self._politeness
        if now - self._start > polite.total_timeout:
            return "total_timeout"
        if self._first is None:
            return "first_byte_timeout" if now - self._start > polite.first_byte_timeout else None
        if now - self._window >= polite.min_speed_window:
            speed = (self._received - self._received_before) / (now - self._window)
            self._window, self._received_before = now, self._received
            if speed < polite.min_speed:
                return "too_slow"
        return None
