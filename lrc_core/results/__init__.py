"""Finished runs, samples and plans: finding and reading them. Files only, never a model; no torch, no pandas."""
