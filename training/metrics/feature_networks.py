"""The feature networks, with a common interface."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.contract import UserError, describe_os_error, read_bytes, short_reason
from pipeline.imaging.alpha import over, parse_colour
from training.extractor import EXTRACTOR, Extractor, load_extractor
from training.metrics.distances import Features

BATCH = 32


class FeatureNetwork(Protocol):
    """`name` is part of the metrics' names; `identity` identifies cached features; `splits` is
    used by the inception score."""

    @property
    def name(self) -> str: ...
    @property
    def identity(self) -> str: ...
    @property
    def splits(self) -> int: ...

    def features(self, images: Tensor) -> Features:
        """Images uint8 (n, 1 or 3, height, width) → float32 (n, d)."""
        ...

    def logits(self, features: Features) -> Features:
        """Return class scores (n, classes) for features."""
        ...


@dataclass(frozen=True)
class Lite0:
    """EfficientNet-Lite0, the default: its weights come with a package."""

    extractor: Extractor
    device: torch.device
    name: str = EXTRACTOR
    identity: str = f"{EXTRACTOR}-1"
    splits: int = 1

    @torch.inference_mode()
    def features(self, images: Tensor) -> Features:
        return in_batches(lambda some: self.extractor(some.to(self.device)), images)

    @torch.inference_mode()
    def logits(self, features: Features) -> Features:
        scores = self.extractor.logits(torch.from_numpy(features).to(self.device))
        return np.asarray(scores.cpu().numpy())


@dataclass(frozen=True)
class Inception:
    """The standard Inception-v3 of FID, as torch-fidelity computes it; see `load_inception`."""

    network: Any
    device: torch.device
    identity: str
    name: str = "inception"
    splits: int = 10

    @torch.inference_mode()
    def features(self, images: Tensor) -> Features:
        def pooled(some: Tensor) -> Tensor:
            color = some.expand(-1, 3, -1, -1).contiguous().to(self.device)
            features: Tensor = self.network(color)[0]
            return features

        return in_batches(pooled, images)

    @torch.inference_mode()
    def logits(self, features: Features) -> Features:
        # without the bias, as in the scores of Salimans and torch-fidelity
        weight = self.network.fc.weight.detach().cpu().numpy()
        return np.asarray(features @ weight.T)


def in_batches(function: Callable[[Tensor], Tensor], images: Tensor) -> Features:
    """Return the rows of `function` for images (n, channels, h, w), in batches of `BATCH`."""
    return np.concatenate([function(some).cpu().numpy() for some in torch.split(images, BATCH)])


@dataclass(frozen=True)
class OverBackground:
    """A feature network that sees RGBA images over a colour, "#rrggbb"."""

    network: FeatureNetwork
    colour: str

    @property
    def name(self) -> str:
        return self.network.name

    @property
    def identity(self) -> str:
        return f"{self.network.identity}-on-{self.colour.removeprefix('#')}"

    @property
    def splits(self) -> int:
        return self.network.splits

    def features(self, images: Tensor) -> Features:
        pixels = over(images.permute(0, 2, 3, 1).numpy(), parse_colour(self.colour))
        return self.network.features(torch.from_numpy(pixels).permute(0, 3, 1, 2))

    def logits(self, features: Features) -> Features:
        return self.network.logits(features)


def on_background(network: FeatureNetwork, channels: int, colour: str) -> FeatureNetwork:
    """Return the network for images with this number of channels: RGBA over a colour."""
    return OverBackground(network, colour) if channels == 4 else network


def network_name(features: str) -> str:
    """Return the name in metrics of the network that the option `features` selects."""
    return features.replace(":", "_")


def load_feature_network(features: str, device: torch.device) -> FeatureNetwork:
    """Return the network of the option `features`: `efficientnet_lite0` or `torchvision:MODEL`.

    Raises:
        UserError: there is no such network, or its weights are not available.
    """
    if features == EXTRACTOR:
        return load_lite0(device)
    kind, _, model = features.partition(":")
    if kind != "torchvision":
        raise UserError(f"features {features}: unknown; use {EXTRACTOR} or torchvision:MODEL")
    from training.metrics.torchvision_networks import load_torchvision_network

    return load_torchvision_network(model, device)


def load_lite0(device: torch.device) -> Lite0:
    """Return the default network."""
    return Lite0(load_extractor(device), device)


_MOST = 1 << 30
"""Maximum size of a weights file in bytes."""


def wrong_weights(path: Path, network: str, error: Exception, advice: str = "") -> UserError:
    """Return the error of a file that does not hold the weights of `network`."""
    # the text of an UnpicklingError advises to load the file without protection
    line = "" if isinstance(error, UnpicklingError) else f" ({short_reason(error)})"
    return UserError(f"{path}: not the weights of {network}{line}{advice}")


def load_inception(path: Path, device: torch.device) -> Inception:
    """Return the FID Inception-v3 with the weights at `path`: torch-fidelity's file
    `weights-inception-2015-12-05-6726825d.pth`, or another of that layout.

    Raises:
        UserError: torch-fidelity is not installed, or the file is not those weights.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError:
        raise UserError("--inception needs pip install 'shellgan[inception]'") from None
    try:
        data = read_bytes(path, _MOST)
        torch.load(path, weights_only=True, map_location="cpu")  # executes no code
        network = FeatureExtractorInceptionV3("inception", ["2048"], str(path))
    except OSError as error:
        raise UserError(describe_os_error(error)) from None
    except Exception as error:  # noqa: BLE001 (unpickling what may be any file)
        raise wrong_weights(path, "the FID Inception-v3", error) from None
    digest = hashlib.sha256(data).hexdigest()[:8]
    return Inception(network.to(device), device, f"inception-{digest}")
