"""Reads CIFAR-10 and CIFAR-100, in their binary version and their version for Python."""

from __future__ import annotations

import codecs
import io
import pickle
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.limits import ImageError
from pipeline.importers.items import (
    STAGE,
    ImportOptions,
    Items,
    as_text,
    label_of_number,
    make_item,
)
from pipeline.importers.raw_pixels import encode_png, read_png
from pipeline.importers.tree import Tree, base_name
from pipeline.outside_text import decode_text
from pipeline.units import count_of
from pipeline.web.failures import failure

_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_MAX_NAMES = 1 << 20
_MAX_PICKLE = 256 << 20
_MAX_VALUES = 2_000_000
_NUMBERING = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})


@dataclass(frozen=True)
class _Version:
    """The files of a version: those of images by split, the number of label bytes, and the file of
    class names with its key."""

    title: str
    files: dict[str, tuple[str, ...]]
    labels: int
    names: str
    key: str = ""

    def split(self, name: str) -> str:
        base = base_name(name)
        return next((split for split, files in self.files.items() if base in files), "")


_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_VERSIONS = (
    _Version(
        "CIFAR-10 (binary)",
        {"train": tuple(f"{name}.bin" for name in _TRAIN), "test": ("test_batch.bin",)},
        1, "batches.meta.txt",
    ),
    _Version("CIFAR-100 (binary)", {"train": ("train.bin",), "test": ("test.bin",)}, 2,
             "fine_label_names.txt"),
    _Version("CIFAR-10 (Python)", {"train": _TRAIN, "test": ("test_batch",)}, 0, "batches.meta",
             "label_names"),
    _Version("CIFAR-100 (Python)", {"train": ("train",), "test": ("test",)}, 0, "meta",
             "fine_label_names"),
)  # fmt: skip


def detect(tree: Tree) -> str:
    """Return what was found; empty if it is not of this format."""
    version = _version(tree)
    return f"{version.title}: {count_of(len(_files(tree, version)), 'file')}" if version else ""


def _version(tree: Tree) -> _Version | None:
    names = {base_name(name) for name in tree.files}
    if tree.single:  # one of the files, beside the others
        names |= {one.names for one in _VERSIONS if tree.beside(one.names)}
    for version in _VERSIONS:
        has_images = any(version.split(name) for name in names)
        if has_images and (version.names in names or version.title.startswith("CIFAR-10 ")):
            return version
    return None


def _files(tree: Tree, version: _Version) -> list[str]:
    """Return the files of images; of several with the same name, the first."""
    return list({base_name(name): name for name in reversed(tree.files) if version.split(name)}
                .values())[::-1]  # fmt: skip


def read(tree: Tree, options: ImportOptions) -> Items:
    """Yield the images; their labels are the names of their classes."""
    version = _version(tree)
    if version is None:
        return
    names: list[str] = []
    try:
        names = _class_names(tree, version)
    except (ImageError, OSError, ValueError) as error:
        yield _damaged(tree, version.names, error)
    for name in _files(tree, version):
        if not options.has_split(version.split(name)):
            continue
        read_file = _read_python if version.key else _read_binary
        try:
            yield from read_file(tree, name, version, names)
        except (ImageError, OSError, ValueError) as error:
            yield _damaged(tree, name, error)


def _damaged(tree: Tree, name: str, error: Exception) -> Any:
    url = tree.files[name].url if name in tree.files else f"{tree.path.absolute().as_uri()}#{name}"
    kind, detail = "damaged", str(error)
    if isinstance(error, ImageError):
        kind, detail = error.kind, error.detail
    return failure(STAGE, url, kind, detail=detail)


def _class_names(tree: Tree, version: _Version) -> list[str]:
    found = tree.beside(version.names)
    if found is None:
        raise ImageError("not_found", "no file of class names; the labels are numbers")
    data = found[1].read(_MAX_NAMES)
    if not version.key:
        return decode_text(data).split()
    names = _unpickle(data).get(version.key.encode())
    if not isinstance(names, list):
        raise ImageError("damaged", f"no {version.key} in it")
    return list(map(_text, names))


def _text(value: object) -> str:
    """Return a text of a pickle of Python 2 (bytes) or 3."""
    return value.decode(errors="replace") if isinstance(value, bytes) else as_text(value)


