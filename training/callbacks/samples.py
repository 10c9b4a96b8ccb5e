"""Writes a grid of samples per `record.sample_kimg`, within `record.time_share`."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from training.callbacks.base import Cadence, Callback, EndReason
from training.grid import Pixels, generate_images, make_grid, save_image, shown
from training.techniques import fixed_latents
from training.translation import first_images, translation_grid

if TYPE_CHECKING:
    from training.loop import Loop


class SamplesCallback(Callback):
    """Writes grids of the same latents and labels every time, by the EMA generator; where images
    are translated, the same first images of both sets, their translations, and those translated
    back."""

    seconds = 0.0
    """How long it took to generate and to write the last grid."""

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop)
        self._cadence = Cadence(loop, "grid", loop.config.record.sample_kimg)

    def on_start(self) -> None:
        loop, count = self.loop, self.loop.config.record.grid
        z_dim = loop.state.generator.z_dim
        self.latents = fixed_latents(
            loop.config.latent, count, z_dim, loop.config.seed, loop.device
        )
        self.labels = torch.arange(count, device=loop.device) % max(1, loop.source.classes)
        self.images: tuple[Pixels, Pixels] | None = None
        if loop.source.second is not None and loop.ranks.is_main:
            self.images = first_images(loop.source, count, loop.config)
        if loop.state.seen == 0:
            loop.on_main_process(self._write_grid)

    @property
    def is_due(self) -> bool:
        """True if this step ends with samples."""
        return self._cadence.is_due or self.loop.state.seen >= self.loop.total

    def after_step(self) -> None:
        if self.is_due:
            self.loop.on_main_process(self._write_grid)

    def on_end(self, reason: EndReason) -> None:
        if reason is EndReason.HOURS:
            self.loop.on_main_process(self._write_grid)
            self.loop.finish_writing()

    def _write_grid(self) -> None:
        """Generate the grid, and let a thread write it."""
        loop, seen, start = self.loop, self.loop.state.seen, time.monotonic()
        path = loop.run_files.samples / f"{seen:010d}.png"

        def tell(written: float) -> None:
            self.seconds = generated + written
            for callback in loop.callbacks:
                callback.on_grid(seen, path)

        with self._cadence.timed():
            make = self._generate()
            generated = time.monotonic() - start
            loop.writer.submit("grid", partial(_write, path, make), tell)

    def _generate(self) -> Callable[[], Pixels]:
        """Generate the images; return a function that arranges them, which any thread may call."""
        grid = self.translations()
        if grid is not None:
            return lambda: grid
        average = self.loop.state.g_ema.eval()
        return partial(make_grid, generate_images(average, self.latents, self.labels))

    def translations(self) -> Pixels | None:
        """Return the grid of a run that translates images; None for others."""
        if self.images is None:
            return None
        state = self.loop.state
        back: Any = state.averages["generator_back"].eval()
        return translation_grid(state.g_ema.eval(), back, *self.images)


def _write(path: Path, make: Callable[[], Pixels]) -> float:
    """Write a grid; return the seconds that took."""
    start = time.monotonic()
    save_image(path, shown(make()))
    return time.monotonic() - start
