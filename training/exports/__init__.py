"""Export formats of a generator."""
