"""Python programs in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def child_env(**more: str) -> dict[str, str]:
    """The environment of a child process: this project's code, one thread per process."""
    return os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"} | more


def run_python(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the text of a program with arguments in the project's folder."""
    command = [sys.executable, "-c", program, *words]
    return subprocess.run(command, capture_output=True, text=True, env=child_env(), cwd=PROJECT)
