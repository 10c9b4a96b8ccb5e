"""Object storage that mirrors a dataset."""
