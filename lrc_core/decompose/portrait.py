"""What a truncated layer looks like and errs by, rank by rank: pictures and curves that hold no weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lrc_core.decompose.factorise import Factors

_BRIGHTEST = 0.995  # quantile of the cells of W that is drawn as full brightness


@dataclass(frozen=True)
class Portrait:
    """Pictures of W, of W_k and of what is missing, on one scale of brightness.

    Attributes:
        weight: [cells, cells] uint8, root mean square of the entries of W in every cell.
        kept: [ranks, cells, cells], the same of W_k.
        missing: [ranks, cells, cells], the same of W - W_k.
        brightest: the root mean square that 255 stands for.
    """

    weight: NDArray[np.uint8]
    kept: NDArray[np.uint8]
    missing: NDArray[np.uint8]
    brightest: float


@dataclass(frozen=True)
class Errors:
    """Relative errors of a layer, one a rank; 1 where nothing is left.

    Attributes:
        weight: norm of W - W_k over that of W (Frobenius).
        output: root mean square of (W - W_k) x over that of W x.
    """

    weight: tuple[float, ...]
    output: tuple[float, ...]


def rank_steps(full: int, count: int) -> tuple[int, ...]:
    """About ``count`` ranks from 1 to ``full``, evenly spaced on a logarithmic scale; both ends are among them."""
    return tuple(sorted({round(rank) for rank in np.geomspace(1, full, min(count, full))}))


def portrait(weight: Tensor, factors: Factors, ranks: Sequence[int], cells: int) -> Portrait:
    """Pictures of a weight at some ranks.

    Args:
        weight: [m, n].
        factors: of that weight, full rank.
        ranks: what to show.
        cells: of a picture's side; fewer where the weight is smaller.
    """
    weight = weight.float().cpu()
    whole = _cell_sizes(weight, cells)
    brightest = max(float(torch.quantile(whole.flatten(), _BRIGHTEST)), torch.finfo(torch.float32).tiny)
    kept, missing = [], []
    for rank in ranks:
        product = factors.left[:, :rank] @ factors.right[:rank]
        kept.append(_bytes(_cell_sizes(product, cells), brightest))
        missing.append(_bytes(_cell_sizes(weight - product, cells), brightest))
    return Portrait(_bytes(whole, brightest), np.stack(kept), np.stack(missing), brightest)


def _cell_sizes(matrix: Tensor, cells: int) -> Tensor:
    """[cells, cells] root mean squares."""
    size = (min(cells, matrix.shape[0]), min(cells, matrix.shape[1]))
    return nn.functional.adaptive_avg_pool2d(matrix.square()[None, None], size)[0, 0].sqrt()


def _bytes(sizes: Tensor, brightest: float) -> NDArray[np.uint8]:
    found: NDArray[np.uint8] = (255 * sizes / brightest).round().clamp(0, 255).to(torch.uint8).numpy()
    return found


def truncation_errors(weight: Tensor, factors: Factors, second_moment: Tensor, ranks: Sequence[int]) -> Errors:
    """How far truncated factors are from a layer's weight and from its outputs.

    Args:
        weight: [m, n].
        factors: of that weight under any decomposition, full rank.
        second_moment: [n, n], mean of x x^T over the inputs that the outputs are judged on.
        ranks: where to look.
    """
    weight = weight.float().cpu()
    values, vectors = torch.linalg.eigh(second_moment.double())
    root = (vectors * values.clamp_min(0).sqrt()).float()  # root root^T is the second moment
    outputs, rows = weight @ root, factors.right @ root
    norm = float(weight.norm()) or 1.0
    size = float(outputs.norm()) or 1.0
    found = []
    for rank in ranks:
        left = factors.left[:, :rank]
        in_weight = float((weight - left @ factors.right[:rank]).norm()) / norm
        in_output = float((outputs - left @ rows[:rank]).norm()) / size
        found.append((in_weight, in_output))
    return Errors(tuple(error for error, _ in found), tuple(error for _, error in found))
