"""Are generated images new, or copies of training images?

The memorisation distance and MiFID are those of Bai et al. 2021 (section 3; Kaggle's "Generative
Dog Images"). The Fréchet distance rewards copies; MiFID divides it by how far fakes keep from them.
"""

from __future__ import annotations

import numpy as np

from training.metrics.distances import Features, Floats, nearest_cosine

QUANTILE = 0.01


def memorisation(real: Features, fake: Features) -> float:
    """The mean over fakes of the smallest cosine distance 1 − |cos| to a real image; 0 where all
    are copies."""
    return float(nearest_cosine(fake, real)[0].mean())


def memorisation_penalised(frechet: float, distance: float, threshold: float) -> float:
    """MiFID: the Fréchet distance over the memorisation distance, where that is below `threshold`
    (0.1 at Kaggle, for Inception's features); else the Fréchet distance itself."""
    return frechet / max(distance, 1e-15) if distance < threshold else frechet


def copy_distance(real: Features) -> float:
    """The cosine distance that 1 % of the real images keep at most from the nearest other one."""
    return float(np.quantile(nearest_cosine(real, real, apart=True)[0], QUANTILE))


def copies(real: Features, fake: Features, nearer_than: float) -> tuple[float, Floats]:
    """The share of fakes nearer to a real image than `nearer_than`, and each fake's distance.

    With `copy_distance` as the bound, new images of the same kind give about 0.01. The measure is
    ours.
    """
    distances, _ = nearest_cosine(fake, real)
    return float((distances <= nearer_than).mean()), distances
