"""Rank and number format of every layer within bytes: one price for a byte, on the convex hulls. numpy only.

Every layer can be stored in a few hundred ways, each a point of bytes and predicted loss. What is on no layer's lower
convex hull is never worth its bytes; along the hulls one price buys bytes where they save most loss (Everett 1963;
Shoham and Gersho 1988), so that any budget takes milliseconds once the points are there.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lrc_core.allocate.curves.loss_curves import lower_hull
from lrc_core.budget import is_dense, largest_low_rank
from lrc_core.formats.budgets import BITS, RANKS
from lrc_core.formats.grids import BF16, FORMATS, QUANTISED, Format
from lrc_core.formats.sizes import layer_bytes, low_rank_bytes
from lrc_core.types import LinearShape

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Option:
    """One way to store a layer, and what it costs."""

    cost: int
    loss: float
    rank: int
    form: str


@dataclass(frozen=True)
class Ways:
    """Many ways to store a layer.

    Attributes:
        costs: [w], rising: bytes, or nanoseconds.
        losses: [w] predicted.
        ranks: [w].
        forms: [w] names of formats.
    """

    costs: NDArray[np.int64]
    losses: Array
    ranks: NDArray[np.int64]
    forms: NDArray[np.str_]


@dataclass(frozen=True)
class _Part:
    """Ways in one format: dense, or of several ranks."""

    form: str
    ranks: NDArray[np.int64]
    losses: Array
    layer: LinearShape

    @property
    def bytes(self) -> NDArray[np.int64]:
        if len(self.ranks) == 1 and is_dense(self.layer, int(self.ranks[0])):
            return np.array([layer_bytes(self.layer, int(self.ranks[0]), FORMATS[self.form])])
        found: NDArray[np.int64] = low_rank_bytes(self.layer, self.ranks, FORMATS[self.form])
        return found


@dataclass(frozen=True)
class Curves:
    """Predicted losses of one layer, in nats per token.

    Attributes:
        components: [r] of dropping each component.
        dense: of the dense weight in number formats.
        factors: [r + 1] of rounding a pair of k components, by format, without what the truncation costs.
    """

    components: Array
    dense: Mapping[str, float]
    factors: Mapping[str, Array]


@dataclass(frozen=True)
class Mixture:
    """What was chosen for every layer.

    Attributes:
        ranks: rank by layer; full where it is dense.
        formats: format of the layers that are not in 16 bits.
        loss: predicted, in nats per token.
        cost: of the block linears.
    """

    ranks: dict[str, int]
    formats: dict[str, str]
    loss: float
    cost: int


def ways(layer: LinearShape, curves: Curves, vary: str) -> Ways:
    """Every way to store a layer that may be chosen, fewest bytes first.

    Ranks of factors in a block format are whole blocks, as the last block of a row counts whole anyway.

    Args:
        curves: its losses.
        vary: see :data:`~lrc_core.formats.budgets.VARY`.
    """
    dense = {BF16.name: 0.0, **({} if vary == RANKS else curves.dense)}
    found = [_Part(form, np.array([layer.full_rank]), np.array([loss]), layer) for form, loss in dense.items()]
    if vary != BITS:
        offered = [BF16.name, *(() if vary == RANKS else curves.factors)]
        found += [_of_ranks(layer, curves, FORMATS[form]) for form in offered]
    sizes, losses = (np.concatenate([getattr(part, name) for part in found]) for name in ("bytes", "losses"))
    ranks = np.concatenate([part.ranks for part in found])
    names = np.repeat([part.form for part in found], [len(part.ranks) for part in found])
    order = np.lexsort((losses, sizes))
    return Ways(sizes[order], losses[order], ranks[order], names[order])


def _of_ranks(layer: LinearShape, curves: Curves, form: Format) -> _Part:
    tail = np.concatenate([np.cumsum(curves.components[::-1])[::-1], [0.0]])
    step = math.lcm(form.block, layer.rank_multiple)
    ranks = np.arange(step, largest_low_rank(layer) + 1, step)
    rounding = curves.factors[form.name][ranks] if form.name in curves.factors else 0.0
    return _Part(form.name, ranks, tail[ranks] + rounding, layer)


def on_hull(found: Ways) -> list[Option]:
    """Those on the lower convex hull, cheapest first; the last is the one of least loss."""
    # What costs more and loses no less is never chosen; of equal cost the first loses least.
    before = np.concatenate([[np.inf], np.minimum.accumulate(found.losses)[:-1]])
    kept = np.flatnonzero(found.losses < before)
    kept = kept[np.concatenate([[True], np.diff(found.costs[kept]) > 0])]
    places = kept[lower_hull(found.costs[kept].astype(np.float64), found.losses[kept])]
    return [
        Option(int(found.costs[i]), float(found.losses[i]), int(found.ranks[i]), str(found.forms[i])) for i in places
    ]


def smallest_cost(hulls: Mapping[str, Sequence[Option]]) -> int:
    """What the cheapest choices cost together."""
    return sum(hull[0].cost for hull in hulls.values())


def least_bytes(layers: Sequence[LinearShape], vary: str) -> int:
    """What the block linears take at the cheapest choice of every layer, known without any losses.

    Args:
        vary: see :data:`~lrc_core.formats.budgets.VARY`.
    """
    alike = Counter(replace(layer, name="", block=0, kind="") for layer in layers)
    return sum(count * _least(layer, vary) for layer, count in alike.items())


def _least(layer: LinearShape, vary: str) -> int:
    nothing = np.zeros(layer.full_rank + 1)
    dense = {form: 0.0 for form in QUANTISED if FORMATS[form].fits(layer.in_features)}
    curves = Curves(nothing[1:], dense, dict.fromkeys(QUANTISED, nothing))
    return int(ways(layer, curves, vary).costs[0])


def best_mixture(layers: Sequence[LinearShape], hulls: Mapping[str, Sequence[Option]], allowed: int) -> Mixture:
    """The mixture of least predicted loss within a cost.

    Steps along the hulls are taken in the order of the loss that their cost saves; a step that does not fit ends its
    layer's, and smaller ones elsewhere go on.

    Args:
        hulls: of every layer, see :func:`on_hull`.
        allowed: what they may cost, not less than :func:`smallest_cost`.
    """
    place = dict.fromkeys(hulls, 0)
    spent = smallest_cost(hulls)
    steps = [
        ((one.loss - two.loss) / (two.cost - one.cost), name, number)
        for name, hull in hulls.items()
        for number, (one, two) in enumerate(pairwise(hull))
    ]
    for _, name, number in sorted(steps, key=lambda step: (-step[0], step[1], step[2])):
        cost = hulls[name][number + 1].cost - hulls[name][number].cost
        if place[name] == number and spent + cost <= allowed:
            place[name] += 1
            spent += cost
    chosen = {layer.name: hulls[layer.name][place[layer.name]] for layer in layers}
    return Mixture(
        {name: way.rank for name, way in chosen.items()},
        {name: way.form for name, way in chosen.items() if way.form != BF16.name},
        sum(way.loss for way in chosen.values()),
        spent,
    )
