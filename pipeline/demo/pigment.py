"""Pigment patterns that grow line by line along the lip of a shell.

A shell is painted only at its growing edge, so its pattern is the space-time record of a
reaction on a line of cells (H. Meinhardt, "The Algorithmic Beauty of Sea Shells", 1995;
H. Meinhardt and M. Klingler, Journal of Theoretical Biology 126, 1987, pp. 63-89). The
activator a feeds on a substrate b (activator-depleted substrate model, equation 2.4 of the
book), with saturation of the reaction:

    da/dt = s b (a^2 / (1 + k a^2) + a0) - ra a + Da a_xx
    db/dt = b0(x) - s b (a^2 / (1 + k a^2) + a0) - rb b
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipeline.demo.randomness import generator
from pipeline.demo.raster import Floats, sample_grid

CELLS = 192
LINES = 620
STILL_LINES = 12
SETTLING = 80
DECAY = 0.1
REACTION = 0.1


@dataclass(frozen=True)
class ReactionParams:
    """Constants of the reaction; ``sparks`` is the chance per line of a spontaneous start.

    ``swing`` (0..1) is how strongly the supply of substrate varies along the lip. Patterns
    that only vary along the lip are ``still`` and take few lines.
    """

    diffusion: float
    supply: float
    loss: float
    basal: float
    saturation: float = 0.0
    sparks: float = 0.0
    swing: float = 0.0
    still: bool = False
    steps: int = 4


RECIPES = {
    "waves": ReactionParams(diffusion=0.1, supply=0.05, loss=0.0, basal=0.01, sparks=0.1),
    "ripples": ReactionParams(diffusion=0.4, supply=0.08, loss=0.0, basal=0.01, saturation=0.1),
    "zigzags": ReactionParams(
        diffusion=0.4, supply=0.05, loss=0.005, basal=0.002, sparks=0.15, steps=8
    ),
    "tents": ReactionParams(
        diffusion=0.3, supply=0.1, loss=0.03, basal=0.001, sparks=0.16, steps=6
    ),
    "drops": ReactionParams(diffusion=0.1, supply=0.03, loss=0.01, basal=0.01, sparks=0.5),
    "spots": ReactionParams(diffusion=0.4, supply=0.2, loss=0.1, basal=0.001, sparks=0.26),
    "bands": ReactionParams(
        diffusion=0.2, supply=0.05, loss=0.02, basal=0.02, swing=0.6, still=True
    ),
}


def diffuse(values: Floats) -> Floats:
    """Return the second difference of n cells, with closed ends."""
    out = np.empty_like(values)
    out[1:-1] = values[2:] + values[:-2] - 2 * values[1:-1]
    out[0], out[-1] = values[1] - values[0], values[-2] - values[-1]
    return out


def smooth_noise(rng: np.random.Generator) -> Floats:
    """Return a smooth random profile (CELLS,) in [-1, 1] along the lip, of 2 to 9 waves."""
    waves, starts = rng.uniform(2, 9, (3, 1)), rng.random((3, 1))
    heights = rng.uniform(0.5, 1, (3, 1))
    turns = waves * np.arange(CELLS) / CELLS + starts
    profile = (heights * np.cos(2 * np.pi * turns)).sum(axis=0)
    scaled: Floats = profile / np.abs(profile).max()
    return scaled


@lru_cache(maxsize=64)
def grow_pattern(name: str, key: int) -> Floats:
    """Grow one pattern: (LINES, CELLS) in [0, 1], oldest line first, suture at cell 0.

    The substrate step is implicit, which keeps the reaction stable at a step of one.
    """
    recipe = RECIPES[name]
    rng = generator("pigment", name, key)
    activator: Floats = np.full(CELLS, 0.1, dtype=np.float32)
    substrate: Floats = (rng.random(CELLS) * 2 + 0.5).astype(np.float32)
    source = (REACTION * rng.uniform(0.975, 1.025, CELLS)).astype(np.float32)
    supply = (recipe.supply * (1 + recipe.swing * smooth_noise(rng))).astype(np.float32)
    diffusion, saturation = np.float32(recipe.diffusion), np.float32(recipe.saturation)
    lines = np.empty((STILL_LINES if recipe.still else LINES, CELLS), dtype=np.float32)
    for line in range(-SETTLING, len(lines)):
        for _ in range(recipe.steps):
            square = activator * activator
            rate = source * (square / (1 + saturation * square) + np.float32(recipe.basal))
            substrate = (substrate + supply) / (np.float32(1 + recipe.loss) + rate)
            fed = activator + rate * substrate + diffusion * diffuse(activator)
            activator = fed / np.float32(1 + DECAY)
        if rng.random() < recipe.sparks:
            at = int(rng.integers(CELLS))
            activator[max(0, at - 2) : at + 3] += 2
        if line >= 0:
            lines[line] = activator
    low, high = np.percentile(lines, [2, 97])
    scaled: Floats = np.clip((lines - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)
    scaled.setflags(write=False)
    return scaled


def sample_pattern(pattern: Floats, line: Floats, across: Floats) -> Floats:
    """Return the pattern (n,) at n lines (wrapped) and n positions across in [0, 1]."""
    lines, cells = pattern.shape
    where = np.mod(line, lines - 1)
    column = np.clip(across, 0, 1) * (cells - 1)
    return sample_grid(pattern[..., None], where, column)[:, 0]
