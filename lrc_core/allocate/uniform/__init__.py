"""The same share of every layer."""
