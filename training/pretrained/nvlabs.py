"""The published weights of NVlabs' projects (PyTorch pickles with `G`, `D`, `G_ema`).

The modules of this project have the published names, so weights are matched by name. Tested with
pickles of the same structure, not with the published files. `training.pretrained.published` has
the architectures.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.contract import UserError
from training.pretrained.pickles import PickledObject, read_pickle

Weights = dict[str, Tensor]
_MOST_CONTENTS = 100_000
_LONGEST_NAME = 1000
"""Limits, in characters for names, that are far above what a network needs."""


@dataclass(frozen=True)
class NvlabsPickle:
    """The networks of a pickle by name (`G`, `D`, `G_ema`), as `PickledObject`s of their
    modules."""

    path: Path
    networks: dict[str, PickledObject]

    def weights(self, name: str) -> Weights:
        """Return the parameters and buffers of a network by their dotted names.

        Raises:
            UserError: it is not a network.
        """
        try:
            return module_weights(self.networks[name])
        except Exception:  # noqa: BLE001 (what a pickle holds may fail in any way)
            raise UserError(f"{self.path}: {name} is not a network") from None

    def start(self) -> dict[str, Weights]:
        """Return the initial weights for training: `generator`, `average`, `discriminator`, if
        present."""
        average = "G_ema" if "G_ema" in self.networks else "G"
        chosen = {"generator": "G" if "G" in self.networks else average, "average": average}
        if "D" in self.networks:
            chosen["discriminator"] = "D"
        return {ours: self.weights(theirs) for ours, theirs in chosen.items()}


def read_nvlabs_pickle(path: Path) -> NvlabsPickle:
    """Read the networks in the pickle `path`.

    Raises:
        UserError: it is refused (see `read_pickle`), or contains no generator.
    """
    found = read_pickle(path)
    networks = {
        name: found[name]
        for name in ("G", "D", "G_ema")
        if isinstance(found, dict) and isinstance(found.get(name), PickledObject)
    }
    if not networks.keys() & {"G", "G_ema"}:
        raise UserError(
            f"{path}: contains neither G_ema nor G, so it is not a pickle of a StyleGAN"
        )
    return NvlabsPickle(path, networks)


def _contents(record: PickledObject) -> Iterator[tuple[str, Any]]:
    """Yield the parameters, buffers and modules inside of a pickled module by their dotted names.

    Raises:
        ValueError: there are more than a network has: a small pickle can contain one module in very
            many places.
    """
    waiting, count = deque([("", record)]), 0
    while waiting:
        prefix, module = waiting.popleft()
        for kind in ("_parameters", "_buffers", "_modules"):
            for name, value in module.state.get(kind, {}).items():
                count += 1
                if count > _MOST_CONTENTS or len(prefix) + len(name) > _LONGEST_NAME:
                    raise ValueError("too many or too deeply nested modules")
                yield prefix + name, value
                if kind == "_modules" and isinstance(value, PickledObject):
                    waiting.append((f"{prefix}{name}.", value))


def module_weights(record: PickledObject) -> Weights:
    """Return the tensors of a pickled module and its submodules, named as in `state_dict`.

    Raises:
        ValueError: there are too many modules.
    """
    return {name: value for name, value in _contents(record) if isinstance(value, Tensor)}


def submodule(record: PickledObject, *names: str) -> PickledObject:
    """Return the module of these names inside of a pickled module; raises if there is none."""
    for name in names:
        inner = record.state["_modules"][name]
        if not isinstance(inner, PickledObject):
            raise TypeError(f"{name} is not a module")
        record = inner
    return record


def submodules(record: PickledObject) -> Iterator[PickledObject]:
    """Yield a pickled module and all modules inside of it.

    Raises:
        ValueError: there are too many.
    """
    yield record
    yield from (value for _, value in _contents(record) if isinstance(value, PickledObject))
