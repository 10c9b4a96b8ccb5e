"""Standard output and standard error that do not make a command fail.

The reader of a pipe may stop reading, a terminal may be closed, and its encoding may lack
characters.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO, cast

from pipeline.errors import is_disk_full


class ResilientStream:
    """A text stream that writes what `stream` accepts and drops the rest.

    Characters that its encoding lacks become escapes. Once its reader is gone, all output is
    dropped. With `is_result`, a full disk still raises `OSError`, because the output is the
    command's result.
    """

    def __init__(self, stream: TextIO, is_result: bool = False) -> None:
        self._stream = stream
        self._is_result = is_result

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding or "ascii"
            self.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except ValueError:  # it is closed
            pass
        except OSError as error:
            self._drop(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except ValueError:
            pass
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        """Discard all output from now on, so that Python can end without a message."""
        if self._is_result and is_disk_full(error):
            raise error
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def resilient_output() -> Iterator[None]:
    """Make standard output and standard error resilient streams in the block."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _resilient(sys.stdout, is_result=True), _resilient(sys.stderr)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        sys.stdout, sys.stderr = before


def _resilient(stream: TextIO | None, is_result: bool = False) -> TextIO:
    if stream is None:  # its descriptor was closed when Python started
        stream = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 kept open
    return cast(TextIO, ResilientStream(stream, is_result))
