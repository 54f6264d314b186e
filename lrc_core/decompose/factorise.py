"""Tensors in, factors out: plain SVD, ASVD, the whitened SVD of SVD-LLM and the two-sided SVD of K-FAC.

All of them decompose M = R^T W T for an input transform T (identity, diagonal, Cholesky factor of the input's second
moment) and an output transform R (identity, or the Cholesky factor of the output gradient's second moment), and undo
both afterwards. Only the eigenproblem of the smaller Gram side is solved, in float64: the same singular values and
factors as a full SVD at a fraction of the time. Only the transform of the smaller side has to be inverted: with
m <= n the factors are R^-T U and U^T R^T W, otherwise W T V and V^T T^-1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from lrc_core.decompose import AsvdSettings, KfacSettings, NoSettings, WhitenedSettings
from lrc_core.errors import NumericalError

Item = TypeVar("Item")
Result = TypeVar("Result")
_UNUSED = 1e-8  # what a transform of zero is replaced by: small enough to make cutting free, and it has an inverse
_SCALE_FLOOR = 1e-6  # added to the mean absolute input, as ASVD does, so that dead inputs keep a finite inverse

NO_INPUTS = "its inputs are all zero"
NO_GRADIENTS = "the loss does not feel its outputs"


@dataclass(frozen=True)
class Factors:
    """Factors of every rank at once: W_k = left[:, :k] @ right[:k].

    Attributes:
        left: [m, r] float tensor, r = min(m, n).
        right: [r, n].
        sigma: [r] singular values of the decomposed matrix, descending.
    """

    left: Tensor
    right: Tensor
    sigma: Tensor


@dataclass(frozen=True)
class InputStatistics:
    """What calibration knows of a layer's inputs x.

    Attributes:
        second_moment: [n, n], mean over tokens of x x^T.
        abs_mean: [n], mean over tokens of abs(x).
        tokens: how many tokens were seen.
        gradient_moment: [m, m], mean over ALL tokens of the text of g g^T, g the gradient of a token's loss at the
            outputs, where it was collected.
        share: of the text's tokens that reach the layer; below 1 for an expert, which errs for no others.
    """

    second_moment: Tensor
    abs_mean: Tensor
    tokens: int
    gradient_moment: Tensor | None = None
    share: float = 1.0


@dataclass(frozen=True)
class Transform:
    """Invertible transforms T of the input side and R of the output side.

    Attributes:
        matrix: T: [n] for a diagonal, [n, n] lower triangular otherwise, None for the identity; float64.
        output: R: [m, m] lower triangular, None for the identity; float64.
        damping: what was added to the diagonal of the second moment to make it positive definite (0 when nothing was).
        unused: why cutting the layer costs nothing on the calibration text; "" where it is used.
    """

    matrix: Tensor | None = None
    output: Tensor | None = None
    damping: float = 0.0
    unused: str = ""

    def apply(self, weight: Tensor) -> Tensor:
        """R^T W T, [m, n]."""
        weight = self.times_output(weight)
        if self.matrix is None:
            return weight
        return weight * self.matrix if self.matrix.ndim == 1 else weight @ self.matrix

    def times_output(self, weight: Tensor) -> Tensor:
        """R^T W, [m, n]."""
        return weight if self.output is None else self.output.to(weight.dtype).T @ weight

    def times(self, columns: Tensor) -> Tensor:
        """T times columns [n, r]."""
        if self.matrix is None:
            return columns
        return columns * self.matrix[:, None] if self.matrix.ndim == 1 else self.matrix @ columns

    def undo(self, rows: Tensor) -> Tensor:
        """Rows [r, n] times the inverse of T."""
        if self.matrix is None:
            return rows
        if self.matrix.ndim == 1:
            return rows / self.matrix
        return torch.linalg.solve_triangular(self.matrix, rows, upper=False, left=False)

    def undo_output(self, columns: Tensor) -> Tensor:
        """The inverse of R^T times columns [m, r]."""
        if self.output is None:
            return columns
        return torch.linalg.solve_triangular(self.output.T, columns, upper=True)


def plain(_: InputStatistics | None, __: NoSettings) -> Transform:
    """Plain SVD: T is the identity."""
    return Transform()


def activation_scaled(inputs: InputStatistics, settings: AsvdSettings) -> Transform:
    """ASVD (arXiv 2312.05821, eq. 6): T = diag(s^alpha), s the mean absolute input."""
    scale = (inputs.abs_mean.double() + _SCALE_FLOOR) ** settings.alpha
    return Transform(scale)


def whitened(inputs: InputStatistics, settings: WhitenedSettings) -> Transform:
    """SVD-LLM (arXiv 2403.07378, section 3.1): T = L with L L^T = E[x x^T].

    The discarded sigma^2 is then the mean squared output error per token on the calibration text. Of a layer whose
    inputs are all zero the singular values are next to nothing, and its factors those of the plain SVD.

    Raises:
        NumericalError: the second moment is not finite.
    """
    root, added = _root(inputs.second_moment, "inputs", 0.0, settings.damping, inputs.share)
    return Transform(root, damping=added, unused="" if inputs.second_moment.any() else NO_INPUTS)


def two_sided(inputs: InputStatistics, settings: KfacSettings) -> Transform:
    """K-FAC: T as whitened, R with R R^T = E[g g^T], both damped, g the gradient of a token's loss at the outputs.

    E[x x^T] (x) E[g g^T] is the Kronecker-factored Fisher information of the weight (arXiv 1503.05671, eq. 1), so half
    the discarded sigma^2 is the second-order estimate of what a truncation adds to the loss of a token, the KL
    divergence from the dense model. It is in nats whatever the layer, which makes layers comparable.

    Raises:
        NumericalError: a second moment is not finite.
    """
    if inputs.gradient_moment is None:
        raise ValueError("the two-sided decomposition needs the second moment of the output gradients")
    matrix, added = _root(inputs.second_moment, "inputs", settings.input_damping, 1e-6)
    output = output_root(inputs.gradient_moment, settings)
    unused = NO_INPUTS if not inputs.second_moment.any() else "" if inputs.gradient_moment.any() else NO_GRADIENTS
    return Transform(matrix, output, damping=added if added > settings.input_damping else 0.0, unused=unused)


def output_root(gradient_moment: Tensor, settings: KfacSettings) -> Tensor:
    """R of the two-sided decomposition, [m, m] lower triangular float64, from E[g g^T]."""
    return _root(gradient_moment, "output gradients", settings.output_damping, 1e-6)[0]


def _root(moment: Tensor, of: str, damping: float, least: float, share: float = 1.0) -> tuple[Tensor, float]:
    """Cholesky factor of a second moment, and the share of its mean diagonal that had to be added.

    Of a moment that is zero it is next to nothing in every direction alike: what is not used costs nothing to cut.

    Args:
        moment: [d, d].
        of: what it is the moment of, for error messages.
        damping: share that is added in any case.
        least: smallest share that is added when the moment is not positive definite; raised tenfold until it is.
        share: what the moment is multiplied with first.
    """
    scale = share * float(moment.diagonal().double().mean())
    if not is_finite_matrix(moment):
        raise NumericalError(f"The second moment of a layer's {of} is not finite.", "Check the model for NaN weights.")
    if scale <= 0:
        return _UNUSED * torch.eye(len(moment), dtype=torch.float64, device=moment.device), 0.0
    added = damping
    while True:
        # By columns, as LAPACK wants it, the factor takes the place of the moment: of a wide layer a copy is half a
        # gigabyte.
        root = moment.to(torch.float64, copy=True).mul_(share).T
        root.diagonal().add_(added * scale)
        failed = root.new_empty((), dtype=torch.int32)
        torch.linalg.cholesky_ex(root, out=(root, failed))
        # A pivot near rounding error passes Cholesky but makes the inverse meaningless: damp that as well.
        if not failed and float(root.diagonal().min()) ** 2 > 1e-10 * scale:
            return root, added
        del root
        added = max(added * 10, least or 1e-12)


def is_finite_matrix(matrix: Tensor) -> bool:
    """Whether every number of a matrix [m, n] is finite, by sums in float64: ``torch.isfinite`` copies all of it."""
    wide = torch.float32 if matrix.device.type == "mps" else torch.float64
    return all(math.isfinite(float(rows.sum(dtype=wide))) for rows in matrix.split(1024))


def singular_values(weight: Tensor, transform: Transform) -> Tensor:
    """Singular values of W T, descending.

    Args:
        weight: [m, n], any float type.

    Returns:
        [min(m, n)] float64.
    """
    return torch.linalg.eigvalsh(_small_gram(weight.double(), transform)).clamp_min(0).sqrt().flip(0)


def factorise(weight: Tensor, transform: Transform) -> Factors:
    """Factors of W under an input transform.

    Args:
        weight: [m, n], any float type.

    Returns:
        float32 factors; full rank reproduces W.
    """
    values, vectors = torch.linalg.eigh(_small_gram(weight.double(), transform))
    sigma = values.clamp_min(0).sqrt().flip(0).float()
    vectors = vectors.flip(1)
    # Only the eigenproblem and the inverse need float64; the products with W are as exact as float32 factors can be.
    weight = weight.float()
    if weight.shape[0] <= weight.shape[1]:
        left = transform.undo_output(vectors).float().contiguous()
        return Factors(left, vectors.float().T @ transform.times_output(weight), sigma)
    right = transform.undo(vectors.T).float().contiguous()
    return Factors(weight @ transform.times(vectors).float(), right, sigma)


def in_parallel(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Map a function over layers, one core each: eigenproblems of this size gain little from threads of their own.

    Restores torch's thread count. On an accelerator call the function directly.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(function, items))
    finally:
        torch.set_num_threads(threads)


def _small_gram(weight: Tensor, transform: Transform) -> Tensor:
    """M M^T or M^T M of M = W T, whichever is smaller; symmetric float64."""
    matrix = transform.apply(weight)
    return matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
