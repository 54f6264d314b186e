"""LEMS, an integer program over probed error models (ICML 2026)."""
