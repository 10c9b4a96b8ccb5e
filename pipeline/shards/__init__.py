"""Builds training samples from the selected originals, in WebDataset tars."""
