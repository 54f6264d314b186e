"""LLM-Pruner: structured pruning of coupled heads and channels by gradient importance (arXiv 2305.11627).

Rows and columns that only work together form a unit: an MLP channel (gate row, up row, down column), or an attention
head (query, key and value rows, output columns; with grouped queries a key/value head and all its query heads). A unit
is as important as its weights, and a weight as what the loss is estimated to change by when it becomes zero (section
3.2). Within each module the least important units go. There are no ranks: what is left of a layer is dense, and the
plan names its shape.

Choices where the paper is silent or this bench differs: the budget counts block linears only, as for every method, and
is met exactly (what rounding leaves over buys back units, those of the module with the smallest share first); the
fractions of the depth that stay whole are those of the authors' Llama script (blocks 0 to 3 and 30 to 31 of 32); the
second-order term is the mean over samples (their code) and not the sum. Modules whose layout is not recognised (fused
query, key and value side by side, as in GPT-2) stay whole; the others make up for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lrc_core.allocate.llm_pruner.settings import LlmPrunerSettings
from lrc_core.allocate.protocol import Allocation, Context
from lrc_core.budget import dense_ranks
from lrc_core.registry import ALLOCATORS, MethodEntry

if TYPE_CHECKING:
    from lrc_core.types import Structure


QUICK_SCORING = {"windows": 32, "window": 256}
STANDARD_SCORING = {"windows": 128, "window": 512}

ENTRY = ALLOCATORS.register(
    MethodEntry(
        name="llm_pruner",
        label="LLM-Pruner",
        summary="Removes whole attention heads and MLP channels that the loss depends on least; nothing is tuned.",
        source="arXiv 2305.11627",
        color="#a6417a",
        implementation="lrc_core.allocate.llm_pruner.method:allocate",
        settings_class=LlmPrunerSettings,
        presets={"quick": QUICK_SCORING, "standard": STANDARD_SCORING, "paper": {}},
        structured=True,
        tiny={"importance": "param_mix", "windows": 5, "window": 12},
    )
)


def allocate(context: Context, settings: LlmPrunerSettings) -> Allocation:
    """The structure that is left; see :class:`~lrc_core.allocate.protocol.Allocator`. Importances survive a cancel."""
    structure, details = prune(context, settings)
    return Allocation(dense_ranks(context.layers), details=details, structure=structure)


def prune(context: Context, settings: LlmPrunerSettings) -> tuple[Structure, dict[str, Any]]:
    """What pruning leaves, and figures of it for the record.

    Raises:
        BudgetError: the target is below what one unit in every module costs.
    """
    from lrc_core.allocate.llm_pruner.choice import check_smallest, choose_units, whole_blocks
    from lrc_core.allocate.llm_pruner.importance import unit_scores  # torch
    from lrc_core.lowrank.coupling import coupled_units, structure_of
    from lrc_core.models.blocks.linears import decoder_blocks

    found = coupled_units(context.model, context.layers)
    whole = whole_blocks(len(decoder_blocks(context.model)), settings.first_whole, settings.last_whole)
    sets = [units for units in found if units.block not in whole]
    check_smallest(sets, context.layers, context.keep)
    scores = unit_scores(context, settings, sets)
    kept = choose_units(sets, scores, context.layers, context.keep, ranking=settings.ranking)
    details: dict[str, Any] = {"blocks_whole": sorted(whole)}
    for kind in ("heads", "channels"):
        of_kind = [units for units in sets if units.kind == kind]
        details[kind] = {
            "modules": len(of_kind),
            "kept": sum(len(kept[units.name]) for units in of_kind),
            "total": sum(units.count for units in of_kind),
        }
    return structure_of((units, kept[units.name]) for units in sets), details
