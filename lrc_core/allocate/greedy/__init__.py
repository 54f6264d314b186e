"""Greedy over measured loss curves."""
