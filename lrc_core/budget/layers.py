"""What a layer costs at a rank, under the law by which it is stored; see :mod:`~lrc_core.budget.laws`.

A layer knows its law, so that nothing that takes layers can count by another one. A layer that would cost at least as
much as the dense matrix stays dense and costs mn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from lrc_core.budget.laws import StorageLaw, storage_law
from lrc_core.types import LinearShape, ModelCard, Storage

Amount = TypeVar("Amount")
"""A number, an array or a tensor."""


def law_of(layer: LinearShape) -> StorageLaw:
    """The law by which a layer is stored."""
    return storage_law(layer.storage)


def stored(layers: Iterable[LinearShape], storage: Storage, rank_multiple: int = 1) -> tuple[LinearShape, ...]:
    """The same layers under a law.

    Args:
        storage: name of the law.
        rank_multiple: what ranks that a budget is fitted to are multiples of.
    """
    storage_law(storage)
    return tuple(replace(layer, storage=storage, rank_multiple=rank_multiple) for layer in layers)


def stored_card(card: ModelCard, storage: Storage, rank_multiple: int = 1) -> ModelCard:
    """A model's card with its layers under a law."""
    return replace(card, layers=stored(card.layers, storage, rank_multiple))


def break_even(layer: LinearShape) -> float:
    """The rank at which a layer costs what the dense matrix costs: mn/(m+n) for pairs, min(m, n) for pivots."""
    return law_of(layer).dense_from(layer.out_features, layer.in_features)


def is_dense(layer: LinearShape, rank: int) -> bool:
    """Whether a layer of that rank is stored dense."""
    return rank >= layer.full_rank or factor_params(layer, rank) >= layer.params


def largest_low_rank(layer: LinearShape) -> int:
    """The largest rank that still saves parameters (0 when none does)."""
    return math.ceil(break_even(layer)) - 1


def smallest_dense_rank(layer: LinearShape) -> int:
    """The rank from which a layer is stored dense: break-even for pairs, the full rank for pivots."""
    return largest_low_rank(layer) + 1


def factor_params(layer: LinearShape, rank: Amount) -> Amount:
    """Parameters of a layer stored at that rank, also where they are more than the dense matrix has."""
    found: Amount = law_of(layer).params(layer.out_features, layer.in_features, rank)
    return found


def params_per_rank(layer: LinearShape, rank: Amount) -> Amount:
    """How fast parameters grow with the rank: the derivative of :func:`factor_params`."""
    found: Amount = law_of(layer).slope(layer.out_features, layer.in_features, rank)
    return found


def params_per_component(layer: LinearShape) -> float:
    """What a component costs on average over the whole spectrum: m + n of a pair, max(m, n) of pivots."""
    return factor_params(layer, float(layer.full_rank)) / layer.full_rank


def layer_params(layer: LinearShape, rank: int) -> int:
    """Parameters of a layer kept at ``rank``, at most mn."""
    return layer.params if is_dense(layer, rank) else factor_params(layer, rank)


def layer_ratio(layer: LinearShape, rank: int) -> float:
    """Share R of the layer that is kept, in (0, 1]."""
    return layer_params(layer, rank) / layer.params


def rank_of_share(layer: LinearShape, share: float) -> float:
    """The rank, whole or not, at which a layer costs that share of the dense matrix."""
    return law_of(layer).rank_of_share(layer.out_features, layer.in_features, share)


def whole_rank_of_share(layer: LinearShape, share: float) -> int:
    """The largest rank that costs at most that share of the dense matrix, at least 1."""
    return max(1, math.floor(rank_of_share(layer, share) + 1e-9))


def smallest_rank(layer: LinearShape) -> int:
    """The smallest rank that a fitted budget gives: the rank multiple, or dense where no multiple saves anything."""
    return layer.full_rank if is_dense(layer, layer.rank_multiple) else layer.rank_multiple


def next_rank(layer: LinearShape, rank: int) -> int:
    """The rank after this one that a fitted budget may give: a multiple further, or dense."""
    further = rank + layer.rank_multiple
    return layer.full_rank if is_dense(layer, further) else further


def snapped_rank(layer: LinearShape, rank: int) -> int:
    """The largest rank up to this one that a fitted budget may give; never below the smallest."""
    if is_dense(layer, rank):
        return layer.full_rank
    return max(rank // layer.rank_multiple * layer.rank_multiple, smallest_rank(layer))


Shapes = Mapping[str, tuple[int, int]]
"""Rows and columns that are left of layers whose structure is pruned; what is left costs rows * columns."""
