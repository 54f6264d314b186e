"""Dobi-SVD, trained truncation positions (arXiv 2502.02723)."""
