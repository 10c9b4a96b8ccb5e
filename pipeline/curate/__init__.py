"""The page on which images are kept and rejected by eye."""
