"""Commands in this process, which spares the start of Python and the imports."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.__main__ import main


def run_pipeline(root: Path, *words: str | bytes) -> subprocess.CompletedProcess[str]:
    """Run `python -m pipeline` in the folder `root`; see `run_here`."""
    return run_here(main, root, *words)


def run_here(
    command: Callable[[Sequence[str]], int], folder: Path, *words: str | bytes
) -> subprocess.CompletedProcess[str]:
    """Call the main function of a command in `folder`; its exit status and what it printed."""
    arguments = [os.fsdecode(word) for word in words]
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", "surrogateescape") for _ in range(2))
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = command(arguments)
        except SystemExit as error:  # argparse's
            status = error.code if isinstance(error.code, int) else 1
    texts = []
    for stream in (out, err):
        stream.seek(0)
        texts.append(stream.read())
    return subprocess.CompletedProcess(arguments, status, *texts)
