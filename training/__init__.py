"""From training shards to an image generator: fit, sample, look."""
