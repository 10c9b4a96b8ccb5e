"""Techniques that help a GAN to train; `docs/tricks.md` lists these and the rest."""
