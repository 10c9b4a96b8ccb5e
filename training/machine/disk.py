"""Disk space: how much is free, and how a full disk is recognised."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.contract import UserError


class DiskFull(UserError):
    """There is no space for a file; files written before are complete."""


def free_bytes(folder: Path) -> int:
    """Return the bytes that this user may still write to the disk of `folder`."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free
