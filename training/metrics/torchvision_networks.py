"""The image classifiers of torchvision as feature networks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from torch import Tensor, nn
from torchvision import models

from pipeline.contract import UserError
from training.metrics.distances import Features
from training.metrics.feature_networks import in_batches, wrong_weights


@dataclass(frozen=True)
class TorchvisionNetwork:
    """A classifier without its last layer.

    `network` maps what `preprocess` returns to the features (n, d); `classifier` maps these to
    scores of ImageNet's classes.
    """

    network: nn.Module
    classifier: nn.Linear
    preprocess: Callable[[Tensor], Tensor]
    device: torch.device
    name: str
    identity: str
    splits: int = 1

    @torch.inference_mode()
    def features(self, images: Tensor) -> Features:
        def pooled(some: Tensor) -> Tensor:
            color = some.to(self.device).expand(-1, 3, -1, -1)
            features: Tensor = self.network(self.preprocess(color))
            return features

        return in_batches(pooled, images)

    @torch.inference_mode()
    def logits(self, features: Features) -> Features:
        scores: Tensor = self.classifier(torch.from_numpy(features).to(self.device))
        return np.asarray(scores.cpu().numpy())


@cache
def load_torchvision_network(model: str, device: torch.device) -> TorchvisionNetwork:
    """Return a classifier of torchvision with its default ImageNet weights, and the preprocessing
    of these weights. They are downloaded once, to PyTorch's folder of weights.

    Raises:
        UserError: torchvision has no such classifier, or its weights are not available.
    """
    known = models.list_models(module=models)
    if model not in known:
        raise UserError(f"torchvision:{model}: unknown; choose from {', '.join(known)}")
    weights: Any = models.get_model_weights(model).DEFAULT
    network = _load(model, weights)
    linear = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise UserError(f"torchvision:{model}: has no linear layer after its features; use another")
    classifier = network.get_submodule(linear[-1])
    assert isinstance(classifier, nn.Linear)
    network.set_submodule(linear[-1], nn.Identity())
    return TorchvisionNetwork(
        network.to(device), classifier.to(device), weights.transforms(), device,
        f"torchvision_{model}", f"torchvision_{model}-{weights.name}",
    )  # fmt: skip


def _load(model: str, weights: Any) -> nn.Module:
    """Build a model with its weights, in evaluation mode, without effect on random numbers."""
    file = PurePosixPath(urlparse(weights.url).path).name
    path = Path(torch.hub.get_dir()) / "checkpoints" / file
    try:
        with redirect_stdout(sys.stderr), torch.random.fork_rng(devices=[]):
            # executes no code; get_model alone would run what a file contains
            weights.get_state_dict(
                progress=False, check_hash=True, map_location="cpu", weights_only=True
            )
            network: nn.Module = models.get_model(model, weights=weights, progress=False)
    except OSError as error:
        raise UserError(
            f"torchvision:{model}: its weights cannot be downloaded ({error}); download "
            f"{weights.url} elsewhere to {path}"
        ) from None
    except Exception as error:  # noqa: BLE001 (unpickling what may be any file)
        raise wrong_weights(path, model, error, "; delete the file") from None
    return network.eval().requires_grad_(False)
