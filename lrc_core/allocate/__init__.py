"""Rank allocators, one method a file. Importing this package registers them and loads no torch.

The order of the imports is the order in which methods are shown.
"""

from lrc_core.allocate import uniform, strs  # isort: skip
from lrc_core.allocate import lagrangian, drank, svdllm2, zerosum  # isort: skip  (closed forms)
from lrc_core.allocate import greedy, contextual, lems  # isort: skip  (probes)
from lrc_core.allocate import llrc, successive, ara, dobi, ars  # isort: skip  (training)
from lrc_core.allocate import llm_pruner, llm_pruner_lora  # isort: skip  (no ranks: structure)

__all__ = [
    "ara",
    "ars",
    "contextual",
    "dobi",
    "drank",
    "greedy",
    "lagrangian",
    "lems",
    "llm_pruner",
    "llm_pruner_lora",
    "llrc",
    "strs",
    "successive",
    "svdllm2",
    "uniform",
    "zerosum",
]
