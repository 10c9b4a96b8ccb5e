"""Directions that change images most, found without training (SeFa, Shen & Zhou 2021)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.contract import UserError, read_bytes
from training.latent.space import LatentSpace, style_weights
from training.techniques import draw_latents


@dataclass(frozen=True)
class Directions:
    """`vectors` (k, w_dim) of length 1, strongest first; `eigenvalues` (k,) are the squared
    lengths ‖A·n‖² of their effect in the first layers; `layers` are the ws they apply to."""

    vectors: Tensor
    eigenvalues: Tensor
    layers: tuple[int, ...]


def directions(space: LatentSpace, count: int, layers: Sequence[int] = ()) -> Directions:
    """Return the `count` strongest directions: eigenvectors of AᵀA, A being the stacked style
    weights of `layers` (equation 4; empty: all layers).

    The sign of a direction is arbitrary; here its largest component is positive.

    Raises:
        UserError: there is no such layer.
    """
    weights = style_weights(space)
    if any(not 0 <= layer < len(weights) for layer in layers):
        raise UserError(f"layers: the generator has layers 0 to {len(weights) - 1}")
    chosen = tuple(layers) or tuple(range(len(weights)))
    stacked = torch.cat([weights[layer] for layer in chosen]).double().cpu()
    values, vectors = torch.linalg.eigh(stacked.T @ stacked)  # ascending order
    count = min(count, len(values))
    strongest = vectors.flip(1)[:, :count].T
    largest = strongest.abs().argmax(dim=1, keepdim=True)
    strongest = strongest * strongest.gather(1, largest).sign()
    return Directions(
        strongest.float().to(space.device), values.flip(0)[:count].float(), tuple(layers)
    )


def directions_to_json(found: Directions) -> dict[str, Any]:
    """Return directions as JSON values; `read_directions` reads them."""
    return {
        "layers": list(found.layers),
        "strengths": found.eigenvalues.tolist(),
        "vectors": found.vectors.tolist(),
    }


def read_directions(path: Path, space: LatentSpace) -> Directions:
    """Read the file that `training.directions --json` wrote.

    Raises:
        UserError: it cannot be read, or does not fit the generator.
    """
    try:
        values = json.loads(read_bytes(path))
        vectors = torch.tensor(values["vectors"], dtype=torch.float32)
        strengths = torch.tensor(values["strengths"], dtype=torch.float32)
        layers = tuple(int(layer) for layer in values["layers"])
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, TypeError, KeyError, RecursionError):
        raise UserError(
            f"{path}: not a file of directions; write one with training.directions --json"
        ) from None
    fits = vectors.dim() == 2 and vectors.shape[1] == space.w_dim and bool(vectors.isfinite().all())
    if not fits or any(not 0 <= layer < space.num_ws for layer in layers):
        raise UserError(f"{path}: its directions are those of another generator")
    return Directions(vectors.to(space.device), strengths, layers)


def move(ws: Tensor, found: Directions, number: int, amount: float | Tensor) -> Tensor:
    """Move ws (n, num_ws, w_dim) by `amount`, one number or (n, 1, 1), along a direction, only in
    its layers."""
    moved = ws.clone()
    which = list(found.layers) if found.layers else slice(None)
    moved[:, which] += amount * found.vectors[number]
    return moved


def coordinate_std(space: LatentSpace, label: Tensor, count: int = 2000) -> float:
    """Return the standard deviation of a coordinate of w over `count` latents: a natural step
    size."""
    random = torch.Generator().manual_seed(0)
    z_dim, device = space.generator.z_dim, torch.device("cpu")
    latents = draw_latents(space.latent, count, z_dim, random, device).to(space.device)
    with torch.no_grad():
        ws = space.map(latents, label.expand(count))[:, 0]
    return float((ws - space.w_avg).square().mean().sqrt())
