"""A matrix of rank k from k of its rows: which rows, and the others as combinations of them.

W = L R with L of m x k. Where P are k rows of L that are independent, row i of W is sum_j C_ij W_{P_j} with
C = L_rest L_P^-1, whatever R is: store the rows W_P = L_P R and C (PIFA, arXiv 2501.19090; SkipCat, arXiv 2512.13494).
It is the same matrix, and how well it bears rounding is a matter of how large C is: what is lost in a stored row is
lost |C_ij| times in row i. Elimination with row pivoting finds good rows fast, and swaps finish the choice: as long as
an entry of C is above a bound, that row and that pivot change places, which makes the determinant of L_P larger by that
factor, so that it comes to an end (maxvol: Goreinov et al. 2010; a strong rank-revealing choice in the sense of Gu and
Eisenstat 1996). All in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lrc_core.errors import NumericalError

LARGEST_COEFFICIENT = 1.2
"""Bound that swaps bring every coefficient under; few rows change for it, and up to a third of rounding error goes."""
_LEAST_SPREAD = 1e-3
"""Columns of unit length of which one is nearer than this to the span of those before it count as nearly dependent."""


@dataclass(frozen=True)
class PivotForm:
    """A matrix W [m, n] of rank k: W[pivots] = rows, and its other rows, in their order, are coefficients @ rows.

    Attributes:
        pivots: [k] indices of the rows that are stored, ascending; int64.
        rows: [k, n] float64.
        coefficients: [m - k, k] float64, none beyond :data:`LARGEST_COEFFICIENT`.
    """

    pivots: Tensor
    rows: Tensor
    coefficients: Tensor

    def dense(self) -> Tensor:
        """W [m, n] again."""
        whole = torch.cat([self.rows, self.coefficients @ self.rows])
        return rows_in_order(whole, output_rows(self.pivots, len(whole)))


def output_rows(pivots: Tensor, out_features: int) -> Tensor:
    """[m] which rows of the matrix the pivots are, and after them all others."""
    return torch.cat([pivots, others(pivots, out_features)])


def rows_in_order(rows: Tensor, places: Tensor) -> Tensor:
    """[m, n] the matrix of its rows as :func:`output_rows` has them."""
    return torch.empty_like(rows).index_copy_(0, places, rows)


def others(pivots: Tensor, out_features: int) -> Tensor:
    """The rows that are no pivots, ascending."""
    free = torch.ones(out_features, dtype=torch.bool, device=pivots.device)
    free[pivots] = False
    return free.nonzero()[:, 0]


def pivot_form(left: Tensor, right: Tensor, largest: float = LARGEST_COEFFICIENT) -> PivotForm:
    """The pivot form of a product.

    Args:
        left: [m, k], k at most m; of any scale and rank.
        right: [k, n].
        largest: bound of the coefficients, above 1.

    Raises:
        NumericalError: the factors are not finite.
    """
    left, right = left.detach().to(_double_device(left)).double(), right.detach().to(_double_device(left)).double()
    if not (torch.isfinite(left).all() and torch.isfinite(right).all()):
        raise NumericalError("The factors of a layer are not finite.", "Decompose the model again.")
    basis = _basis(left / left.norm(dim=0).clamp_min(torch.finfo(torch.float64).tiny))
    pivots = _chosen(basis, largest).sort().values
    rest = others(pivots, len(left))
    coefficients = torch.linalg.solve(basis[pivots], basis[rest], left=False)
    return PivotForm(pivots, left[pivots] @ right, coefficients)


def _basis(columns: Tensor) -> Tensor:
    """Orthonormal columns [m, k] of the same span.

    From the Cholesky factor of their k x k products, several times as fast as by reflections; what is lost is the
    square of their condition number, so that columns that are nearly dependent take the slow way.
    """
    root, failed = torch.linalg.cholesky_ex(columns.T @ columns, upper=True)
    if bool(failed) or bool((root.diagonal() < _LEAST_SPREAD).any()):
        return torch.linalg.qr(columns).Q
    return torch.linalg.solve_triangular(root, columns, upper=True, left=False)


def _chosen(basis: Tensor, largest: float) -> Tensor:
    """k rows of an orthonormal [m, k] basis in which the others have no coefficient above the bound."""
    k = basis.shape[1]
    eliminated, exchanged = torch.linalg.lu_factor(basis)
    places = list(range(len(basis)))
    for place, other in enumerate((exchanged - 1).tolist()):
        places[place], places[other] = places[other], places[place]
    order = torch.tensor(places, device=basis.device)
    pivots, rest = order[:k].clone(), order[k:].clone()
    unit = eliminated[:k].tril(-1) + torch.eye(k, dtype=basis.dtype, device=basis.device)
    found = torch.linalg.solve_triangular(unit, eliminated[k:], upper=False, left=False, unitriangular=True)
    while found.numel():
        row = int(found.abs().amax(dim=1).argmax())  # in two steps: ``argmax`` of a matrix reads it far slower
        column = int(found[row].abs().argmax())
        value = float(found[row, column])
        if abs(value) <= largest:
            break
        pivots[column], rest[row] = rest[row].clone(), pivots[column].clone()
        entering, leaving = found[row].clone(), found[:, column].clone()
        entering[column] -= 1
        found.addr_(leaving, entering, alpha=-1 / value)
        found[row] = -entering / value
        found[row, column] = 1 / value
    return pivots


def _double_device(tensor: Tensor) -> torch.device:
    """Where float64 is known: not on mps."""
    return torch.device("cpu") if tensor.device.type == "mps" else tensor.device
