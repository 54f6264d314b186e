"""Low-rank compression of causal language models: decompose, allocate ranks, evaluate.

Imports go downward only, floor by floor (see the tree in README.md); a test enforces it.
"""

__version__ = "0.1.0"
