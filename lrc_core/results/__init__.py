"""Finished runs, samples and plans: finding, reading and judging them. Files only, never a model, torch or pandas."""
