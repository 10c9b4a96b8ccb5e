"""The inception score (Salimans et al. 2016): distinct classes per image, varied classes overall.

exp E[KL(p(y|x) ‖ p(y))] over the classes of an ImageNet network. It does not use real images, and
is of little use for datasets whose objects are not among the classes.
"""

from __future__ import annotations

import numpy as np

from training.metrics.distances import Features


def inception_score(logits: Features, splits: int = 1) -> float:
    """Return the score of class logits (n, classes), from 1 (worst) to the number of classes;
    the mean over `splits` sets of rows (10 in the paper). It grows with the number of rows per
    split."""
    x = logits.astype(np.float64)
    x = x - x.max(1, keepdims=True)
    log_p = x - np.log(np.exp(x).sum(1, keepdims=True))
    scores = []
    for part in range(splits):
        some = log_p[part * len(x) // splits : (part + 1) * len(x) // splits]
        p = np.exp(some)
        divergence = (p * (some - np.log(p.mean(0)))).sum(1)
        scores.append(np.exp(divergence.mean()))
    return float(np.mean(scores))
