"""Writes a grid of samples per `record.sample_kimg`."""

from __future__ import annotations

import time

import torch

from training.callbacks.base import Callback, EndReason, crossed
from training.grid import generate_images, make_grid, save_image, shown
from training.techniques import fixed_latents


class SamplesCallback(Callback):
    """Draws the same latents and labels every time, with the EMA generator."""

    seconds = 0.0
    """How long the last grid took."""

    def on_start(self) -> None:
        loop, count = self.loop, self.loop.config.record.grid
        z_dim = loop.state.generator.z_dim
        self.latents = fixed_latents(
            loop.config.latent, count, z_dim, loop.config.seed, loop.device
        )
        self.labels = torch.arange(count, device=loop.device) % max(1, loop.source.classes)
        if loop.state.seen == 0:
            loop.on_main_process(self._draw)

    def is_due(self) -> bool:
        """Return True if this step ends with samples."""
        loop = self.loop
        return (
            crossed(loop.seen_before, loop.state.seen, loop.config.record.sample_kimg)
            or loop.state.seen >= loop.total
        )

    def after_step(self) -> None:
        if self.is_due():
            self.loop.on_main_process(self._draw)

    def on_end(self, reason: EndReason) -> None:
        if reason is EndReason.HOURS:
            self.loop.on_main_process(self._draw)

    def _draw(self) -> None:
        start, state = time.monotonic(), self.loop.state
        pixels = generate_images(state.g_ema.eval(), self.latents, self.labels)
        grid = shown(make_grid(pixels))
        save_image(self.loop.run_files.samples / f"{state.seen:010d}.png", grid)
        self.seconds = time.monotonic() - start
