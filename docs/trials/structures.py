"""Would other structures beat one low-rank matrix per layer? Predicted losses under K-FAC, in nats per token.

``python docs/trials/structures.py`` (the starter pack, about three minutes on two cores once its moments are cached).
Two structures are tried beside the plain one, each at the best plan of its own for the budget:

- **shared inputs**: layers that read the same inputs (q, k and v; gate and up) as one stacked matrix of one rank, where
  that is better than ranks of their own;
- **dense columns**: the input columns that matter most stay dense, and the rest of the matrix, as far as these columns
  do not predict its inputs, is of low rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import lrc_core.decompose  # noqa: F401 - registers the decompositions
from lrc_core.calibrate.factor_model import block_transforms, moments
from lrc_core.calibrate.statistics import Notes
from lrc_core.decompose.factorise import Transform, in_parallel
from lrc_core.models.blocks.linears import get_module, weight_of
from lrc_core.pipeline.session import Session
from lrc_core.registry import DECOMPOSITIONS
from lrc_core.runs.spec import CalibrationSpec, ModelRef
from lrc_core.types import LinearShape, ignore_progress, never_stop

KEEPS = (0.9, 0.8, 0.7, 0.6, 0.5)
DENSE_COLUMNS = (8, 16, 32, 64, 128)
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """Ways to store one matrix: parameters and predicted loss of each."""

    params: Array
    losses: Array


Alternatives = list[list[Curve]]
"""Of one unit: lists of curves of which one list is chosen, and in it a point of every curve."""


def curve(rows: int, columns: int, sigma: Array, law: str, dense_columns: int = 0) -> Curve:
    """Every rank of a [rows, columns] matrix beside some dense columns, and the dense matrix."""
    ranks = np.arange(len(sigma) + 1)
    tail = np.concatenate([np.cumsum((sigma[::-1] ** 2) / 2)[::-1], [0.0]])
    params = ranks * (rows + columns - (ranks if law == "pivoted" else 0)) + rows * dense_columns
    dense = rows * (columns + dense_columns)
    return Curve(np.append(params, dense).astype(np.float64), np.append(tail, 0.0))


def least_loss(units: Sequence[Alternatives], allowed: float) -> float:
    """Loss of the best plan within a budget: one price for a parameter, found by bisection (Everett 1963)."""
    low, high = 1e-15, 1e-2
    for _ in range(70):
        price = float(np.sqrt(low * high))
        params, _ = _at(units, price)
        low, high = (price, high) if params > allowed else (low, price)
    return _at(units, high)[1]


def _at(units: Sequence[Alternatives], price: float) -> tuple[float, float]:
    chosen = []
    for alternatives in units:
        points = []
        for curves in alternatives:
            places = [int(np.argmin(one.losses + price * one.params)) for one in curves]
            pairs = list(zip(curves, places, strict=True))
            points.append((sum(one.params[i] for one, i in pairs), sum(one.losses[i] for one, i in pairs)))
        chosen.append(min(points, key=lambda point: point[1] + price * point[0]))
    return float(sum(point[0] for point in chosen)), float(sum(point[1] for point in chosen))


def values(matrix: Tensor) -> Array:
    """Singular values, descending."""
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    found: Array = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt().flip(0).numpy()
    return found


def beside_columns(weight: Tensor, transform: Transform, count: int) -> Array:
    """Singular values of what is left when the ``count`` columns of most energy are dense and fitted anew.

    The columns then carry what they predict of the other inputs: those count by the Schur complement of the moment.
    """
    assert transform.matrix is not None
    moment = transform.matrix @ transform.matrix.T
    weighed = transform.times_output(weight)
    order = torch.argsort((weighed**2).sum(0) * moment.diagonal(), descending=True)
    root = torch.linalg.cholesky(moment[order][:, order])[count:, count:]
    return values(weighed[:, order[count:]] @ root)


@dataclass(frozen=True)
class Measured:
    """Singular values of one layer: alone, and beside dense columns by their number."""

    layer: LinearShape
    alone: Array
    beside: dict[int, Array]


@dataclass(frozen=True)
class Group:
    """Layers that read the same inputs, and the singular values of all of them stacked."""

    layers: tuple[Measured, ...]
    stacked: Array

    def alternatives(self, law: str) -> Alternatives:
        """Each layer of its own, or the stack."""
        own = [curve(one.layer.out_features, one.layer.in_features, one.alone, law) for one in self.layers]
        rows = sum(one.layer.out_features for one in self.layers)
        return [own, [curve(rows, self.layers[0].layer.in_features, self.stacked, law)]]


def groups(session: Session) -> Iterator[Group]:
    """The layers of the model by what they read."""
    calibrated = session.calibrated(CalibrationSpec())
    entry = DECOMPOSITIONS.get("kfac")
    group_of = moments(calibrated).group_of
    for block, transforms in block_transforms(calibrated, entry, entry.settings(), Notes()):
        layers = [layer for layer in calibrated.layers if layer.block == block]
        by_input: dict[str, list[LinearShape]] = {}
        for layer in layers:
            by_input.setdefault(group_of[layer.name], []).append(layer)
        for members in by_input.values():
            yield _measured(session, members, transforms)


def _measured(session: Session, members: Sequence[LinearShape], transforms: dict[str, Transform]) -> Group:
    def one(layer: LinearShape) -> tuple[Measured, Tensor]:
        weight = weight_of(get_module(session.loaded.model, layer.name)).detach().double()
        transform = transforms[layer.name]
        matrix = transform.apply(weight)
        beside = {count: beside_columns(weight, transform, count) for count in DENSE_COLUMNS}
        return Measured(layer, values(matrix), beside), matrix

    with torch.no_grad():
        found = in_parallel(one, members)
        return Group(tuple(measured for measured, _ in found), values(torch.cat([matrix for _, matrix in found])))


def main() -> None:
    """Print the table."""
    found = list(groups(Session(ModelRef(), ignore_progress, never_stop)))
    every = [one for group in found for one in group.layers]
    total = sum(one.layer.params for one in every)
    print("| law | kept | plain | shared inputs | shared everywhere | dense columns |\n|---|---|---|---|---|---|")  # noqa: T201
    for law in ("pair", "pivoted"):
        either = [group.alternatives(law) for group in found]
        columns = []
        for one in every:
            rows, width = one.layer.out_features, one.layer.in_features
            curves = [curve(rows, width, one.alone, law)]
            curves += [curve(rows, width - count, sigma, law, count) for count, sigma in one.beside.items()]
            columns.append([[option] for option in curves])
        for keep in KEEPS:
            tried = ([unit[:1] for unit in either], either, [unit[1:] for unit in either], columns)
            losses = [least_loss(units, keep * total) for units in tried]
            said = " | ".join(f"{loss:.4f} ({loss / losses[0] - 1:+.1%})" for loss in losses[1:])
            print(f"| {law} | {keep} | {losses[0]:.4f} | {said} |")  # noqa: T201


if __name__ == "__main__":
    main()
