"""Forms in which a generator leaves the project."""
