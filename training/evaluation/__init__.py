"""Evaluation: comparison with real images, evaluation during training, probing of
discriminators."""
