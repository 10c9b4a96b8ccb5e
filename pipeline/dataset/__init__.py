"""The files of a data set: manifest, originals, kept list, shards, card, and other layouts."""
