"""STRS, sensitivity-based truncation rank searching (arXiv 2312.05821)."""
