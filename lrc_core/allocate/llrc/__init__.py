"""LLRC, learned masks over singular values (arXiv 2512.13733)."""
