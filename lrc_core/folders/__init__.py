"""Models as folders: written for transformers, checked by loading them again, and read from other projects."""
