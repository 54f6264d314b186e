"""D-Rank, effective rank as the budget (arXiv 2509.25622)."""