def _read_binary(tree: Tree, name: str, version: _Version, names: list[str]) -> Items:
    file = tree.keep_open(name)
    record, count = version.labels + _PIXELS, 0
    while True:
        head = file.read(record)
        if len(head) < record:
            break
        label = label_of_number(head[version.labels - 1], names)
        read_image = partial(read_png, file, count * record + version.labels, _SHAPE)
        yield make_item(f"{tree.files[name].url}#{count}", read_image, label,
                        f"{base_name(name)} {count}", {})  # fmt: skip
        count += 1
    if head:
        raise ImageError("truncated", f"the file ends within image {count}")


def _read_python(tree: Tree, name: str, _version: _Version, names: list[str]) -> Items:
    values = _unpickle(tree.read(name, _MAX_PICKLE))
    data = values.get(b"data")
    if not isinstance(data, _Array):
        raise ImageError("damaged", "no array of images in it")
    pixels = data.pixels()
    labels = values.get(b"fine_labels", values.get(b"labels"))
    if not isinstance(labels, list) or len(labels) != len(pixels):
        raise ValueError(f"not one label for each of its {count_of(len(pixels), 'image')}")
    titles = values.get(b"filenames")
    for number, label in enumerate(labels):
        title = f"{base_name(name)} {number}"
        if isinstance(titles, list) and number < len(titles):
            title = _text(titles[number])
        yield make_item(f"{tree.files[name].url}#{number}", partial(_png, pixels, number),
                        label_of_number(label, names), title, {})  # fmt: skip


def _png(pixels: NDArray[np.uint8], number: int, _most: int) -> bytes:
    return encode_png(pixels[number])


# the version for Python: a pickle, of which no code is run


@dataclass
class _Array:
    """An array in a pickle, as its state."""

    state: Any = field(default=())

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def pixels(self) -> NDArray[np.uint8]:
        """Return the images, (n, 3, 32, 32).

        Raises:
            ValueError: the array is not one of images.
        """
        try:
            _, shape, kind, is_fortran, data = self.state
            count, length = shape
        except (TypeError, ValueError):
            raise ValueError("not an array of images") from None
        if isinstance(data, str):
            data = data.encode("latin-1", "replace")
        good = isinstance(data, bytes) and length == _PIXELS and not is_fortran
        if not good or kind != "u1" or type(count) is not int or count * _PIXELS != len(data):
            raise ValueError("not an array of images of 32 × 32 pixels")
        return np.frombuffer(data, np.uint8).reshape(-1, *_SHAPE)


class _Call:
    """A function that a pickle may call."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *given: Any) -> Any:
        return self._make(*given)


class _Kind(str):
    """The type of an array's values, such as u1."""

    def __setstate__(self, _state: object) -> None:
        pass


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("an unexpected encoding")
    return codecs.latin_1_encode(text)[0]


_CALLS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array(),
    ("numpy._core.multiarray", "_reconstruct"): lambda *_: _Array(),
    ("numpy", "ndarray"): lambda *_: _Array(),
    ("numpy", "dtype"): lambda code, *_: _Kind(
        code.decode("latin-1") if isinstance(code, bytes) else code
    ),
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    """Reads arrays, lists, texts and numbers; every other name in the pickle is an error."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="bytes")

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _CALLS:
            raise pickle.UnpicklingError(f"contains {module}.{name}, which is not read")
        return _Call(_CALLS[module, name])


def _check_memory(data: bytes) -> None:
    """Raise UnpicklingError if a pickle has too many values, or numbers them higher than it has:
    the unpickler would allocate a table of that size."""
    for count, (code, number, _) in enumerate(pickletools.genops(data)):
        if count > _MAX_VALUES or (code.name in _NUMBERING and int(number or 0) > count):
            raise pickle.UnpicklingError("needs too much memory")


def _unpickle(data: bytes) -> dict[Any, Any]:
    """Return the dictionary in a pickle.

    Raises:
        ImageError, ValueError: it is damaged, or contains more than arrays and plain values.
    """
    try:
        _check_memory(data)
        values = _Unpickler(io.BytesIO(data)).load()
    except Exception as error:  # noqa: BLE001 a damaged pickle can raise any exception
        raise ValueError(f"not a pickle of CIFAR ({type(error).__name__}: {error})") from None
    if not isinstance(values, dict):
        raise ImageError("damaged", "not a pickle of CIFAR")
    return {key.encode() if isinstance(key, str) else key: one for key, one in values.items()}
