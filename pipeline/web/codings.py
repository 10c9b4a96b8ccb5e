"""Decodes Content-Encoding as browsers do, for every transport."""

from __future__ import annotations

import zlib
from typing import Any

_GZIP = ("gzip", "x-gzip")
_OTHERS = ("br", "zstd", "compress", "x-compress", "dcb", "dcz")
_MAGIC = b"\x1f\x8b"
_MAX_MEMBERS = 10_000
_HEAD = 5
"""Number of bytes needed to detect the coding."""


class CodingError(Exception):
    """A body cannot be decoded; `kind` is the failure kind."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


class Decoder:
    """Decodes gzip or deflate piece by piece, up to a size limit.

    A body that is declared as gzip or deflate but is neither is returned unchanged: some servers
    declare a coding and send plain bytes. So is a body with an unknown coding, such as `utf-8`.

    Args:
        header: the Content-Encoding header.
        limit: at most `limit` + 1 bytes are returned; `is_over` is then true.

    Raises:
        CodingError: the header names a coding that was not requested, or several.
    """

    def __init__(self, header: str, limit: int) -> None:
        codings = [part.strip().lower() for part in header.split(",")]
        known = [one for one in codings if one in (*_GZIP, *_OTHERS, "deflate")]
        if len(known) > 1 or set(known) & set(_OTHERS):
            raise CodingError(
                "protocol", f"Content-Encoding {header[:60]}, which was not requested"
            )
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
        """Return the decoded bytes of `data`.

        Raises:
            CodingError: the data is damaged.
        """
        if not self._begun:
            self._start += data
            if len(self._start) < _HEAD:
                return b""
            data, self._start = self._start, b""
            self._begin(data)
        return self._decoded(data)

    def finish(self) -> bytes:
        """Return the last decoded bytes.

        Raises:
            CodingError: the body is truncated.
        """
        rest = b""
        if not self._begun and self._start:
            self._begin(self._start)
            rest = self._decoded(self._start)
        if self._unpack is not None and not self._unpack.eof and not self.is_over:
            raise CodingError("truncated", f"Content-Encoding {self._coding} breaks off")
        return rest

    def _begin(self, data: bytes) -> None:
        self._begun = True
        if data.startswith(_MAGIC):  # even if the header says deflate
            self._unpack = zlib.decompressobj(zlib.MAX_WBITS | 16)
        elif self._coding == "deflate":
            # With a zlib header, or raw deflate as some servers send it.
            for bits in (zlib.MAX_WBITS, -zlib.MAX_WBITS):
                try:
                    zlib.decompressobj(bits).decompress(data, 1)
                except zlib.error:
                    continue
                self._unpack = zlib.decompressobj(bits)
                return

    def _decoded(self, data: bytes) -> bytes:
        if self._unpack is None:
            data = data[: self._room]
            self._nbytes += len(data)
            return data
        pieces = []
        try:
            while data and not self.is_over:
                if self._unpack.eof:  # another gzip member may follow; other bytes are ignored
                    self._members += 1
                    if not data.startswith(_MAGIC) or self._members > _MAX_MEMBERS:
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
