"""Adversarial losses and gradient penalties, by the names that a configuration uses."""

from training.losses.adversarial import LOSSES, AdversarialLoss
from training.losses.penalties import dragan, gradient_penalty, squared_gradient

__all__ = ["LOSSES", "AdversarialLoss", "dragan", "gradient_penalty", "squared_gradient"]
