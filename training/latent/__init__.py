"""Tools for the latents of a trained generator; `space` is their common interface."""
