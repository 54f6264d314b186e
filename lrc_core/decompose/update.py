"""Tensors in, factors out: the closed-form update of a low-rank layer against the inputs that it really gets.

A layer W was truncated as if its inputs were the dense model's x, but behind other truncated layers it gets x~. With
both known token by token, the factors that bring U V x~ closest to W x are a least-squares problem:

- ``update_left`` keeps V: U = W E[x x~^T] V^T (V E[x~ x~^T] V^T)^-1. With W x~ as the target this is the closed-form
  parameter update of SVD-LLM (arXiv 2403.07378); with W x it also takes back what earlier layers have shifted.
- ``update_both`` chooses both: reduced-rank regression, the best rank-k approximation of
  W* = W E[x x~^T] E[x~ x~^T]^-1 under E[x~ x~^T]; anchored to the dense outputs as in AA-SVD (arXiv 2604.02119).

Damping adds damping * mean input energy to the diagonals of both moments: as if white noise had been seen that is the
same in both models. Directions that the text does not show therefore pull to the dense weight and not to zero. All is
solved in float64 and in square-root form: with L L^T = E[x~ x~^T] and T = W E[x x~^T] L^-T the error of A is
||T - A L||^2 plus what no A can change, so that no product is squared before it is inverted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lrc_core.decompose.factorise import is_finite_matrix
from lrc_core.errors import NumericalError

_LEAST_PIVOT = 1e-10  # of the mean input energy; a smaller one passes Cholesky and makes its inverse meaningless
_LEAST_DIRECTION = 1e-10  # of the largest: directions of V L below it are taken for linearly dependent


@dataclass(frozen=True)
class PairedMoments:
    """What is known of one layer's inputs in two models, token by token.

    Attributes:
        second: [n, n], mean over tokens of x~ x~^T; x~ is the input in the compressed model.
        cross: [n, n], mean over tokens of x x~^T; x is what the target multiplies W with.
        tokens: how many tokens were seen.
    """

    second: Tensor
    cross: Tensor
    tokens: int


@dataclass(frozen=True)
class Damped:
    """Paired moments made safe to invert, for all layers that share the input.

    Attributes:
        root: [n, n] lower triangular L, L L^T the damped second moment; float64.
        cross: [n, n] damped cross moment; float64.
        damping: the share of the mean input energy that was added, at least what was asked for.
    """

    root: Tensor
    cross: Tensor
    damping: float

    def target(self, weight: Tensor) -> Tensor:
        """T = W E[x x~^T] L^-T, [m, n]: what A L should be."""
        product = weight.double() @ self.cross
        return torch.linalg.solve_triangular(self.root.T, product, upper=True, left=False)


def damped(moments: PairedMoments, damping: float) -> Damped:
    """Add damping, tenfold more until the second moment is positive definite.

    Args:
        damping: share of the mean input energy, 0 or more.

    Raises:
        NumericalError: the moments are not finite, or the inputs are all zero.
    """
    second, cross = moments.second.double(), moments.cross.double()
    second = (second + second.T) / 2
    scale = float(second.diagonal().mean())
    if not (is_finite_matrix(second) and is_finite_matrix(cross)):
        raise NumericalError("The moments of a layer's inputs are not finite.", "Check the model for NaN weights.")
    if scale <= 0:
        raise NumericalError("A layer's inputs are all zero on the calibration text.", "Use another text.")
    unit = torch.eye(second.shape[0], dtype=second.dtype, device=second.device)
    added = damping
    while True:
        root, failed = torch.linalg.cholesky_ex(second + added * scale * unit)
        if not failed and float(root.diagonal().min()) ** 2 > _LEAST_PIVOT * scale:
            return Damped(root, cross + added * scale * unit, added)
        added = max(10 * added, 1e-12)


def update_left(weight: Tensor, right: Tensor, moments: Damped) -> Tensor:
    """The best left factor for a given right one.

    A metric on the outputs would not change it: every output has its own least-squares problem.

    Args:
        weight: [m, n] dense weight, any float type.
        right: [k, n], as the layer will use it.
        moments: of its inputs.

    Returns:
        [m, k] float64; of all that do equally well, the smallest.
    """
    rows, target = right.double() @ moments.root, moments.target(weight)  # [k, n], [m, n]
    # Rows of very different size (small singular values) are no less certain: scaled, they are solved equally well.
    sizes = torch.linalg.vector_norm(rows, dim=1)
    inverse = torch.where(sizes > 0, 1 / sizes, torch.zeros_like(sizes))
    rows = rows * inverse[:, None]
    basis, corner = torch.linalg.qr(rows.T)  # [n, k], [k, k]
    pivots = corner.diagonal().abs()
    if corner.shape[0] == corner.shape[1] and float(pivots.min()) > _LEAST_DIRECTION * float(pivots.max()):
        solved = torch.linalg.solve_triangular(corner.T, target @ basis, upper=False, left=False)
    else:  # more rows than inputs, or dependent ones (masks may keep components of no weight): an SVD bears both
        first, values, second = torch.linalg.svd(rows, full_matrices=False)
        enough = values > _LEAST_DIRECTION * values[0]
        solved = (target @ second[enough].T) / values[enough] @ first[:, enough].T
    return solved * inverse


def update_both(weight: Tensor, rank: int, moments: Damped, output_root: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The best pair of factors of a rank.

    Args:
        weight: [m, n] dense weight, any float type.
        rank: k, at most min(m, n).
        moments: of its inputs.
        output_root: [m, m] invertible R where errors e of the output count as ||R^T e||^2, as in a two-sided
            decomposition; None where all outputs count alike.

    Returns:
        left [m, k] and right [k, n], float64, components from the largest to the smallest.
    """
    target = moments.target(weight)
    if output_root is not None:
        target = output_root.to(target.device).double().T @ target
    if target.shape[0] <= target.shape[1]:
        left = torch.linalg.eigh(target @ target.T)[1].flip(1)[:, :rank]
        right = left.T @ target
    else:
        right = torch.linalg.eigh(target.T @ target)[1].flip(1)[:, :rank].T
        left = target @ right.T
    if output_root is not None:
        left = torch.linalg.solve(output_root.to(left.device).double().T, left)
    return left, torch.linalg.solve_triangular(moments.root, right, upper=False, left=False)


def output_error(weight: Tensor, left: Tensor, right: Tensor, moments: PairedMoments, energy: float) -> float:
    """Mean squared error of the output, E||W x - U V x~||^2.

    Args:
        weight: [m, n] dense weight.
        left: [m, k].
        right: [k, n].
        moments: of the layer's inputs, not damped.
        energy: E||W x||^2, which no factor changes.
    """
    product = left.double() @ right.double()  # [m, n]
    wanted = weight.double() @ moments.cross.double()
    return energy + float((product * (product @ moments.second.double() - 2 * wanted)).sum())


def component_sizes(left: Tensor, right: Tensor) -> Tensor:
    """[k] singular values of left @ right, descending, float32; the product itself is never made."""
    first, second = torch.linalg.qr(left.double())[1], torch.linalg.qr(right.double().T)[1]
    return torch.linalg.svdvals(first @ second.T).float()


def named_factors(name: str, left: Tensor, right: Tensor) -> dict[str, Tensor]:
    """A layer's new factors as a plan's weights name them: ``NAME.left``, ``NAME.right`` and their ``NAME.sigma``."""
    sizes = component_sizes(left.cpu(), right.cpu())
    return {f"{name}.left": left, f"{name}.right": right, f"{name}.sigma": sizes}
