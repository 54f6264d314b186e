"""What is looked at before the first pass: causality, positions, token ids."""
