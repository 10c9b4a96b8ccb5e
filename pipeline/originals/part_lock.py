"""Who works on a part: a lock file beside it, so that two processes never write the same part."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from pipeline.errors import UserError


class PartLocked(UserError):
    """Another process works on the part."""


class PartLock:
    """Holds the part whose lock file is `path` until `release` or until the process ends.

    The file holds the number of the process and is removed on release; what a killed process
    leaves is taken over by the next one.

    Raises:
        PartLocked: another process, or another writer of this one, holds the part.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = _locked(path)
        self._file.truncate(0)
        self._file.write(str(os.getpid()).encode())

    def release(self) -> None:
        """Let go of the part; a second call does nothing."""
        if not self._file.closed:
            # While it is still held: whoever opened this file before finds it gone.
            self._path.unlink(missing_ok=True)
            self._file.close()


def _locked(path: Path) -> IO[bytes]:
    while True:
        file = path.open("a+b", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                return file
        except BlockingIOError:
            file.seek(0)
            holder = file.read().decode(errors="replace") or "unknown"
            file.close()
            raise PartLocked(f"{path}: process {holder} is working on this part") from None
        except FileNotFoundError:
            pass  # released since it was opened
        file.close()
