"""Runs with weights that nobody trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from training import checkpoint
from training.config import Config
from training.networks import ImageShape, build_generator
from training.networks.stylegan2.generator import StyledGenerator
from training.options.architectures import DcganGenerator, StyleGan2Generator
from training.options.resolve import flatten
from training.options.styled import StyleGan3Generator

LABELS = ("cone", "whelk")
TABLES: dict[str, Any] = {
    "dcgan": DcganGenerator(width=8, z_dim=8),
    "labelled": DcganGenerator(width=8, z_dim=9, condition="norm"),
    "spectral": DcganGenerator(width=8, z_dim=8, spectral=True, dropout=0.2, dropout_at_test=True),
    "stylegan2": StyleGan2Generator(
        channel_base=512, channel_max=16, w_dim=12, z_dim=8, mapping_layers=2, condition="embedding"
    ),
    "stylegan3": StyleGan3Generator(
        channel_base=128, channel_max=16, w_dim=12, z_dim=8, layers=4, margin=4,
        condition="embedding",
    ),
}  # fmt: skip


def make_run(folder: Path, kind: str, location: str = "", channels: int = 3) -> Path:
    """A run's folder with a checkpoint at 12,000 images, lively pictures of 16 px."""
    torch.manual_seed(3)
    config = Config(preset="made", generator=TABLES[kind])
    dataset = {
        "location": location, "name": "shells", "digest": "0" * 64, "samples": 100,
        "channels": channels, "labels": list(LABELS), "height": 16, "width": 16,
    }  # fmt: skip
    generator = build_generator(config.generator, ImageShape(16, 16, channels, len(LABELS)))
    styled = isinstance(generator, StyledGenerator)
    with torch.no_grad():
        for name, value in generator.named_parameters():
            if not styled and value.dim() > 1:
                value.copy_(torch.randn_like(value) * 0.2)
            elif name.endswith("noise_strength"):
                value.fill_(0.3)
        if styled:
            latents = torch.randn(500, generator.z_dim)
            ws = generator.eval().mapping(latents, torch.zeros(500, dtype=torch.int64))
            generator.w_avg.copy_(ws[:, 0].mean(dim=0))
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"config": flatten(config), "dataset": dataset}))
    state = {"average": generator.state_dict(), "seen": 12_000}
    checkpoint.save(folder / "checkpoints", 12_000, {"state": state}, 1)
    return folder
