"""Locks parts, so that two processes never write the same part."""

from __future__ import annotations

from pathlib import Path

from pipeline.atomic_io import FileLock, lock
from pipeline.errors import UserError


class PartLocked(UserError):
    """Another process works on the part."""


def lock_part(path: Path) -> FileLock:
    """Lock the part whose lock file is `path`.

    Raises:
        PartLocked: another process, or another writer in this one, has locked the part.
    """
    return lock(
        path,
        lambda holder: PartLocked(f"{path}: process {holder} is working on this part"),
    )
