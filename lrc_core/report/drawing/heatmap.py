"""Ranks of plans as heatmaps that know which of their cells are the same layer, and what they say in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lrc_core.budget import smallest_dense_rank
from lrc_core.charts.shapes import Drawing, Label, Shape, cells, labelled
from lrc_core.formats.sizes import LayerState
from lrc_core.plan import Plan
from lrc_core.types import ModelCard
from lrc_core.words import kind_labels, percent, stay_dense

_LEFT, _GAP, _LETTER = 38.0, 1.0, 5.9
DENSE = -1
"""Stands for the rank of a layer that is stored dense."""


@dataclass(frozen=True)
class Linked:
    """What the cells of several heatmaps of one model are.

    Attributes:
        names: of the layers.
        places: block and column of each.
        kinds: names of the columns.
        full: full rank of each.
        kept: of every heatmap the share of its parameters that each layer keeps.
        plans: of every heatmap the rank of each layer, ``DENSE``, or (rows, columns) that pruning leaves.
        labels: of the heatmaps.
    """

    names: tuple[str, ...]
    places: tuple[tuple[int, int], ...]
    kinds: tuple[str, ...]
    full: tuple[int, ...]
    kept: tuple[tuple[float, ...], ...]
    plans: tuple[tuple[int | tuple[int, int], ...], ...]
    labels: tuple[str, ...]


def linked(card: ModelCard, plans: Sequence[tuple[str, Plan]]) -> Linked:
    """What the cells of these plans' heatmaps are.

    Raises:
        PlanError: a plan's layers are not the model's.
    """
    labels = kind_labels(card.kinds)
    order = list(labels)
    states = [plan.states(card.layers) for _, plan in plans]
    return Linked(
        names=tuple(layer.name for layer in card.layers),
        places=tuple((layer.block, order.index(layer.kind)) for layer in card.layers),
        kinds=tuple(labels.values()),
        full=tuple(layer.full_rank for layer in card.layers),
        kept=tuple(tuple(round(one.kept, 4) for one in plan) for plan in states),
        plans=tuple(tuple(one.shape or (DENSE if one.dense else one.rank) for one in plan) for plan in states),
        labels=tuple(label for label, _ in plans),
    )


def rank_heatmap(card: ModelCard, plan: Plan) -> Drawing:
    """Blocks downwards, kinds of layer to the right; the darker, the more of a layer is kept."""
    labels = kind_labels(card.kinds)
    order = list(labels)
    wide = max(3.0, min(24.0, 420 / len(order)))
    high = max(2.0, min(9.0, 420 / card.n_blocks))
    words = [label.removesuffix("_proj") for label in labels.values()]
    turned = max(len(word) for word in words) * _LETTER > wide
    top = 8 + (_LETTER * max(len(word) for word in words) if turned else 12.0) if wide >= 11 else 8.0
    shares = (
        (_LEFT + order.index(one.layer.kind) * wide, top + one.layer.block * high, one.kept)
        for one in plan.states(card.layers)
    )
    shapes: list[Shape] = [*cells(shares, wide - _GAP, high - min(_GAP, high / 4))]
    if wide >= 11:
        for number, word in enumerate(words):
            x = _LEFT + (number + 0.5) * wide
            at = (x + 4, top - 5) if turned else (x, top - 5)
            shapes.append(Label(*at, word, 10.5, "start" if turned else "middle", turned=turned))
    for block in labelled(card.n_blocks, few=8):
        shapes.append(Label(_LEFT - 6, top + (block + 0.5) * high + 4, str(block), 10.5, "end"))
    shapes.append(Label(10, top + card.n_blocks * high / 2, "block", 10.5, "middle", turned=True))
    grid = (_LEFT, top, wide, high, len(order), card.n_blocks)
    return Drawing(_LEFT + len(order) * wide + 2, top + card.n_blocks * high + 2, tuple(shapes), grid)


def plan_sentence(states: Sequence[LayerState]) -> str:
    """One sentence about where a plan spends its parameters, computed from it."""
    shares = [state.kept for state in states]
    if max(shares) - min(shares) < 0.03:
        return f"Every layer keeps nearly the same share of its parameters, {percent(_share(states), 0)}."
    labels = kind_labels(tuple(dict.fromkeys(state.layer.kind for state in states)))
    by_kind = {label: _share([one for one in states if one.layer.kind == kind]) for kind, label in labels.items()}
    most, least = max(by_kind, key=by_kind.__getitem__), min(by_kind, key=by_kind.__getitem__)
    said = stay_dense(sum(state.dense for state in states), len(states))
    if by_kind[most] - by_kind[least] >= 0.02:
        high, low = percent(by_kind[most], 0), percent(by_kind[least], 0)
        said += f"; {most} keeps most, {high} of its parameters, {least} least, {low}"
    return said + _depth(states) + "."


def _share(states: Sequence[LayerState]) -> float:
    return sum(state.params for state in states) / sum(state.layer.params for state in states)


def _depth(states: Sequence[LayerState]) -> str:
    """Which part of the depth keeps most and which least."""
    blocks = 1 + max(state.layer.block for state in states)
    third = blocks // 3
    if not third:
        return ""
    ends = ((0, third), (third, blocks - third), (blocks - third, blocks))
    within = {end: [one for one in states if end[0] <= one.layer.block < end[1]] for end in ends}
    parts = {_blocks(*end): _share(found) for end, found in within.items() if found}  # not every block need have any
    most, least = max(parts, key=parts.__getitem__), min(parts, key=parts.__getitem__)
    if parts[most] - parts[least] < 0.02:
        return "; early and late blocks keep about the same"
    return f"; {most} {percent(parts[most], 0)} and {least} {percent(parts[least], 0)}"


def _blocks(first: int, last: int) -> str:
    """The first part of ``blocks 0 to 9 keep 92 %``; ``last`` is no longer one of them."""
    return f"blocks {first} to {last - 1} keep" if last - first > 1 else f"block {first} keeps"


def rank_words(state: LayerState) -> tuple[str, float]:
    """How a layer is stored: in words, and its rank for sorting."""
    if state.shape:
        return f"{state.shape[0]:,} × {state.shape[1]:,}", float(min(state.shape))
    return ("dense", smallest_dense_rank(state.layer)) if state.dense else (f"{state.rank:,}", state.rank)
