"""One adapter a kind of source; SOURCES is the registry."""
