"""Finished runs, samples and plans: finding, reading and judging them. Files only: no model, torch or pandas."""
