"""Reuse of freed memory by the next step."""

from __future__ import annotations

import ctypes
import os
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameter numbers of glibc (`man mallopt`)."""
_KEPT = 128 << 20
_OLD_MOST = 32 << 20
_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def retain_freed_memory() -> bool:
    """Let the C library keep freed blocks of up to 128 MB; return whether it does so now.

    By default, glibc returns large blocks to the system, which clears each page of the next one: on
    the CPU this takes a tenth of a narrow network's step, a fifth of a wide one's at 256 px. If it
    kept larger blocks too, the wide one would need a fifth more memory. Other C libraries, and
    settings in the environment, are left alone.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _SETTINGS):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    known = mallopt(_MMAP_THRESHOLD, _KEPT) or mallopt(_MMAP_THRESHOLD, _OLD_MOST)
    return bool(known and mallopt(_TRIM_THRESHOLD, -1))


def release_freed() -> None:
    """Return freed memory to the system now, if the C library can."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
