"""The embedded gallery: a small web site of rendered sea shells, served on loopback."""
