"""Low-rank compression of causal language models: decompose, allocate ranks, evaluate.

Imports go downward only, floor by floor (see docs/architecture.md); a test enforces it.
"""

__version__ = "0.1.0"
