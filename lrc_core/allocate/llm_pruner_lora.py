"""LLM-Pruner with its recovery stage: LoRA training of the pruned model (arXiv 2305.11627, section 3.3).

Adapters of rank 8 on every block linear, also of blocks that stay whole, are trained on the next-token loss and merged
into the pruned weights. The paper trains on instructions (Alpaca, two epochs of about 50,000); here it is the same
calibration text that every other method reads, so that the bench compares methods and not data. Plans of other methods
are not tuned unless they are updated so (``lrc_core/tune``): name and summary say so.
"""

from __future__ import annotations

from dataclasses import dataclass

from lrc_core.allocate.llm_pruner import QUICK_SCORING, STANDARD_SCORING, LlmPrunerSettings, prune
from lrc_core.allocate.protocol import Allocation, Context
from lrc_core.budget import check_target, dense_ranks
from lrc_core.registry import ALLOCATORS, MethodEntry
from lrc_core.settings import setting


@dataclass(frozen=True)
class LlmPrunerLoraSettings(LlmPrunerSettings):
    """Settings of pruning and recovery; the defaults are the paper's and its code's."""

    lora_rank: int = setting(8, "LoRA rank", "Rank of the adapters; 8 in the paper.", minimum=1, maximum=512)
    lora_alpha: float = setting(
        16.0, "LoRA alpha", "Adapters are scaled by alpha over rank; 16 in the authors' code.", minimum=0.01
    )
    lora_dropout: float = setting(
        0.05, "LoRA dropout", "Of what the adapters read; 0.05 in the authors' code.", minimum=0.0, maximum=0.9
    )
    learning_rate: float = setting(
        1e-4, "Learning rate", "Of AdamW: a linear warm-up, then linearly to zero.", minimum=1e-7, maximum=1.0
    )
    warmup: float = setting(
        0.06, "Warm-up", "Share of the steps in which the rate rises; 100 of about 1,600.", minimum=0.0, maximum=1.0
    )
    documents: int = setting(50000, "Training windows", "How many token windows there are to learn from.", minimum=1)
    training_window: int = setting(
        256, "Training window", "Tokens in a training window; 256 in the paper.", minimum=2, maximum=65536
    )
    batch: int = setting(64, "Batch", "Windows in a step; 64 in the authors' script.", minimum=1, maximum=4096)
    at_once: int = setting(4, "At once", "Windows of a batch that are computed together.", minimum=1, maximum=4096)
    epochs: int = setting(2, "Epochs", "How often the training windows are gone through.", minimum=1, maximum=1000)


ENTRY = ALLOCATORS.register(
    MethodEntry(
        name="llm_pruner_lora",
        label="LLM-Pruner + LoRA",
        summary="LLM-Pruner, then tuned: LoRA adapters trained on the calibration text and merged. "
        "Other methods are tuned only where an update is asked for.",
        source="arXiv 2305.11627, section 3.3",
        color="#e48fc0",
        implementation="lrc_core.allocate.llm_pruner_lora:allocate",
        settings_class=LlmPrunerLoraSettings,
        presets={
            "quick": {**QUICK_SCORING, "documents": 400, "batch": 4, "epochs": 1, "learning_rate": 5e-4},
            "standard": {**STANDARD_SCORING, "documents": 4096, "batch": 16, "epochs": 1, "learning_rate": 3e-4},
            "paper": {},
        },
        structured=True,
    )
)


def allocate(context: Context, settings: LlmPrunerLoraSettings) -> Allocation:
    """The structure that is left and its tuned weights; see :class:`~lrc_core.allocate.protocol.Allocator`.

    A cancelled run goes on from its last checkpoint.
    """
    check_target(context.layers, context.keep)
    if context.keep >= 1:
        return Allocation(dense_ranks(context.layers))
    from lrc_core.allocate.llm_pruner_recovery import recover  # torch, peft

    structure, details = prune(context, settings)
    weights, training = recover(context, settings, structure)
    return Allocation(
        dense_ranks(context.layers), details={**details, **training}, structure=structure, weights=weights
    )
