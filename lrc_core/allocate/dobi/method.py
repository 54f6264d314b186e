"""Dobi-SVD's trained truncation positions (arXiv 2502.02723, section 3.1); the learning of ranks only.

Every layer has one number k, and component i is multiplied by ``0.5 tanh(beta (k - i)) + 0.5``: nearly 1 before k,
nearly 0 behind it, with a slope at k. The loss is ``task + weight * |kept share - target|``, and training starts at the
target.

Where the public code differs from the paper, preset ``paper`` follows the code, whose figures are the published
ones: it minimises the perplexity where the paper writes the task loss. Here as in every method the truncated
components are those of the chosen decomposition; Dobi-SVD truncates each sequence's activations, takes gradients
through their SVD, and rebuilds the weights afterwards, none of which chooses a rank. Its code penalises k outside
1..r; here k is put back. Storing factors in fewer bits ("remapping") is no rank selection and left out.
"""

from __future__ import annotations

from lrc_core.allocate.dobi.settings import DobiSettings
from lrc_core.allocate.protocol import Allocation, Context
from lrc_core.registry import ALLOCATORS, MethodEntry

_SMALL_MACHINE = {
    "task": "text",
    "budget_weight": 20.0,
    "sharpness": 0.5,
    "unit": "break_even",
    "dense_switch": True,
    "learning_rate": 0.01,
    "lowest_rate": 0.001,
    "window": 256,
    "batch": 4,
}

ENTRY = ALLOCATORS.register(
    MethodEntry(
        name="dobi",
        label="Dobi-SVD",
        summary="Learns where to cut every layer's spectrum with a soft step that has a slope.",
        source="arXiv 2502.02723, section 3.1",
        color="#7cae00",
        implementation="lrc_core.allocate.dobi.method:allocate",
        settings_class=DobiSettings,
        presets={
            "quick": {**_SMALL_MACHINE, "steps": 150, "rate_period": 150, "documents": 512},
            "standard": {**_SMALL_MACHINE, "steps": 400, "rate_period": 400, "documents": 1024},
            "paper": {},
        },
        learns=True,
        tiny={"documents": 3, "window": 12, "batch": 2, "steps": 5},
        reports=("task", "budget"),
    )
)


def allocate(context: Context, settings: DobiSettings) -> Allocation:
    """Train truncation positions; see :class:`~lrc_core.allocate.protocol.Allocator`. Resumes bit for bit.

    Training starts at the target and stays around it, so there are no plans of other rates on its way.
    """
    from lrc_core.allocate.dobi.training import PositionTraining  # torch

    return PositionTraining(context, settings).run()
