"""Singular values without a second copy of the matrix. numpy and scipy only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrc_core.errors import NumericalError


def singular_values_in_place(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Singular values of a matrix, descending; the matrix is destroyed.

    LAPACK's sgesdd for values alone (a QR decomposition first where one side is much longer, then bidiagonalisation)
    works within the matrix and needs only a few of its rows beside it. Its error is some 1e-6 of the largest value,
    far below that of weights stored with 8 or 11 bits of precision.

    Args:
        matrix: [m, n] contiguous by rows, finite.

    Returns:
        [min(m, n)]

    Raises:
        NumericalError: LAPACK did not converge.
    """
    from scipy.linalg import lapack

    turned = matrix.T  # by columns, as LAPACK wants it, without a copy; the singular values are the same
    rows, columns = turned.shape
    work, _ = lapack.sgesdd_lwork(rows, columns, compute_uv=0)
    # The size comes back as a float32, which may have been rounded down.
    size = int(np.nextafter(np.float32(work), np.float32(np.inf))) + 1
    values: Any
    _, values, _, info = lapack.sgesdd(turned, compute_uv=0, overwrite_a=1, lwork=size)
    if info != 0:
        raise NumericalError(f"The singular values of a {columns} x {rows} matrix did not converge (LAPACK {info}).")
    return np.asarray(values, dtype=np.float32)
