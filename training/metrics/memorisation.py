"""Metrics of memorisation: are generated images new, or copies of training images?

The memorisation distance and MiFID are those of Bai et al. 2021 (section 3; Kaggle's "Generative
Dog Images"). The Fréchet distance rewards copies; MiFID divides it by the distance of fakes to real
images.
"""

from __future__ import annotations

import numpy as np

from training.metrics.distances import Features, Floats, nearest_cosine

QUANTILE = 0.01


def memorisation(real: Features, fake: Features) -> float:
    """Return the mean over fakes of the smallest cosine distance 1 − |cos| to a real image; 0 if
    all are copies."""
    return float(nearest_cosine(fake, real)[0].mean())


def memorisation_penalised(frechet: float, distance: float, threshold: float) -> float:
    """Return MiFID: the Fréchet distance divided by the memorisation distance if that is below
    `threshold` (0.1 at Kaggle, for Inception's features); otherwise the Fréchet distance."""
    return frechet / max(distance, 1e-15) if distance < threshold else frechet


def copy_distance(real: Features) -> float:
    """Return the 1 % quantile of the cosine distances of real images to their nearest other one."""
    return float(np.quantile(nearest_cosine(real, real, apart=True)[0], QUANTILE))


def copies(real: Features, fake: Features, nearer_than: float) -> tuple[float, Floats]:
    """Return the fraction of fakes nearer to a real image than `nearer_than`, and each fake's
    distance.

    With `copy_distance` as the limit, new images of the same kind give about 0.01. This metric is
    not from the literature.
    """
    distances, _ = nearest_cosine(fake, real)
    return float((distances <= nearer_than).mean()), distances
