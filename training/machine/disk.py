"""Room on the disk: how much there is, and what a full one looks like."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class DiskFull(Exception):
    """There is no room for what is to be written; what was written before is whole."""


def is_full(error: OSError) -> bool:
    """Whether the error means no room: a full disk, a quota, a limit on a file's size."""
    return error.errno in _FULL


def free_bytes(folder: Path) -> int:
    """The bytes that this user may still write to the disk of `folder`."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free
