"""Rank allocators, one folder per method. Importing this package registers them and loads no torch."""

from importlib import import_module

from lrc_core.front import callable_package

METHODS = (
    "uniform.method", "strs.method",
    "lagrangian.method", "drank.method", "svdllm2.method", "zerosum.method",  # closed forms
    "greedy.method", "contextual.method", "lems.method",  # probes
    "llrc.method", "successive.method", "ara.method", "dobi.method", "ars.method",  # training
    "llm_pruner.method", "llm_pruner.lora",  # structure instead of ranks
)  # fmt: skip
"""The modules that register a method, in the order in which methods are shown."""

callable_package(__name__)
for _module in METHODS:
    import_module(f"{__name__}.{_module}")
