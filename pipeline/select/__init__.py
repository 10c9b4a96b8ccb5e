"""Selects the originals that pass all limits."""
