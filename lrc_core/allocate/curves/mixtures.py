"""Rank and number format of every layer within bytes: one price for a byte, on the convex hulls. numpy only.

Every layer can be stored in a few hundred ways, each a point of bytes and predicted loss. What is on no layer's lower
convex hull is never worth its bytes; along the hulls one price buys bytes where they save most loss (Everett 1963;
Shoham and Gersho 1988), so that any budget takes milliseconds once the points are there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lrc_core.allocate.curves.loss_curves import lower_hull
from lrc_core.budget import is_dense
from lrc_core.formats.budgets import BITS, RANKS, require_reach
from lrc_core.formats.grids import BF16, FORMATS, Format
from lrc_core.formats.sizes import layer_bytes
from lrc_core.types import LinearShape

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Option:
    """One way to store a layer."""

    bytes: int
    loss: float
    rank: int
    form: str


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
        bytes: of the block linears.
    """

    ranks: Mapping[str, int]
    formats: Mapping[str, str]
    loss: float
    bytes: int


def ways(layer: LinearShape, curves: Curves, vary: str) -> list[Option]:
    """Every way to store a layer that may be chosen, fewest bytes first.

    Ranks of factors in a block format are whole blocks, as the last block of a row counts whole anyway.

    Args:
        layer: the layer.
        curves: its losses.
        vary: see :data:`~lrc_core.formats.budgets.VARY`.
    """
    found = [Option(layer_bytes(layer, layer.full_rank), 0.0, layer.full_rank, BF16.name)]
    if vary != RANKS:
        found += [
            Option(layer_bytes(layer, layer.full_rank, FORMATS[form]), loss, layer.full_rank, form)
            for form, loss in curves.dense.items()
        ]
    if vary != BITS:
        found += _of_ranks(layer, curves, BF16)
    if vary not in (BITS, RANKS):
        for form in curves.factors:
            found += _of_ranks(layer, curves, FORMATS[form])
    return sorted(found, key=lambda way: (way.bytes, way.loss))


def _of_ranks(layer: LinearShape, curves: Curves, form: Format) -> Iterator[Option]:
    tail = np.concatenate([np.cumsum(curves.components[::-1])[::-1], [0.0]])
    rounding = curves.factors.get(form.name)
    step = math.lcm(form.block, layer.rank_multiple)
    for rank in range(step, layer.full_rank, step):
        if is_dense(layer, rank):
            return
        loss = float(tail[rank]) + (0.0 if rounding is None else float(rounding[rank]))
        yield Option(layer_bytes(layer, rank, form), loss, rank, form.name)


def on_hull(found: Sequence[Option]) -> list[Option]:
    """Those on the lower convex hull, fewest bytes first; the last is the one of least loss.

    Args:
        found: fewest bytes first.
    """
    kept: list[Option] = []
    for way in found:  # what costs more bytes and loses no less is never chosen
        if not kept or way.loss < kept[-1].loss:
            if kept and kept[-1].bytes == way.bytes:
                kept.pop()
            kept.append(way)
    places = lower_hull(np.array([way.bytes for way in kept], float), np.array([way.loss for way in kept]))
    return [kept[place] for place in places]


def best_mixture(layers: Sequence[LinearShape], hulls: Mapping[str, Sequence[Option]], allowed: int) -> Mixture:
    """The mixture of least predicted loss within bytes.

    Steps along the hulls are taken in the order of the loss that a byte saves; a step that does not fit ends its
    layer's, and smaller ones elsewhere go on.

    Args:
        layers: the block linears.
        hulls: of every layer, see :func:`on_hull`.
        allowed: bytes.

    Raises:
        BudgetError: even the smallest choices take more; says the smallest possible share.
    """
    place = dict.fromkeys(hulls, 0)
    spent = sum(hull[0].bytes for hull in hulls.values())
    require_reach(spent, allowed, layers)
    steps = [
        ((one.loss - two.loss) / (two.bytes - one.bytes), name, number)
        for name, hull in hulls.items()
        for number, (one, two) in enumerate(pairwise(hull))
    ]
    for _, name, number in sorted(steps, key=lambda step: (-step[0], step[1], step[2])):
        cost = hulls[name][number + 1].bytes - hulls[name][number].bytes
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
