"""Contextual KL, the module-level allocation of Duo-SVD (arXiv 2510.19385).

All layers stand at the target ratio; one at a time is tried at every ratio of a grid, and dense, with the others where
they are. The change of the KL divergence from the dense model is what that ratio of that layer costs or gains, and the
plan of least total change within the budget is found exactly: the authors' dynamic program rounds parameters to
10,000 units, here the same multiple-choice knapsack is an integer program over single parameters.

Choices made here: the plan that the probes stand on is the uniform one of this program, so that it is always among the
choices and costs nothing; layers are not cut into preserved columns and factors, which is the paper's other half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lrc_core.allocate.curves.knapsack import best_plan, gains
from lrc_core.allocate.probing.grid import ProbeText, ratio_grid
from lrc_core.allocate.protocol import Allocation, Context
from lrc_core.budget import check_target, fit_budget, is_dense, uniform_ranks, whole_rank_of_share
from lrc_core.registry import ALLOCATORS, MethodEntry
from lrc_core.settings import setting
from lrc_core.types import LinearShape


@dataclass(frozen=True)
class ContextualSettings:
    """Settings of contextual KL; the defaults are the paper's."""

    windows: int = setting(
        32, "Probe windows", "Token windows of every probe; 32 in the authors' code.", minimum=1, maximum=4096
    )
    window: int = setting(2048, "Window", "Tokens in a probe window.", minimum=2, maximum=65536)
    lowest: float = setting(0.1, "Lowest ratio", "Smallest ratio tried.", minimum=0.01, maximum=0.99)
    step: float = setting(
        0.1, "Ratio step", "Distance between ratios; the dense layer is always tried.", minimum=0.01, maximum=0.5
    )


ENTRY = ALLOCATORS.register(
    MethodEntry(
        name="contextual",
        label="Contextual KL",
        summary="Changes one layer at a time in the uniformly compressed model and solves for the best combination.",
        source="Duo-SVD, arXiv 2510.19385",
        color="#b565e0",
        implementation="lrc_core.allocate.contextual.method:allocate",
        settings_class=ContextualSettings,
        presets={
            "quick": {"windows": 4, "window": 256, "lowest": 0.4, "step": 0.2},
            "standard": {"windows": 8, "window": 512, "lowest": 0.2, "step": 0.2},
            "paper": {},
        },
        tiny={"windows": 2, "window": 12, "lowest": 0.4, "step": 0.4},
    )
)


def allocate(context: Context, settings: ContextualSettings) -> Allocation:
    """Contextual ranks; see :class:`~lrc_core.allocate.protocol.Allocator`.

    Probes stand on the target's own uniform plan, so they belong to this run; finished ones survive a cancel.
    """
    allowed = check_target(context.layers, context.keep)
    from lrc_core.allocate.probing.probes import BASE, probe_layers  # torch

    base = fit_budget(context.layers, uniform_ranks(context.layers, context.keep), context.keep)
    tried = tried_ranks(context.layers, settings, base)
    wanted = [(layer, rank) for layer in context.layers for rank in tried[layer.name] if rank != base[layer.name]]
    effects = probe_layers(context, ProbeText(settings.windows, settings.window), wanted, base)
    uniform = effects[BASE].divergence
    choices = {name: {rank: 0.0} for name, rank in base.items()}
    for layer, rank in wanted:
        choices[layer.name][rank] = effects[layer.name, rank].divergence - uniform
    found = best_plan(context.layers, choices, allowed)
    first = gains(context.layers, choices, found.ranks)
    details = {"uniform_divergence": uniform, "predicted_divergence": uniform + found.error, "proven": found.proven}
    return Allocation(
        fit_budget(context.layers, found.ranks, context.keep, first), details={**details, "probes": len(wanted)}
    )


def tried_ranks(
    layers: Sequence[LinearShape], settings: ContextualSettings, base: Mapping[str, int]
) -> dict[str, list[int]]:
    """Ranks of the grid that save parameters, that of the base plan, and dense; ascending, each once."""
    ratios = ratio_grid(settings.lowest, 1.0, settings.step)
    found = {}
    for layer in layers:
        low = {rank for value in ratios if not is_dense(layer, rank := whole_rank_of_share(layer, value))}
        found[layer.name] = sorted(low | {base[layer.name], layer.full_rank})
    return found
