"""SVD-LLM V2, budgets by truncation loss within each kind of layer."""
