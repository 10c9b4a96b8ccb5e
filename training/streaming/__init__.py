"""Streaming of samples from shards, local or from a URL, in a fixed order."""
