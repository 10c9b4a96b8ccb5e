"""Reads tensors from a pickle without running its code.

A pickle is a program. Here it may only call functions that build tensors and plain containers;
every other name in it is an error. Objects of NVlabs' `persistence` (which contain their own
source) become `PickledObject`s with their state; the source is ignored.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import pickletools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from pipeline.contract import UserError, describe_os_error, open_regular
from training.checkpoint import require_stored


@dataclass(frozen=True)
class PickledObject:
    """An object of the class `name`: its `__dict__`."""

    name: str
    state: dict[str, Any]


class IgnoredObject:
    """A placeholder for an object that is not needed: accepts any arguments and state."""

    __slots__ = ()

    def __init__(self, *_given: object) -> None:
        pass

    def __setstate__(self, _state: object) -> None:
        pass


class AllowedCallable:
    """A function that a pickle may call, without attributes that it could change."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *given: Any) -> Any:
        return self._make(*given)


_ARCHIVE = b"PK\x03\x04"
"""The first bytes of a storage in the zip format of `torch.save`; PyTorch pickles the older one."""
_MEMO_OPCODES = ("PUT", "BINPUT", "LONG_BINPUT")


class _Dict(dict[Any, Any]):
    """`dnnlib.util.EasyDict`: a dict."""

    def __setstate__(self, _state: object) -> None:
        pass


def _record(meta: dict[str, Any]) -> PickledObject:
    state = meta["state"]
    return PickledObject(str(meta["class_name"]), dict(state) if state else {})


def _storage(data: bytes) -> Any:
    if data.startswith(_ARCHIVE):
        try:
            require_stored(data)
        except ValueError as error:
            raise pickle.UnpicklingError(f"a storage: {error}") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged bytes, which are refused below or here
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _parameter(data: torch.Tensor, *_: Any) -> torch.Tensor:
    return data


MAKERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _record,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("torch", "Size"): lambda values=(): tuple(values),
    ("builtins", "set"): lambda values=(): set(values),
    ("collections", "OrderedDict"): lambda pairs=(): dict(pairs),
}
"""The names that a pickle may call besides that for tensors, and their replacements."""

INERT = {
    ("numpy", "dtype"), ("numpy", "ndarray"), ("torch", "device"),
    *(
        (f"numpy.{core}.multiarray", name)
        for core in ("core", "_core") for name in ("scalar", "_reconstruct")
    ),
}  # fmt: skip
"""Names among the training options in the pickle, which are not needed."""


class _Unpickler(pickle.Unpickler):
    """An unpickler that builds nothing but what is allowed above, and no more bytes of tensors
    than its file has."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self._left = os.fstat(file.fileno()).st_size

    def _tensor(
        self, storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
    ) -> Any:
        whole = torch.empty(0, dtype=storage.dtype).set_(storage)
        if math.prod(size) > whole.numel():
            raise pickle.UnpicklingError("a tensor is larger than its storage")
        self._left -= math.prod(size) * whole.element_size()
        if self._left < 0:
            raise pickle.UnpicklingError("its tensors are larger than the file")
        # copied, because a storage may be shared, and may be larger than the tensor
        return whole.as_strided(size, stride, offset).clone()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return AllowedCallable(self._tensor)
        if (module, name) in MAKERS:
            return AllowedCallable(MAKERS[module, name])
        if (module, name) in INERT:
            return IgnoredObject
        if (module, name) == ("dnnlib.util", "EasyDict"):
            return type("EasyDict", (_Dict,), {})
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        raise pickle.UnpicklingError(f"it uses {module}.{name}, which is not allowed")

    def persistent_load(self, _key: Any) -> Any:
        raise pickle.UnpicklingError("it refers to external objects")


def read_pickle(path: Path) -> Any:
    """Return the content of the pickle in `path`: containers, tensors on the CPU, `PickledObject`s.

    Raises:
        UserError: the file does not exist, is not a complete pickle, or names something that is not
            allowed; the message says what.
    """
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            return _load(file)
    except OSError as error:
        raise UserError(describe_os_error(error)) from None
    except pickle.UnpicklingError as error:
        reason = next(iter(str(error).splitlines()), "not a pickle")
        raise UserError(f"{path}: refused: {reason}") from None
    except Exception as error:  # noqa: BLE001 (a damaged pickle can fail in any way)
        raise UserError(
            f"{path}: not a complete pickle of networks ({type(error).__name__})"
        ) from None


def _load(file: BinaryIO) -> Any:
    _check_sizes(file)
    file.seek(0)
    return _Unpickler(file).load()


def _check_sizes(file: BinaryIO) -> None:
    """Refuse numbers for which the unpickler would allocate more memory than the file justifies."""
    nbytes = os.fstat(file.fileno()).st_size
    argument: Any
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if opcode.name in _MEMO_OPCODES and argument > count:
            raise pickle.UnpicklingError(f"it numbers an object {argument} of at most {count}")
        if opcode.name == "FRAME" and argument > nbytes:
            raise pickle.UnpicklingError(f"a frame of {argument} bytes in {nbytes}")
