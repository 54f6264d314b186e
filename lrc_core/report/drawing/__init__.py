"""Charts as shapes, the same for every medium."""
