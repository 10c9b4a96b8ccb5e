"""Techniques that help a GAN to train; `docs/tricks.md` lists them all."""
