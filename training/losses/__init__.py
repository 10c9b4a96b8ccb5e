"""Adversarial losses, gradient penalties and auxiliary losses by their names in the
configuration."""

from training.losses.adaptive import LossNumbers
from training.losses.auxiliary import (
    class_loss,
    code_loss,
    feature_matching,
    labelled_loss,
    pulling_away,
)
from training.losses.path_length import path_lengths, path_penalty
from training.losses.penalties import (
    clip_weights,
    dragan,
    gradient_penalty,
    logit_gradients,
    squared_gradient,
    squared_norm,
)  # fmt: skip
from training.losses.registry import LOSSES, AdversarialLoss, separation
from training.losses.spread import FeatureSpread

__all__ = [
    "LOSSES", "AdversarialLoss", "FeatureSpread", "LossNumbers", "class_loss", "clip_weights",
    "code_loss", "dragan", "feature_matching", "gradient_penalty", "labelled_loss",
    "logit_gradients", "path_lengths", "path_penalty", "pulling_away", "separation",
    "squared_gradient", "squared_norm",
]  # fmt: skip
