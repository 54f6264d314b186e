"""The linears of the decoder blocks: found by structure, of loaded models and of files, experts included."""
