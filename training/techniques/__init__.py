"""Training techniques; `docs/tricks.md` lists all of them."""
