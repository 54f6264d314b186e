"""How far neighbouring blocks work in the same directions: overlaps of their weights' leading singular subspaces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lrc_core.decompose.factorise import in_parallel
from lrc_core.decompose.measures import subspace_overlap
from lrc_core.errors import CancelledError
from lrc_core.models.blocks.linears import get_module, weight_of
from lrc_core.types import LinearShape, OnProgress, Progress, ShouldStop, ignore_progress, never_stop

SHARE = 8
"""The leading eighth of a layer's directions is compared, at most MOST of them."""
MOST = 64
_SPARE, _ROUNDS, _SEED = 16, 8, 0


@dataclass(frozen=True)
class Leading:
    """Bases of the leading singular directions of a weight, orthonormal columns.

    Attributes:
        inputs: [n, k], what it reads most.
        outputs: [m, k], what it writes most.
    """

    inputs: Tensor
    outputs: Tensor


def leading_directions(weight: Tensor, count: int) -> Leading:
    """Leading singular vectors of a weight by block power iteration (Halko, Martinsson and Tropp 2011, alg. 4.4).

    Args:
        weight: [m, n].
        count: how many, at most min(m, n).
    """
    matrix = weight.float()
    width = min(count + _SPARE, *matrix.shape)
    start = torch.randn(matrix.shape[1], width, generator=torch.Generator().manual_seed(_SEED))
    basis = torch.linalg.qr(matrix @ start)[0]
    for _ in range(_ROUNDS):
        basis = torch.linalg.qr(matrix.T @ basis)[0]
        basis = torch.linalg.qr(matrix @ basis)[0]
    left, _, right = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
    return Leading(right[:count].T.contiguous(), (basis @ left)[:, :count].contiguous())


def compared(layer: LinearShape) -> int:
    """How many directions of a layer are compared."""
    return max(1, min(MOST, layer.full_rank // SHARE))


def neighbour_overlaps(
    model: nn.Module,
    layers: Sequence[LinearShape],
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> dict[str, Any]:
    """Overlap of every layer's leading directions with those of the same kind of layer in the blocks beside it.

    Two blocks are held at a time. The weights themselves are compared, whatever the decomposition: under a transform of
    the inputs the directions of two layers would be measured in different coordinates.

    Returns:
        ``{"layers": {name: {"directions", "inputs", "outputs", "chance_inputs", "chance_outputs"}}}``: the mean over
        the neighbours of :func:`~lrc_core.decompose.measures.subspace_overlap`, and what random directions would give.
        A layer without a neighbour of its shape is left out.
    """
    pairs: dict[str, list[tuple[float, float]]] = {}
    before: dict[str, tuple[LinearShape, Leading]] = {}
    blocks = sorted({layer.block for layer in layers})
    for number, block in enumerate(blocks, 1):
        if should_stop():
            raise CancelledError("The comparison of subspaces was cancelled.")
        own = [layer for layer in layers if layer.block == block]
        found = in_parallel(lambda layer: _leading(model, layer), own)
        now = {layer.kind: (layer, leading) for layer, leading in zip(own, found, strict=True)}
        for kind, (layer, leading) in now.items():
            other, earlier = before.get(kind, (None, None))
            if other is None or earlier is None or _shape(other) != _shape(layer) or other.block != block - 1:
                continue
            pair = (
                subspace_overlap(earlier.inputs.numpy(), leading.inputs.numpy()),
                subspace_overlap(earlier.outputs.numpy(), leading.outputs.numpy()),
            )
            pairs.setdefault(other.name, []).append(pair)
            pairs.setdefault(layer.name, []).append(pair)
        before = now
        on_progress(Progress("comparing neighbouring subspaces", number, len(blocks)))
    return {"layers": {layer.name: _summary(layer, pairs[layer.name]) for layer in layers if layer.name in pairs}}


@torch.no_grad()
def _leading(model: nn.Module, layer: LinearShape) -> Leading:
    return leading_directions(weight_of(get_module(model, layer.name)).detach().cpu(), compared(layer))


def _shape(layer: LinearShape) -> tuple[int, int]:
    return layer.out_features, layer.in_features


def _summary(layer: LinearShape, pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    count = compared(layer)
    inputs, outputs = (sum(pair[side] for pair in pairs) / len(pairs) for side in (0, 1))
    return {
        "directions": count,
        "inputs": round(inputs, 5),
        "outputs": round(outputs, 5),
        "chance_inputs": count / layer.in_features,
        "chance_outputs": count / layer.out_features,
    }
