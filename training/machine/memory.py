"""How much memory is available, and how much this process uses."""

from __future__ import annotations

import os
from pathlib import Path

import torch


def status_bytes(key: str) -> int | None:
    """Return a memory size of this process by its name in Linux; None if the system does not
    report it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(key)), None)


def available_bytes(device: torch.device) -> int | None:
    """Return the memory of the device that training may use, None if unknown: free memory plus
    what this process already uses (on a GPU, what PyTorch has reserved)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory())
    found = [size for size in (_meminfo(), _group()) if size is not None]
    return min(found) + (status_bytes("RssAnon") or 0) if found else None


def _meminfo() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return next(int(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable"))


def _group() -> int | None:
    """Return what remains of the container's memory limit."""
    folder = Path("/sys/fs/cgroup")
    try:
        most = (folder / "memory.max").read_text().strip()
        now = int((folder / "memory.current").read_text())
        cached = (folder / "memory.stat").read_text().partition("\ninactive_file ")[2].split()
    except (OSError, ValueError):
        return None
    return int(most) - now + int(cached[0] if cached else 0) if most.isdigit() else None
