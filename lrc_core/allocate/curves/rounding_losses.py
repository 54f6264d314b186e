"""Predicted loss of rounding matrices to number formats, on the scale of the loss of ranks; shared by allocators.

What is added to the loss of a token by an error D of a weight is, to second order, half of |R^T D T|^2 with the
transforms of the two-sided decomposition (K-FAC): half the discarded sigma^2 where D is what a truncation leaves out,
and the same form where D is what rounding changes. Rounding a pair of factors disturbs every component on its own, and
none of it lies along what the truncation left out: the loss of the first k components is the sum of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lrc_core.allocate.protocol import Context
from lrc_core.decompose.factorise import Factors, Transform
from lrc_core.errors import BudgetError, CancelledError
from lrc_core.files import write_arrays
from lrc_core.formats.budgets import BY_BYTES
from lrc_core.formats.grids import FORMATS, QUANTISED, Format
from lrc_core.formats.rounding import on_grid
from lrc_core.lowrank.rounding import balanced
from lrc_core.models.blocks.linears import get_module, weight_of
from lrc_core.types import Progress

Array = NDArray[np.float64]
FACTOR_FORMATS = QUANTISED
"""Formats that pairs of factors are offered in."""


@dataclass(frozen=True)
class RoundingLosses:
    """Of one layer, in nats per token.

    Attributes:
        dense: of the whole weight, by format; formats that its rows are no whole blocks of are not there.
        factors: [r + 1] of a pair of k components, by format; without what the truncation costs.
    """

    dense: Mapping[str, float]
    factors: Mapping[str, Array]


def dense_loss(weight: Tensor, transform: Transform, form: Format) -> float:
    """Predicted loss of storing a weight [m, n] in a format: half of |R^T D T|^2, D the rounding error."""
    return 0.5 * float(_weighed(weight.float() - on_grid(weight.float(), form), transform).square().sum())


def pair_losses(found: Factors, transform: Transform, form: Format) -> Array:
    """Predicted loss of storing the first k components of factors as a pair in a format, for every k.

    With left columns a_i and right rows b_i, which R^T and T make orthogonal to each other, rounding costs half of
    |R^T da_i|^2 |b_i T|^2 + |R^T a_i|^2 |db_i T|^2 of every component.

    Returns:
        [r + 1] float64, rising from 0.
    """
    left, right = balanced(found.left.float(), found.right.float())
    of_left, of_right = left - on_grid(left, form), right - on_grid(right, form)
    one, two = (transform.times_output(part).square().sum(0) for part in (of_left, left))
    three, four = (_on_inputs(part, transform).square().sum(1) for part in (right, of_right))
    each = 0.5 * (one.double() * three.double() + two.double() * four.double())
    return np.concatenate([[0.0], np.cumsum(each.cpu().numpy())])


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
        CancelledError: ``context.should_stop`` said so.
    """
    if context.decomposition != BY_BYTES:
        raise BudgetError(
            f"Bytes are shared out by predicted losses, which the decomposition {context.decomposition} does not know.",
            f"Choose the decomposition {BY_BYTES}.",
        )
    path = context.common / "rounding.npz"
    if not path.exists():
        _measure(context, path)
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    return {
        layer.name: RoundingLosses(
            {form: float(arrays[key]) for form in QUANTISED if (key := f"{layer.name}/{form}/dense") in arrays},
            {form: arrays[f"{layer.name}/{form}/pair"] for form in FACTOR_FORMATS},
        )
        for layer in context.layers
    }


def _measure(context: Context, path: Path) -> None:
    arrays: dict[str, Array] = {}
    by_name = {layer.name: layer for layer in context.layers}
    done = 0
    for _, transforms in context.weighing():
        for name, transform in transforms.items():
            if context.should_stop():
                raise CancelledError("Predicting the losses of number formats was cancelled.")
            layer, weight = by_name[name], weight_of(get_module(context.model, name)).detach().cpu()
            light, found = _in_float32(transform), context.source.factors(name, by_name[name].block)
            for form in QUANTISED:
                if FORMATS[form].fits(layer.in_features):
                    arrays[f"{name}/{form}/dense"] = np.array(dense_loss(weight, light, FORMATS[form]))
            for form in FACTOR_FORMATS:
                arrays[f"{name}/{form}/pair"] = pair_losses(found, light, FORMATS[form])
            done += 1
            context.on_progress(Progress("predicting losses of number formats", done, len(by_name)))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_arrays(path, arrays)


def _in_float32(transform: Transform) -> Transform:
    """Rounding errors need no more, and products take half the time."""
    matrix, output = transform.matrix, transform.output
    return Transform(
        None if matrix is None else matrix.to(torch.float32), None if output is None else output.to(torch.float32)
    )
