"""Commands of `python -m pipeline` in this process, which spares the start of Python."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
from pathlib import Path

from pipeline.__main__ import main


def run_pipeline(root: Path, *words: str | bytes) -> subprocess.CompletedProcess[str]:
    """Run a command in the folder `root`; its exit status, standard output and standard error."""
    arguments = [os.fsdecode(word) for word in words]
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", "surrogateescape") for _ in range(2))
    with contextlib.chdir(root), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(arguments)
        except SystemExit as error:  # argparse's
            status = error.code if isinstance(error.code, int) else 1
    texts = []
    for stream in (out, err):
        stream.seek(0)
        texts.append(stream.read())
    return subprocess.CompletedProcess(arguments, status, *texts)
