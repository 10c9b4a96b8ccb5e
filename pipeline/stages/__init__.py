"""The stages as plain functions: crawl, download, select, shard."""
