"""Samples out of shards, on the disk or behind a URL, in their order."""
