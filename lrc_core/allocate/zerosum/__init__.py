"""Zero Sum SVD, components dropped so that slopes cancel (arXiv 2602.02848)."""
