"""Reads texts from outside line by line: gzipped or not, in any usual encoding."""

from __future__ import annotations

import codecs
import gzip
import io
import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import IO, Any, cast

from pipeline.outside_text import REPLACEMENT, text_encoding
from pipeline.sources.interface import CorruptFile, Notes

GZIP = b"\x1f\x8b"
MAX_LINE = 16 << 20
"""Maximum length of a text line in bytes."""


def _check_first_line(line: bytes) -> None:
    """Refuse a file that cannot be read line by line.

    Raises:
        CorruptFile: its lines end with CR alone.
    """
    start, cr, _ = line.rstrip(b"\r\n").partition(b"\r")
    if cr and start.count(b'"') % 2 == 0:  # the CR is not within quotes
        raise CorruptFile("its lines end with CR alone; save it with LF as the end of each line")


def is_packed(head: bytes) -> bool:
    """Return True if a file that starts with `head` cannot be read from any offset: it is gzipped,
    or is text in UTF-16 or UTF-32."""
    return head.startswith(GZIP) or not text_encoding(head).startswith("utf-8")


def unpack_text(file: IO[bytes], notes: Notes) -> IO[bytes]:
    """Return a text, gzipped or not, in UTF-8; `notes` says if it was UTF-16 or UTF-32."""
    head = file.read(4)
    file.seek(0)
    if head.startswith(GZIP):
        file = cast(IO[bytes], gzip.GzipFile(fileobj=file))
        head = file.read(4)
        file.seek(0)
    encoding = text_encoding(head)
    if encoding.startswith("utf-8"):
        return file
    name = encoding[:6].replace("-", "_")
    notes.add(name, f"read as {name.upper().replace('_', '-')}")
    return io.BufferedReader(_Utf8(file, encoding))


class _Utf8(io.RawIOBase):
    """A text in another encoding, read as UTF-8."""

    def __init__(self, file: IO[bytes], encoding: str) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        self._waiting = b""
        self._is_first = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = b"x"
        while data and not self._waiting:
            data = self._file.read(io.DEFAULT_BUFFER_SIZE)
            text = self._decoder.decode(data, final=not data)
            if text and self._is_first:
                text, self._is_first = text.removeprefix("\ufeff"), False
            self._waiting = text.encode(errors="replace")
        count = min(len(buffer), len(self._waiting))
        buffer[:count], self._waiting = self._waiting[:count], self._waiting[count:]
        return count


class Lines:
    """Iterates over the lines of a text file. `offset` is the start of the next line.

    A line longer than `MAX_LINE` bytes is counted as bad and skipped without reading it into
    memory. A line that is not UTF-8 is read as Latin-1 (the encoding of older spreadsheets), and
    counted.
    """

    def __init__(self, file: IO[bytes], offset: int, notes: Notes, most: float = math.inf) -> None:
        if file.seekable():
            file.seek(offset)
        self._file = file
        self._notes = notes
        self._most = most
        self._read = offset
        self._pushed_back: deque[tuple[str, int]] = deque()
        self.offset = offset

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._pushed_back:
            text, self.offset = self._pushed_back.popleft()
            return text
        while line := self._next_line():
            first = self._read == len(line)
            if first:
                _check_first_line(line)
            text = self._decode(line.removeprefix(codecs.BOM_UTF8) if first else line)
            if len(line) < MAX_LINE or line.endswith(b"\n"):
                self.offset = self._read
                return text
            self._notes.add("bad_line", f"more than {MAX_LINE >> 20} MiB: {text[:60]}")
            while (rest := self._next_line()) and not rest.endswith(b"\n"):
                pass
        raise StopIteration

    def _decode(self, line: bytes) -> str:
        try:
            return line.decode()
        except UnicodeDecodeError:
            text = decode_latin_1(line)
            self._notes.add("latin_1", text)
            return text

    def _next_line(self) -> bytes:
        line = self._file.readline(MAX_LINE)
        self._read += len(line)
        if self._read > self._most:
            raise CorruptFile(f"unpacks to more than source.max_gb = {self._most / 1e9:g} GB")
        return line

    def push_back(self, lines: Sequence[tuple[str, int]], offset: int) -> None:
        """Put back lines, each with the offset after it. The first starts at `offset`."""
        self._pushed_back.extendleft(reversed(lines))
        self.offset = offset


def decode_latin_1(data: bytes) -> str:
    """Decode a text that is not UTF-8 as Windows-1252, which contains Latin-1."""
    return data.decode("cp1252", "replace")


def is_array(file: IO[bytes]) -> bool:
    """Return True if a text in UTF-8 starts with a JSON array, without moving past its start."""
    if isinstance(file, io.BufferedReader):
        head = file.peek(1024)
    else:
        head = file.read(1024)
        file.seek(0)
    return head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


class WholeText:
    """A text in UTF-8 that is read in chunks, of at most `most` characters."""

    def __init__(self, file: IO[bytes], notes: Notes, most: float = math.inf) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._file, self._notes, self._left = file, notes, most

    def read(self, size: int) -> str:
        """Return about `size` characters; an empty text at the end."""
        data = self._file.read(size)
        text = self._decoder.decode(data, final=not data)
        self._left -= len(text)
        if self._left < 0:
            raise CorruptFile("unpacks to more than source.max_gb")
        if REPLACEMENT in text:
            place = text.index(REPLACEMENT)
            self._notes.add("not_utf8", text[max(0, place - 40) : place + 40])
        return text or (self.read(size) if data else "")
