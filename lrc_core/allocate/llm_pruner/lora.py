"""LLM-Pruner with its recovery stage: LoRA training of the pruned model (arXiv 2305.11627, section 3.3).

Adapters of rank 8 on every block linear, also of blocks that stay whole, are trained on the next-token loss and merged
into the pruned weights. The paper trains on instructions (Alpaca, two epochs of about 50,000); here it is the same
calibration text that every other method reads, so that the bench compares methods and not data. Plans of other methods
are not tuned unless they are updated so (``lrc_core/tune``): name and summary say so.
"""

from __future__ import annotations

from lrc_core.allocate.llm_pruner.method import QUICK_SCORING, STANDARD_SCORING, prune
from lrc_core.allocate.llm_pruner.settings import LlmPrunerLoraSettings
from lrc_core.allocate.protocol import Allocation, Context
from lrc_core.budget import dense_ranks
from lrc_core.registry import ALLOCATORS, MethodEntry

ENTRY = ALLOCATORS.register(
    MethodEntry(
        name="llm_pruner_lora",
        label="LLM-Pruner + LoRA",
        summary="LLM-Pruner, then tuned: LoRA adapters trained on the calibration text and merged. "
        "Other methods are tuned only where an update is asked for.",
        source="arXiv 2305.11627, section 3.3",
        color="#e48fc0",
        implementation="lrc_core.allocate.llm_pruner.lora:allocate",
        settings_class=LlmPrunerLoraSettings,
        presets={
            "quick": {**QUICK_SCORING, "documents": 400, "batch": 4, "epochs": 1, "learning_rate": 5e-4},
            "standard": {**STANDARD_SCORING, "documents": 4096, "batch": 16, "epochs": 1, "learning_rate": 3e-4},
            "paper": {},
        },
        structured=True,
        tiny={"windows": 3, "window": 12, "documents": 6, "training_window": 12, "batch": 2},
    )
)


def allocate(context: Context, settings: LlmPrunerLoraSettings) -> Allocation:
    """The structure that is left and its tuned weights; see :class:`~lrc_core.allocate.protocol.Allocator`.

    A cancelled run goes on from its last checkpoint.
    """
    from lrc_core.allocate.llm_pruner.recovery import recover  # torch, peft

    structure, details = prune(context, settings)
    weights, training = recover(context, settings, structure)
    return Allocation(
        dense_ranks(context.layers), details={**details, **training}, structure=structure, weights=weights
    )
