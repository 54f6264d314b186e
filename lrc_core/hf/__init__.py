"""``import lrc_core.hf`` teaches transformers to load folders that ``lrc export`` wrote; nothing else is needed.

``python -m lrc_core.hf MODULE ...`` runs another program with it, lm-eval for one.
"""

from lrc_core.hf.experts import MixtureConfig, MixtureQuantizer
from lrc_core.hf.lowrank import FORMAT, METHOD, FactoredLinear, LowRankConfig, LowRankQuantizer

__all__ = [
    "FORMAT",
    "METHOD",
    "FactoredLinear",
    "LowRankConfig",
    "LowRankQuantizer",
    "MixtureConfig",
    "MixtureQuantizer",
]
