"""Options, their conflicts, and the order of precedence."""
