"""Charts as shapes, and films made of them: files that open without the program. Light: no torch, no model library."""
