"""Select: the originals that pass all limits."""
