"""Writes pickles with the structure of NVlabs's, from modules that carry their source.

`torch_utils` and `dnnlib` are stand-ins here, so that the names in the pickle are the published
ones. The classes do what the published decorator does: an object is pickled as a call with the
source of its class, its name and its `__dict__`.
"""

from __future__ import annotations

import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

persistence = types.ModuleType("torch_utils.persistence")
util = types.ModuleType("dnnlib.util")
STAND_INS = {
    "torch_utils": types.ModuleType("torch_utils"), "torch_utils.persistence": persistence,
    "dnnlib": types.ModuleType("dnnlib"), "dnnlib.util": util,
}  # fmt: skip


class EasyDict(dict[str, Any]):
    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


EasyDict.__module__, EasyDict.__qualname__ = "dnnlib.util", "EasyDict"
util.EasyDict = EasyDict  # type: ignore[attr-defined]


def _reconstruct_persistent_obj(meta: dict[str, Any]) -> Any:
    raise AssertionError("the published function would run the source now")


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]


class Module(torch.nn.Module):
    """A persistent module of the published class `kind`."""

    def __init__(self, kind: str, facts: dict[str, Any]) -> None:
        super().__init__()
        self._init_args = ()
        self._init_kwargs = EasyDict(facts, seed=np.int64(1), gain=np.sqrt(np.float32(2)))
        self.kind = kind
        for name, value in facts.items():
            setattr(self, name, value)

    def __reduce__(self) -> Any:
        state = {key: value for key, value in self.__dict__.items() if key != "kind"}
        meta = {
            "type": "class", "version": 6, "module_src": "import os\nos.abort()\n",
            "class_name": self.kind, "state": state,
        }  # fmt: skip
        return _reconstruct_persistent_obj, (meta,), None

    __reduce_ex__ = lambda self, _protocol: self.__reduce__()  # noqa: E731


LAYER = {"conv_clamp": 256, "bias_gain": 0.02}
"""Attributes of all layers."""


def network(
    described: dict[str, Any], kind: str, attributes: dict[str, dict[str, Any]] | None = None
) -> Module:
    """The modules for tensors given as {dotted name: [shape, "parameter" or "buffer"]}, or as
    {dotted name: tensor or None}. `attributes` of modules by their dotted name; "" are those of
    all."""
    more = attributes or {}
    root = Module(kind, {"z_dim": 512, "img_resolution": 16})
    for number, (name, given) in enumerate(described.items()):
        *path, last = name.split(".")
        module = _module(root, path, more)
        if given is None:  # a filter with one tap
            module.register_buffer(last, None)
            continue
        shape, role = ([], "buffer") if isinstance(given, torch.Tensor) else given
        random = torch.Generator().manual_seed(number)
        value = torch.randn(shape, generator=random)
        if isinstance(given, torch.Tensor):
            value = given
        elif last == "resample_filter":
            taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
            value = torch.outer(taps, taps) / 64
        if role == "parameter":
            module.register_parameter(last, torch.nn.Parameter(value))
        else:
            module.register_buffer(last, value)
    for name in more:  # layers without tensors
        if name and name.split(".")[0] in root._modules:
            _module(root, name.split("."), more)
    return root


def _module(root: Module, path: list[str], attributes: dict[str, dict[str, Any]]) -> Module:
    """The module at a path, made if necessary."""
    module = root
    for depth, part in enumerate(path):
        if part not in module._modules:
            own = attributes.get(".".join(path[: depth + 1]), {})
            module.add_module(part, Module("Layer", {**LAYER, **attributes.get("", {}), **own}))
        module = module._modules[part]  # type: ignore[assignment]
    return module


def write_pickle(
    path: Path,
    described: dict[str, Any],
    protocol: int = 4,
    attributes: dict[str, dict[str, Any]] | None = None,
) -> None:
    """Write a file of networks with those tensors; the stand-ins are importable meanwhile."""
    networks = {
        name: network(tensors, "Discriminator" if name == "D" else "Generator", attributes)
        for name, tensors in described.items()
    }
    whole = {
        "training_set_kwargs": EasyDict(class_name="training.dataset", resolution=np.int64(16)),
        "augment_pipe": None, "order": OrderedDict(a=np.arange(3)), **networks,
    }  # fmt: skip
    with patch.dict(sys.modules, STAND_INS), path.open("wb") as file:
        pickle.dump(whole, file, protocol)
