"""STRS, sensitivity-based truncation rank searching (ASVD, arXiv 2312.05821, section 4.2).

One layer at a time is truncated at each ratio of a grid, all others dense, and the perplexity measured; then one cut
through the sorted list of all (layer, ratio, perplexity) decides for every layer. The authors' search loop may end on
a cut that overshoots the budget; here the last cut that fits is taken and the remainder is spent rank by rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lrc_core.allocate.probing.grid import ProbeText, ratio_grid
from lrc_core.allocate.protocol import Allocation, Context
from lrc_core.budget import check_target, dense_ranks, fit_budget, plan_params, whole_rank_of_share
from lrc_core.registry import ALLOCATORS, MethodEntry
from lrc_core.settings import setting
from lrc_core.types import LinearShape


@dataclass(frozen=True)
class StrsSettings:
    """Settings of STRS."""

    windows: int = setting(
        32, "Probe windows", "Token windows of every probe; 32 in the paper.", minimum=1, maximum=4096
    )
    window: int = setting(2048, "Window", "Tokens in a probe window; 2048 in the paper.", minimum=2, maximum=65536)
    lowest: float = setting(
        0.4,
        "Lowest ratio",
        "Smallest ratio probed; 0.4 since the authors' revision of October 2024.",
        minimum=0.01,
        maximum=0.99,
    )
    highest: float = setting(0.9, "Highest ratio", "Largest ratio probed.", minimum=0.01, maximum=0.99)
    step: float = setting(0.1, "Ratio step", "Distance between probed ratios.", minimum=0.01, maximum=0.5)


ENTRY = ALLOCATORS.register(
    MethodEntry(
        name="strs",
        label="STRS",
        summary="Probes one layer at a time and truncates where the perplexity suffers least.",
        source="ASVD, arXiv 2312.05821, section 4.2",
        color="#e69f00",
        implementation="lrc_core.allocate.strs.method:allocate",
        settings_class=StrsSettings,
        presets={"quick": {"windows": 4, "window": 256}, "standard": {"windows": 8, "window": 512}, "paper": {}},
        tiny={"windows": 2, "window": 12, "lowest": 0.4, "step": 0.4},
    )
)


@dataclass(frozen=True)
class Probe:
    """One measurement: a single layer at a ratio, everything else dense."""

    layer: str
    ratio: float
    rank: int
    perplexity: float


def probe_grid(settings: StrsSettings) -> list[float]:
    """The probed ratios, ascending."""
    return ratio_grid(settings.lowest, settings.highest, settings.step)


def allocate(context: Context, settings: StrsSettings) -> Allocation:
    """STRS ranks; see :class:`~lrc_core.allocate.protocol.Allocator`. Finished probes survive a cancel."""
    probes = _measure(context, settings)
    ranks = choose(context.layers, probes, context.keep)
    return Allocation(ranks, details={"probes": len(probes)})


def _measure(context: Context, settings: StrsSettings) -> list[Probe]:
    """Every layer at every ratio. Probes do not depend on the target, so all targets share them."""
    from lrc_core.allocate.probing.probes import probe_layers  # torch

    ratios = probe_grid(settings)
    wanted = [(layer, ratio, whole_rank_of_share(layer, ratio)) for layer in context.layers for ratio in ratios]
    text = ProbeText(settings.windows, settings.window)
    effects = probe_layers(context, text, [(layer, rank) for layer, _, rank in wanted])
    return [Probe(layer.name, ratio, rank, math.exp(effects[layer.name, rank].loss)) for layer, ratio, rank in wanted]


def choose(layers: Sequence[LinearShape], probes: Sequence[Probe], keep: float) -> dict[str, int]:
    """The plan of the last cut that fits the budget.

    Probes are sorted by perplexity, worst first; at cut i every layer takes the smallest ratio among its probes at
    positions >= i and stays dense where it has none, so a larger cut keeps more.

    Raises:
        BudgetError: the target is impossible.
    """
    allowed = check_target(layers, keep)
    ordered = sorted(probes, key=lambda probe: (-probe.perplexity, probe.layer, probe.ratio))
    return fit_budget(layers, _last_fitting_cut(layers, ordered, allowed), keep)


def _last_fitting_cut(layers: Sequence[LinearShape], ordered: Sequence[Probe], allowed: int) -> dict[str, int]:
    low, high = 0, len(ordered)  # cut `low` is assumed to fit; if not even cut 0 does, fit_budget scales it down
    while high - low > 1:
        middle = (low + high) // 2
        if plan_params(layers, _cut(layers, ordered[middle:])) <= allowed:
            low = middle
        else:
            high = middle
    return _cut(layers, ordered[low:])


def _cut(layers: Sequence[LinearShape], remaining: Sequence[Probe]) -> dict[str, int]:
    ranks = dense_ranks(layers)
    smallest: dict[str, Probe] = {}
    for probe in remaining:
        if probe.layer not in smallest or probe.ratio < smallest[probe.layer].ratio:
            smallest[probe.layer] = probe
    return {**ranks, **{name: probe.rank for name, probe in smallest.items()}}
