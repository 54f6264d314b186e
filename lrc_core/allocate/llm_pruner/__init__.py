"""LLM-Pruner, grouped structured pruning, with and without LoRA recovery (arXiv 2305.11627)."""
