"""Room on the disk: how much there is, and what a full one looks like."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.contract import UserError


class DiskFull(UserError):
    """There is no room for what is to be written; what was written before is whole."""


def free_bytes(folder: Path) -> int:
    """The bytes that this user may still write to the disk of `folder`."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free
