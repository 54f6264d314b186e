"""Folders that ``lrc export`` wrote, for vLLM: ``"quant_method": "lowrank"`` of config.json.

vLLM calls :func:`register` in each of its processes, by the entry point ``vllm.general_plugins``. ``import
vllm_lowrank`` by itself needs torch only.
"""

from __future__ import annotations


def register() -> None:
    """Make the format known to vLLM; any number of times."""
    import vllm_lowrank.quantization  # noqa: F401
