"""Low-rank layers: the factorised linear, the masked one that training uses, and swapping them into a model."""
