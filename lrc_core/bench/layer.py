"""``lrc bench layer``: what a layer of low rank costs to run and to make, pairs against pivots and the dense layer."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lrc_core.bench.turns import report_of, take_turns
from lrc_core.budget import stored, whole_rank_of_share
from lrc_core.decompose.factorise import Factors, Transform, factorise
from lrc_core.lowrank.apply import low_rank_layer, pivoted_layer
from lrc_core.lowrank.pivots import pivot_form
from lrc_core.models.blocks.linears import get_module, weight_of
from lrc_core.models.load import load_model
from lrc_core.runs.spec import ModelRef
from lrc_core.types import LinearShape, OnProgress, Progress, ignore_progress

_WIDTH, _KEEP, _FORWARDS, _TURNS = 4096, 0.6, 40, 5


@torch.no_grad()
def layer(ref: ModelRef, on_progress: OnProgress = ignore_progress) -> dict[str, Any]:
    """One 4096 x 4096 layer in bfloat16 at one token: pivots against pairs at the same rank, and at the same budget.

    Beside it, what it takes to bring all layers of a model into pivots, against decomposing them.
    """
    shape = LinearShape("layer", 0, "layer", _WIDTH, _WIDTH)
    (pivots,) = stored([shape], "pivoted")
    rank, other = whole_rank_of_share(shape, _KEEP), whole_rank_of_share(pivots, _KEEP)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dense = nn.Linear(_WIDTH, _WIDTH, bias=False, device=device, dtype=torch.bfloat16)
    ways = {
        "pair": _runs(_made(dense, rank, pivots=False)),
        "pivoted": _runs(_made(dense, rank, pivots=True)),
        "pivoted_same_budget": _runs(_made(dense, other, pivots=True)),
        "dense": _runs(dense),
    }
    taken = dict(zip(ways, take_turns("layer", tuple(ways.values()), _TURNS, on_progress), strict=True))
    making = _making(ref, on_progress)
    detail = {
        "rank": rank,
        "rank_same_budget": other,
        "dense_ratio": taken["dense"] / taken["pivoted"],
        "same_budget_ratio": taken["pair"] / taken["pivoted_same_budget"],
        "factoring_ratio": making["decompose_s"] / making["pivots_s"],
        **making,
        "device": device,
    }
    return report_of("layer", taken["pair"], taken["pivoted"], "times as fast as a pair of the same rank", detail)


def _made(dense: nn.Linear, rank: int, *, pivots: bool) -> nn.Module:
    """A random layer of that rank: what it computes does not matter here."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(shape, generator=generator) for shape in ((_WIDTH, rank), (rank, _WIDTH)))
    make = pivoted_layer if pivots else low_rank_layer
    return make(dense, Factors(left, right, torch.ones(rank)), slice(0, rank))


def _runs(module: nn.Module) -> Any:
    device = next(module.parameters()).device
    inputs = torch.randn(1, 1, _WIDTH, device=device, dtype=torch.bfloat16)
    return partial(_forward, module, inputs)


def _forward(module: nn.Module, inputs: Tensor) -> None:
    for _ in range(_FORWARDS):
        module(inputs)


def _making(ref: ModelRef, on_progress: OnProgress) -> dict[str, float]:
    """Seconds to decompose all layers of a model, and to bring the factors at one budget into pivots."""
    loaded = load_model(ref, on_progress=on_progress)
    layers = stored(loaded.card.layers, "pivoted")
    spent = {"decompose_s": 0.0, "pivots_s": 0.0}
    for number, one in enumerate(layers):
        weight = weight_of(get_module(loaded.model, one.name)).detach().float()
        rank = whole_rank_of_share(one, _KEEP)
        started = time.perf_counter()
        found = factorise(weight, Transform())
        decomposed = time.perf_counter()
        pivot_form(found.left[:, :rank], found.right[:rank])
        spent["pivots_s"] += time.perf_counter() - decomposed
        spent["decompose_s"] += decomposed - started
        on_progress(Progress("measuring pivots", number + 1, len(layers)))
    return spent
