"""Whether the tensors of a model's files are exactly those of the model: none missing, none unused that matters."""
