"""The generator as functions of tensors, for export: complete, or in two parts."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from training.exports.onnx_file import Graph
from training.latent.image_numbers import latents_of
from training.latent.space import LatentSpace
from training.networks import Generator
from training.networks.layers import Dropout
from training.pretrained.inference import TrainedGenerator


def prepare_for_export(trained: TrainedGenerator) -> tuple[LatentSpace, bool]:
    """Return the latent space of a copy on the CPU in float32, and whether dropout at test time
    was switched off in it (a graph has no randomness)."""
    generator = copy.deepcopy(trained.generator).cpu().float().eval()
    random = False
    for layer in generator.modules():
        if isinstance(layer, Dropout) and layer.at_test and layer.share:
            layer.at_test, random = False, True
    generator.to(memory_format=torch.contiguous_format)
    space = trained.space
    return LatentSpace(
        generator, space.latent, space.classes, space.num_ws, space.w_dim, space.w_avg.cpu()
    ), random


class FullGenerator(nn.Module):
    """z (n, z_dim), labels int64 (n,) if conditional, truncation_psi () → images (n, channels,
    height, width) in [-1, 1]."""

    mean: Tensor

    def __init__(self, space: LatentSpace) -> None:
        super().__init__()
        self.space, self.generator = space, space.generator
        self.register_buffer("mean", space.w_avg.clone())

    def forward(self, z: Tensor, labels: Tensor | None, truncation_psi: Tensor) -> Tensor:
        which = _labels(z, labels)
        ws = self.space.map(z, which)
        ws = self.mean + truncation_psi * (ws - self.mean)
        return self.space.synthesize(ws, which)


class Mapping(nn.Module):
    """z (n, z_dim), labels int64 (n,) if conditional → ws (n, num_ws, w_dim)."""

    def __init__(self, space: LatentSpace) -> None:
        super().__init__()
        self.space, self.generator = space, space.generator

    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor:
        return self.space.map(z, _labels(z, labels))


class Synthesis(nn.Module):
    """ws (n, num_ws, w_dim), labels int64 (n,) if used here → images (n, channels, height,
    width) in [-1, 1]."""

    def __init__(self, space: LatentSpace) -> None:
        super().__init__()
        self.space, self.generator = space, space.generator

    def forward(self, ws: Tensor, labels: Tensor | None) -> Tensor:
        return self.space.synthesize(ws, _labels(ws, labels))


def _labels(values: Tensor, labels: Tensor | None) -> Tensor:
    if labels is not None:
        return labels
    return torch.zeros(values.shape[0], dtype=torch.int64)


def full_graph(trained: TrainedGenerator) -> Graph:
    """`generator.onnx`: z, labels, truncation_psi → images."""
    space, _ = prepare_for_export(trained)
    z, labels = _examples(trained)
    psi = torch.tensor(0.7)
    return Graph(
        FullGenerator(space), ("z", "labels", "truncation_psi"), (z, labels, psi), "images"
    )


class Translation(nn.Module):
    """images (n, channels, height, width) in [-1, 1] → their translations, of the same shape."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, images: Tensor) -> Tensor:
        translations: Tensor = self.generator(images, _labels(images, None))
        return translations


def translation_graph(trained: TrainedGenerator, direction: str) -> Graph:
    """Return the graph of a direction, `a-to-b` or `b-to-a`: images → translations."""
    generator = copy.deepcopy(trained.translator(direction)).cpu().float().eval()
    generator.to(memory_format=torch.contiguous_format)
    shape = trained.shape
    images = torch.zeros(2, shape.channels, shape.height, shape.width)
    return Graph(Translation(generator), ("images",), (images,), "translations")


def split_graphs(trained: TrainedGenerator) -> dict[str, Graph]:
    """Return the graphs of the page by file name: `synthesis.onnx` and, if there is a mapping,
    `mapping.onnx`. With both, labels are inputs of the mapping only."""
    space, _ = prepare_for_export(trained)
    z, labels = _examples(trained)
    if not space.has_mapping:
        names = ("ws", "labels")
        return {"synthesis.onnx": Graph(Synthesis(space), names, (z[:, None], labels), "images")}
    ws = space.map(z, torch.zeros(2, dtype=torch.int64))
    return {
        "mapping.onnx": Graph(Mapping(space), ("z", "labels"), (z, labels), "ws"),
        "synthesis.onnx": Graph(Synthesis(space), ("ws", "labels"), (ws, None), "images"),
    }


def _examples(trained: TrainedGenerator) -> tuple[Tensor, Tensor | None]:
    z = latents_of([1, 2], trained.latent, trained.generator.z_dim)
    labels = torch.tensor([0, trained.classes - 1]) if trained.conditional else None
    return z, labels
