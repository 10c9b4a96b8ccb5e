"""Polite HTTP, below `pipeline.http`: gates, robots, retries, transports, and what goes wrong."""
