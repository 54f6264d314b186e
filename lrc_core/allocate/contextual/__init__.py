"""Contextual KL with a dynamic program (arXiv 2510.19385)."""
