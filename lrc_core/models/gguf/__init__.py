"""GGUF files: their headers and parts, what their keys mean, and unpacking them into plain model folders."""
