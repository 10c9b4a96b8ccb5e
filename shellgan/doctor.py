"""`shellgan doctor`: what this machine offers, and what is missing."""

from __future__ import annotations

import shutil
import socket
from importlib.util import find_spec
from pathlib import Path

from pipeline.contract import format_bytes

OPTIONAL = {
    "av": "video", "onnx": "export", "pyarrow": "parquet", "s3fs": "s3", "pillow_heif": "heic",
    "lmdb": "lmdb",
}  # fmt: skip
"""Optional packages, and the extras that install them."""
PORTS = {8972: "explore", 8973: "curate"}


def examine(root: Path) -> int:
    """Print disk, memory, threads, GPU, optional packages and ports; 1 if the disk is too full."""
    import torch

    from training.machine.memory import available_bytes

    free = shutil.disk_usage(root).free
    memory = available_bytes(torch.device("cpu"))
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none (CUDA)"
    missing = [f"{name} (pip install 'shellgan[{extra}]')" for name, extra in OPTIONAL.items()
               if find_spec(name) is None]  # fmt: skip
    busy = [f"{port} ({name} takes another one)" for port, name in PORTS.items() if _is_busy(port)]
    has_room = free > 2e9
    rows = {
        "disk": f"{format_bytes(free)} free{'' if has_room else '; at least 2 GB are needed'}",
        "memory": format_bytes(memory) + " available" if memory else "unknown",
        "threads": str(torch.get_num_threads()),
        "gpu": "mps" if torch.backends.mps.is_available() else gpu,
        "packages": "all optional ones" if not missing else f"missing: {', '.join(missing)}",
        "ports": "free" if not busy else f"in use: {', '.join(busy)}",
    }
    for name, text in rows.items():
        print(f"{name:<9} {text}")
    return 0 if has_room else 1


def _is_busy(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
