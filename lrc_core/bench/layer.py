"""``lrc bench layer``: what a layer of low rank costs to run and to make, pairs against pivots and the dense layer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lrc_core.bench.side_by_side import report_of, take_turns
from lrc_core.budget import stored, whole_rank_of_share
from lrc_core.decompose.factorise import Factors, Transform, factorise
from lrc_core.lowrank.apply import low_rank_layer, pivoted_layer
from lrc_core.lowrank.linear import LowRankLinear, product
from lrc_core.lowrank.pivots import pivot_form
from lrc_core.models.blocks.linears import get_module, weight_of
from lrc_core.models.load import load_model
from lrc_core.runs.spec import ModelRef
from lrc_core.types import LinearShape, OnProgress, Progress, ignore_progress

_WIDTH, _KEEP, _FORWARDS, _TURNS, _SIBLINGS = 4096, 0.6, 40, 5, 3


@torch.no_grad()
def layer(ref: ModelRef, on_progress: OnProgress = ignore_progress) -> dict[str, Any]:
    """One 4096 x 4096 layer in bfloat16 at one token: pivots against pairs at the same rank, and at the same budget.

    Beside it, what three pairs of one input (queries, keys, values) gain when their right factors are one matrix, and
    what it takes to bring all layers of a model into pivots, against decomposing them.
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
    siblings = Siblings([_pair(dense, rank) for _ in range(_SIBLINGS)])
    ways.update({"siblings": _runs(siblings), "siblings_stacked": _runs(StackedSiblings(siblings))})
    taken = dict(zip(ways, take_turns("layer", tuple(ways.values()), _TURNS, on_progress), strict=True))
    making = _making(ref, on_progress)
    detail = {
        "rank": rank,
        "rank_same_budget": other,
        "dense_ratio": taken["dense"] / taken["pivoted"],
        "same_budget_ratio": taken["pair"] / taken["pivoted_same_budget"],
        "stacked_ratio": taken["siblings"] / taken["siblings_stacked"],
        "factoring_ratio": making["decompose_s"] / making["pivots_s"],
        **making,
        "device": device,
    }
    return report_of("layer", taken["pair"], taken["pivoted"], "times as fast as a pair of the same rank", detail)


def _pair(dense: nn.Linear, rank: int) -> LowRankLinear:
    made = _made(dense, rank, pivots=False)
    assert isinstance(made, LowRankLinear)
    return made


def _made(dense: nn.Linear, rank: int, *, pivots: bool) -> nn.Module:
    """A random layer of that rank: what it computes does not matter here."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(shape, generator=generator) for shape in ((_WIDTH, rank), (rank, _WIDTH)))
    make = pivoted_layer if pivots else low_rank_layer
    return make(dense, Factors(left, right, torch.ones(rank)), slice(0, rank))


class Siblings(nn.Module):
    """Pairs that read one input, each by itself."""

    def __init__(self, pairs: Sequence[LowRankLinear]) -> None:
        super().__init__()
        self.pairs = nn.ModuleList(pairs)

    def forward(self, inputs: Tensor) -> list[Tensor]:
        """[..., n] to one [..., m] for each."""
        return [pair(inputs) for pair in self.pairs]


class StackedSiblings(nn.Module):
    """The same with their right factors in one matrix: one product fewer for every pair but the first."""

    def __init__(self, apart: Siblings) -> None:
        super().__init__()
        pairs = [pair for pair in apart.pairs if isinstance(pair, LowRankLinear)]
        self.right = nn.Parameter(torch.cat([pair.right for pair in pairs]), requires_grad=False)
        self.lefts, self.ranks = nn.ParameterList([pair.left for pair in pairs]), [pair.rank for pair in pairs]
        self.biases = [pair.bias for pair in pairs]

    def forward(self, inputs: Tensor) -> list[Tensor]:
        """[..., n] to one [..., m] for each."""
        parts = product(inputs, self.right).split(self.ranks, -1)
        return [product(*each) for each in zip(parts, self.lefts, self.biases, strict=True)]


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
