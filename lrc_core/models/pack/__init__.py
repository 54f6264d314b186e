"""The starter pack: a model, texts and zero-shot items out of wheels of the Python package index."""
