"""The published weights of StyleGAN2-ADA (PyTorch pickles with `G`, `D`, `G_ema`).

The modules of this project have the published names, so weights are matched by name. Tested with
pickles of the same structure, not with the published files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from pipeline.contract import UserError
from training.networks import ImageShape
from training.options.architectures import StyleGan2Generator
from training.pretrained.pickles import PickledObject, read_pickle

Weights = dict[str, Tensor]


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
            raise UserError(f"{self.path}: {name} is not a network of StyleGAN2-ADA") from None

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
            f"{path}: contains neither G_ema nor G, so it is not a pickle of StyleGAN2-ADA"
        )
    return NvlabsPickle(path, networks)


def module_weights(record: PickledObject, prefix: str = "") -> Weights:
    """Return the tensors of a pickled module and its submodules, named as in `state_dict`."""
    found: Weights = {}
    for kind in ("_parameters", "_buffers"):
        for name, value in record.state.get(kind, {}).items():
            if isinstance(value, Tensor):
                found[prefix + name] = value
    for name, module in record.state.get("_modules", {}).items():
        if isinstance(module, PickledObject):
            found |= module_weights(module, f"{prefix}{name}.")
    return found


def _inner(record: PickledObject, *names: str) -> PickledObject:
    for name in names:
        inner = record.state["_modules"][name]
        assert isinstance(inner, PickledObject)
        record = inner
    return record


def describe(published: NvlabsPickle) -> tuple[StyleGan2Generator, ImageShape]:
    """Return the options and the image shape of the averaged generator, derived from its weights.

    Raises:
        UserError: it does not have the structure of StyleGAN2-ADA's generator.
    """
    name = "G_ema" if "G_ema" in published.networks else "G"
    try:
        return _described(published.networks[name], published.weights(name))
    except Exception:  # noqa: BLE001 (what a pickle holds may fail in any way)
        raise UserError(
            f"{published.path}: {name} does not have the structure of StyleGAN2-ADA's generator"
        ) from None


def _described(record: PickledObject, weights: Weights) -> tuple[StyleGan2Generator, ImageShape]:
    blocks = sorted(
        int(name.split(".")[1][1:]) for name in weights if name.endswith(".conv1.bias")
    )  # fmt: skip
    first, last = blocks[0], blocks[-1]
    widths = [len(weights[f"synthesis.b{block}.conv1.bias"]) for block in blocks]
    const, w_avg = weights[f"synthesis.b{first}.const"], weights["mapping.w_avg"]
    mapping = [int(name.split(".")[1][2:]) for name in weights if _is_layer(name)]
    classes = weights["mapping.embed.weight"].shape[1] if "mapping.embed.weight" in weights else 0
    entered = weights["mapping.fc0.weight"].shape[1] - (len(w_avg) if classes else 0)
    state: dict[str, Any] = _inner(record, "synthesis", f"b{first}", "conv1").state
    taps = weights[f"synthesis.b{first}.conv1.resample_filter"].sum(dim=0)
    options = StyleGan2Generator(
        z_dim=entered,
        w_dim=len(w_avg),
        condition="embedding" if classes else "none",
        mapping_layers=max(mapping) + 1,
        mapping_lr_multiplier=float(_inner(record, "mapping", "fc0").state.get("bias_gain", 0.01)),
        channel_base=max(block * width for block, width in zip(blocks, widths, strict=True)),
        channel_max=max(widths),
        architecture=_architecture(weights, blocks),
        resample_filter=tuple((taps / taps.min()).tolist()),
        conv_clamp=float(state.get("conv_clamp") or 0),
        noise_mode="random" if f"synthesis.b{first}.conv1.noise_const" in weights else "none",
    )
    height, width = (size * last // first for size in const.shape[1:])
    channels = len(weights[f"synthesis.b{last}.torgb.bias"])
    return options, ImageShape(height, width, channels, classes)


def _is_layer(name: str) -> bool:
    return name.startswith("mapping.fc") and name.endswith(".weight")


def _architecture(weights: Weights, blocks: list[int]) -> Literal["skip", "resnet", "orig"]:
    if len(blocks) == 1 or f"synthesis.b{blocks[0]}.torgb.bias" in weights:
        return "skip"
    return "resnet" if f"synthesis.b{blocks[1]}.skip.weight" in weights else "orig"
