"""Predicted loss of rounding matrices to number formats, on the scale of the loss of ranks; shared by allocators.

What is added to the loss of a token by an error D of a weight is, to second order, half of |R^T D T|^2 with the
transforms of the two-sided decomposition (K-FAC): half the discarded sigma^2 where D is what a truncation leaves out,
and the same form where D is what rounding changes. Rounding a pair of factors disturbs every component on its own, and
none of it lies along what the truncation left out: the loss of the first k components is the sum of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lrc_core.allocate.protocol import Context
from lrc_core.damage import earlier
from lrc_core.decompose import require_loss
from lrc_core.decompose.factorise import Factors, Transform
from lrc_core.errors import CancelledError, RunError
from lrc_core.files import write_arrays
from lrc_core.formats.grids import FORMATS, QUANTISED, Format
from lrc_core.formats.rounding import on_grid
from lrc_core.formats.sizes import pivots_bear
from lrc_core.lowrank.pivots import pivot_form
from lrc_core.lowrank.rounding import unit_columns
from lrc_core.models.blocks.linears import get_module, weight_of
from lrc_core.types import LinearShape, Progress

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RoundingLosses:
    """Of one layer, in nats per token.

    Attributes:
        dense: of the whole weight, by format; formats that its rows are no whole blocks of are not there.
        factors: [r + 1] of k components as they are stored, by format; without what the truncation costs.
    """

    dense: Mapping[str, float]
    factors: Mapping[str, Array]


def dense_loss(weight: Tensor, transform: Transform, form: Format) -> float:
    """Predicted loss of storing a weight [m, n] in a format: half of |R^T D T|^2, D the rounding error."""
    return 0.5 * float(_weighed(weight.float() - on_grid(weight.float(), form), transform).square().sum())


def pair_losses(found: Factors, transform: Transform, form: Format) -> Array:
    """Predicted loss of storing the first k components of factors as a pair in a format, for every k.

    With left columns a_i and right rows b_i, which R^T and T make orthogonal to each other, rounding costs half of
    |R^T da_i|^2 |b_i T|^2 + |R^T a_i|^2 |db_i T|^2 of every component. Returns [r + 1] float64, rising from 0.
    """
    left, right = unit_columns(found.left.float(), found.right.float())
    of_left, of_right = left - on_grid(left, form), right - on_grid(right, form)
    one, two = (transform.times_output(part).square().sum(0) for part in (of_left, left))
    three, four = (_on_inputs(part, transform).square().sum(1) for part in (right, of_right))
    each = 0.5 * (one.double() * three.double() + two.double() * four.double())
    return np.concatenate([[0.0], np.cumsum(each.cpu().numpy())])


def pivot_loss(found: Factors, transform: Transform, form: Format, rank: int) -> float:
    """Predicted loss of storing the first k components as pivot rows and coefficients in a format."""
    exact = pivot_form(found.left[:, :rank], found.right[:rank])
    near = replace(exact, rows=on_grid(exact.rows, form), coefficients=on_grid(exact.coefficients, form))
    return 0.5 * float(_weighed((exact.dense() - near.dense()).float(), transform).square().sum())


def pivot_losses(half: float, dense: float, full_rank: int) -> Array:
    """The same for every k, [r + 1]: from 0 over what was computed at half the rank to the dense weight's.

    At full rank of a wide layer all rows are pivots, and what is stored is the weight itself.
    """
    return np.interp(np.arange(full_rank + 1), [0, full_rank // 2, full_rank], [0.0, half, max(half, dense)])


def _on_inputs(rows: Tensor, transform: Transform) -> Tensor:
    """Rows [k, n] times T."""
    if transform.matrix is None:
        return rows
    matrix = transform.matrix.to(rows.dtype)
    return rows * matrix if matrix.ndim == 1 else rows @ matrix


def _weighed(error: Tensor, transform: Transform) -> Tensor:
    """R^T D T, [m, n]."""
    return _on_inputs(transform.times_output(error), transform)


def rounding_losses(context: Context) -> dict[str, RoundingLosses]:
    """For every layer, predicted losses of all formats; kept for other budgets of the same model and text.

    Raises:
        BudgetError: the decomposition knows no loss, so that formats and ranks cannot be put on one scale.
    """
    require_loss(context.decomposition)
    arrays = _read(context, "rounding.npz", _of_layer)
    if any(layer.storage == "pivoted" for layer in context.layers):
        arrays |= _read(context, "rounding-pivots.npz", _of_pivots)
    return {layer.name: _losses(layer, arrays) for layer in context.layers}


Arrays = dict[str, NDArray[Any]]
OfLayer = Callable[[LinearShape, Tensor, Factors, Transform], Arrays]


def _losses(layer: LinearShape, arrays: Arrays) -> RoundingLosses:
    dense = {form: float(arrays[key]) for form in QUANTISED if (key := f"{layer.name}/{form}/dense") in arrays}
    factors = {form: arrays[f"{layer.name}/{form}/pair"] for form in QUANTISED}
    for form in QUANTISED:
        if (half := arrays.get(f"{layer.name}/{form}/pivots")) is not None:
            factors[form] = pivot_losses(float(half), dense.get(form, 0.0), layer.full_rank)
    return RoundingLosses(dense, factors)


def _of_layer(layer: LinearShape, weight: Tensor, found: Factors, transform: Transform) -> Arrays:
    """Of the dense weight, and of pairs of every rank."""
    arrays: Arrays = {}
    for form in QUANTISED:
        if FORMATS[form].fits(layer.in_features):
            arrays[f"{layer.name}/{form}/dense"] = np.array(dense_loss(weight, transform, FORMATS[form]))
        arrays[f"{layer.name}/{form}/pair"] = pair_losses(found, transform, FORMATS[form])
    return arrays


def _of_pivots(layer: LinearShape, _: Tensor, found: Factors, transform: Transform) -> Arrays:
    """Of pivots at half the rank, in the formats that they bear."""
    return {
        f"{layer.name}/{form}/pivots": np.array(pivot_loss(found, transform, FORMATS[form], layer.full_rank // 2))
        for form in QUANTISED
        if pivots_bear(FORMATS[form]) and layer.full_rank > 1
    }


def _read(context: Context, name: str, of_layer: OfLayer) -> Arrays:
    path = context.common / name
    stored = earlier(path, lambda file: _stored(file, context))
    return _measure(context, path, of_layer) if stored is None else stored


def _stored(path: Path, context: Context) -> Arrays:
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    measured = {key.partition("/")[0] for key in arrays}
    if not {layer.name for layer in context.layers if layer.full_rank > 1} <= measured:
        raise RunError("its losses are of other layers")
    return arrays


def _measure(context: Context, path: Path, of_layer: OfLayer) -> Arrays:
    arrays: Arrays = {}
    by_name = {layer.name: layer for layer in context.layers}
    done = 0
    for _, transforms in context.weighing():
        for name, transform in transforms.items():
            if context.should_stop():
                raise CancelledError("Predicting the losses of number formats was cancelled.")
            layer, weight = by_name[name], weight_of(get_module(context.model, name)).detach().cpu()
            arrays |= of_layer(layer, weight, context.source.factors(name, layer.block), _in_float32(transform))
            done += 1
            context.on_progress(Progress("predicting losses of number formats", done, len(by_name)))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_arrays(path, arrays)
    return arrays


def _in_float32(transform: Transform) -> Transform:
    """Rounding errors need no more, and products take half the time."""
    matrix, output = transform.matrix, transform.output
    return Transform(
        None if matrix is None else matrix.to(torch.float32), None if output is None else output.to(torch.float32)
    )
