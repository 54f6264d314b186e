"""What leaves the program: files that open without it. Light: no torch, no model library."""
