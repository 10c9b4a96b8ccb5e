"""What may be chosen, what cannot be combined, and whose word counts."""
