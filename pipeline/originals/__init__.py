"""Download: the URL manifest to originals, in parts."""
