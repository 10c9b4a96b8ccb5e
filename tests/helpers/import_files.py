"""Files, folders and archives to import."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

IMPORTS = Path(__file__).parents[1] / "data/imports"


def png(seed: int, size: tuple[int, int] = (16, 12)) -> bytes:
    file = io.BytesIO()
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def write(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def image(number: int) -> bytes:
    return (IMPORTS / f"images/{number % 4}.png").read_bytes() + bytes([number])


def files(*names: str) -> dict[str, bytes]:
    return {name: image(number) for number, name in enumerate(names)}


def folder_of(path: Path, members: dict[str, bytes]) -> Path:
    for name, data in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def zip_of(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def tar_of(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    folder = folder_of(path.with_name(f"{path.name}-src"), members)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name in members:
            archive.add(folder / name, name)
    return path


PACKERS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "in": folder_of,
    "in.zip": zip_of,
    "in.tar": tar_of,
    "in.tar.gz": lambda path, members: tar_of(path, members, "w:gz"),
    "in.tgz": lambda path, members: tar_of(path, members, "w:gz"),
    "in.tar.bz2": lambda path, members: tar_of(path, members, "w:bz2"),
    "in.tar.xz": lambda path, members: tar_of(path, members, "w:xz"),
}
"""Functions that put files into a folder or archive."""
