"""ARA, adaptive rank allocation by staircase masks (arXiv 2510.19389)."""
