"""Memory that the processes of a run on one machine share."""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from training.machine.distributed import Distributed

_TOKEN_BYTES = 64
"""At the start of a block: random bytes by which the others recognise it."""


class SharedBlock:
    """A block of memory of several processes, `size` bytes at `start` of `memory`, zeros at first.

    It has no name, neither in /dev/shm nor elsewhere, and is not limited by the size of /dev/shm;
    it is freed when the last process ends, also by kill -9.
    """

    start = _TOKEN_BYTES

    def __init__(self, fd: int, size: int) -> None:
        self._fd, self.size = fd, size
        self.memory = mmap.mmap(fd, self.start + size)

    @contextmanager
    def lock(self, write: bool = False) -> Iterator[None]:
        """Hold the lock of the block; several processes may hold it if none of them may `write`.

        What a process wrote before it released the lock is seen by those that take it afterwards. A
        process that ends releases it.
        """
        fcntl.lockf(self._fd, fcntl.LOCK_EX if write else fcntl.LOCK_SH)
        try:
            yield
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file; the memory is released with its last user."""
        os.close(self._fd)


def share_memory(size: int, ranks: Distributed) -> SharedBlock | str:
    """Return a block of `size` bytes that all processes on this machine have, or why they have
    none: then none of them has. All processes of the run call this.

    The first process on a machine creates a file without a name in memory; the others open it
    through its descriptor in /proc.
    """
    is_first, fd, reason, token = ranks.local_rank == 0, -1, "", secrets.token_bytes(_TOKEN_BYTES)
    if is_first:
        try:
            fd = _create(size, token)
        except OSError as error:
            reason = error.strerror or str(error)
    answers = ranks.all_gather((is_first, os.getpid(), fd, token, reason))
    first = ranks.rank - ranks.local_rank
    created, process, number, token, reason = answers[first]
    block = None
    if not created:
        reason = "the ranks of this machine do not follow each other"
    elif not reason:
        try:
            if not is_first:
                fd = os.open(f"/proc/{process}/fd/{number}", os.O_RDWR | os.O_CLOEXEC)
            block = SharedBlock(fd, size)
            if block.memory[:_TOKEN_BYTES] != token:
                reason = "the first process of this machine cannot be seen"
        except (OSError, ValueError) as error:  # ValueError: the file is smaller
            reason = getattr(error, "strerror", None) or str(error)
    reasons = ranks.all_gather(reason)[first : first + ranks.local_world_size]
    problem = next(filter(None, reasons), "")
    if block is not None and not problem:
        return block
    with suppress(OSError):  # not open
        os.close(fd)
    return problem


def _create(size: int, token: bytes) -> int:
    """Return the descriptor of a new file in memory that starts with `token`.

    Raises:
        OSError: the system has no such files, or it would be too large.
    """
    if not hasattr(os, "memfd_create"):
        raise OSError("this system has no files in memory")
    fd = os.memfd_create("decoded-images")
    try:
        os.pwrite(fd, token, 0)
        os.ftruncate(fd, len(token) + size)
    except BaseException:
        os.close(fd)
        raise
    return fd
