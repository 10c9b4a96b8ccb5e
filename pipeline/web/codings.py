"""Content-Encoding undone, the same for every transport, as browsers do."""

from __future__ import annotations

import zlib
from typing import Any

_GZIP = ("gzip", "x-gzip")
_OTHERS = ("br", "zstd", "compress", "x-compress", "dcb", "dcz")
_MAGIC = b"\x1f\x8b"
_MOST_MEMBERS = 10_000
_HEAD = 5
"""Bytes that tell whether a body is in its coding."""


class CodingError(Exception):
    """A body that cannot be had from its coding; `kind` is that of the failure."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


class Decoder:
    """Undoes gzip or deflate piece by piece. What it unpacks to is bounded.

    A body that says gzip or deflate and begins as neither is taken as it is: some servers name the
    coding and send the plain bytes. So is one with a coding that nobody knows, such as `utf-8`.

    Args:
        header: the Content-Encoding header.
        limit: no more than this and one byte comes out; `is_over` says that there was more.

    Raises:
        CodingError: a coding that was not asked for, or several.
    """

    def __init__(self, header: str, limit: int) -> None:
        codings = [part.strip().lower() for part in header.split(",")]
        known = [one for one in codings if one in (*_GZIP, *_OTHERS, "deflate")]
        if len(known) > 1 or set(known) & set(_OTHERS):
            raise CodingError("protocol", f"Content-Encoding {header[:60]}, which nobody asked for")
        self._coding = known[0] if known else ""
        self._limit = limit
        self._nbytes = 0
        self._members = 0
        self._start = b""
        self._begun = not self._coding
        self._unpack: Any = None

    @property
    def is_over(self) -> bool:
        """Whether the body is longer than the limit."""
        return self._nbytes > self._limit

    def feed(self, data: bytes) -> bytes:
        """Return what `data` adds to the body.

        Raises:
            CodingError: the data breaks the coding.
        """
        if not self._begun:
            self._start += data
            if len(self._start) < _HEAD:
                return b""
            data, self._start = self._start, b""
            self._begin(data)
        return self._unpacked(data)

    def finish(self) -> bytes:
        """Return the body is over: the last of it.

        Raises:
            CodingError: it breaks off in the middle.
        """
        rest = b""
        if not self._begun and self._start:
            self._begin(self._start)
            rest = self._unpacked(self._start)
        if self._unpack is not None and not self._unpack.eof and not self.is_over:
            raise CodingError("truncated", f"Content-Encoding {self._coding} breaks off")
        return rest

    def _begin(self, data: bytes) -> None:
        self._begun = True
        if data.startswith(_MAGIC):  # whatever the header calls it
            self._unpack = zlib.decompressobj(zlib.MAX_WBITS | 16)
        elif self._coding == "deflate":
            # That of zlib, or the bare one that some servers send.
            for bits in (zlib.MAX_WBITS, -zlib.MAX_WBITS):
                try:
                    zlib.decompressobj(bits).decompress(data, 1)
                except zlib.error:
                    continue
                self._unpack = zlib.decompressobj(bits)
                return

    def _unpacked(self, data: bytes) -> bytes:
        if self._unpack is None:
            data = data[: self._room]
            self._nbytes += len(data)
            return data
        pieces = []
        try:
            while data and not self.is_over:
                if self._unpack.eof:  # gzip may go on; anything else after its end means nothing
                    self._members += 1
                    if not data.startswith(_MAGIC) or self._members > _MOST_MEMBERS:
                        break
                    self._unpack = zlib.decompressobj(zlib.MAX_WBITS | 16)
                pieces.append(self._unpack.decompress(data, self._room))
                self._nbytes += len(pieces[-1])
                data = self._unpack.unused_data
        except zlib.error as error:
            raise CodingError("protocol", f"Content-Encoding {self._coding}: {error}") from None
        return b"".join(pieces)

    @property
    def _room(self) -> int:
        return max(0, self._limit - self._nbytes + 1)
