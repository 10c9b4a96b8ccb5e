"""From a gallery's web address to training shards: crawl, download, select, shard."""
