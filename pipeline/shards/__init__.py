"""Shard: selected originals to training samples in WebDataset tars."""
