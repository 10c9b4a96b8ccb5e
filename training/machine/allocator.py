"""Keeping memory that was freed, for the next step to use again."""

from __future__ import annotations

import ctypes
import os
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""glibc's numbers of its parameters (`man mallopt`)."""
_KEPT = 128 << 20
_OLD_MOST = 32 << 20
_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def retain_freed_memory() -> bool:
    """Let the C library keep freed blocks of up to 128 MB; whether it does so now.

    As it comes, glibc gives large blocks back to the system, which clears each page of the next
    one: on the CPU a tenth of a narrow network's step, a fifth of a wide one's at 256 px. If it
    kept larger blocks too, the wide one would take a fifth more memory. Other C libraries, and
    what the environment says of this, are left alone.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _SETTINGS):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    known = mallopt(_MMAP_THRESHOLD, _KEPT) or mallopt(_MMAP_THRESHOLD, _OLD_MOST)
    return bool(known and mallopt(_TRIM_THRESHOLD, -1))


def release_freed() -> None:
    """Give freed memory back to the system now, where the C library can."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
