"""Bytes of layers, of plans and of whole models: ranks and number formats together. No torch.

What is not a block linear (embeddings, head, norms, biases) is counted in 16 bits, the precision that models are
served in; so is every block linear without a format of its own. The share of the bytes is always of the block linears
in 16 bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lrc_core.budget import Ranks, Shapes, is_dense, layer_params
from lrc_core.formats.grids import BF16, FORMATS, Q8_0, Format
from lrc_core.types import LinearShape, ModelCard

Formats = Mapping[str, str]
"""Name of the format of layers by full module name; layers that are not in it are in 16 bits."""


def pivots_bear(form: Format) -> bool:
    """Whether a format is exact enough for pivot rows, whose errors spread to every row that is made of them.

    8 bits cost next to nothing there, 5 bits more than the ranks do; layers in less are stored as pairs.
    """
    return form.bits >= Q8_0.bits


def is_pivoted(layer: LinearShape, rank: int, form: Format = BF16) -> bool:
    """Whether a layer of that rank is stored by pivots in a format."""
    return layer.storage == "pivoted" and pivots_bear(form) and not is_dense(layer, rank)


def stored_matrices(layer: LinearShape, rank: int, form: Format = BF16) -> tuple[tuple[int, int], ...]:
    """Rows and width of every matrix that a layer of that rank is stored as in a format."""
    if is_dense(layer, rank):
        return ((layer.out_features, layer.in_features),)
    return _low_rank(layer, rank, form)


def _low_rank(layer: LinearShape, rank: Any, form: Format) -> tuple[tuple[Any, Any], ...]:
    if layer.storage == "pivoted" and pivots_bear(form):
        return ((rank, layer.in_features), (layer.out_features - rank, rank))
    return ((layer.out_features, rank), (rank, layer.in_features))


def low_rank_bytes(layer: LinearShape, rank: Any, form: Format = BF16) -> Any:
    """Bytes of a layer at a rank, or an array of ranks, all below that of the dense matrix."""
    return sum(form.bytes_of(rows, width) for rows, width in _low_rank(layer, rank, form))


def layer_bytes(layer: LinearShape, rank: int, form: Format = BF16) -> int:
    """Bytes of a layer kept at ``rank`` in a format; a padded last block of a row is counted.

    Indices of pivots are not, as they are nowhere: they are a thousandth of the parameters.
    """
    return sum(form.bytes_of(rows, width) for rows, width in stored_matrices(layer, rank, form))


@dataclass(frozen=True)
class LayerState:
    """What a plan makes of a layer.

    Attributes:
        layer: under the law that it is stored by.
        rank: the full one where it is dense or pruned.
        shape: rows and columns that pruning leaves, None where it is not pruned.
        form: its number format.
    """

    layer: LinearShape
    rank: int
    shape: tuple[int, int] | None
    form: Format

    @property
    def dense(self) -> bool:
        """Whether it is stored whole."""
        return self.shape is None and is_dense(self.layer, self.rank)

    @property
    def params(self) -> int:
        """Parameters that it keeps."""
        return layer_params(self.layer, self.rank) if self.shape is None else math.prod(self.shape)

    @property
    def kept(self) -> float:
        """Share of its parameters that it keeps."""
        return self.params / self.layer.params

    @property
    def bytes(self) -> int:
        """Bytes that it takes; what pruning leaves is in 16 bits."""
        return layer_bytes(self.layer, self.rank, self.form) if self.shape is None else BF16.block_bytes * self.params


def layer_states(
    layers: Iterable[LinearShape], ranks: Ranks, formats: Formats | None = None, shapes: Shapes | None = None
) -> tuple[LayerState, ...]:
    """What these ranks, number formats and shapes make of every layer."""
    named, left = formats or {}, shapes or {}
    return tuple(
        LayerState(one, ranks[one.name], left.get(one.name), FORMATS[named.get(one.name, BF16.name)]) for one in layers
    )


def whole_bytes(layers: Sequence[LinearShape]) -> int:
    """Bytes of all block linears, dense in 16 bits: what a share of the bytes is a share of."""
    return BF16.block_bytes * sum(layer.params for layer in layers)


def rest_bytes(card: ModelCard) -> int:
    """Bytes of what is not a block linear."""
    return BF16.block_bytes * (card.params_total - card.params_linear)
