"""Memory that is freed stays with the process."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
from training.machine.allocator import retain_freed_memory

def cleared():
    "Pages that the system had to give for a block of 64 MB."
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(1 << 26)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

kept = sys.argv[1] == "keep" and retain_freed_memory()
for _ in range(20):
    cleared()
print(int(kept), sum(cleared() for _ in range(10)))
"""


def run(*words: str, **environment: str) -> tuple[int, int]:
    known = os.environ | environment
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"):
        if name not in environment:
            known.pop(name, None)
    command = [sys.executable, "-c", SCRIPT, *words]
    done = subprocess.run(command, env=known, capture_output=True, text=True, check=True)
    kept, pages = done.stdout.split()
    return int(kept), int(pages)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_a_block_is_not_cleared_again() -> None:
    kept, pages = run("keep")
    assert kept
    # without it: in each of ten turns 64 MB, in pages of at most 2 MB
    assert pages < 10 * 32 <= run("default")[1]


def test_what_the_environment_says_stays() -> None:
    assert run("keep", MALLOC_TRIM_THRESHOLD_="131072")[0] == 0
