"""How much memory a model takes whole, and block after block: by the shapes of its matrices alone. No torch.

``lrc bench memory`` prints it beside what it measures; docs/scale.md says what of it has been checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lrc_core.models.blocks.block_tensors import BlockTensor

PROCESS = 450_000_000
"""Bytes of Python and torch before there is a model."""
_BATCH = 4096  # tokens that run together when moments are collected: 8 windows of 512
_ROWS, _LOGITS = 512, 2**26  # tokens, and logits, that the head is run on at once when gradients are collected
_ALIKE = (
    re.compile(r"(?:^|[._])(?:q|k|v|query|key|value)(?:_proj)?$"),
    re.compile(r"(?:^|[._])(?:gate|up|w1|w3)(?:_proj)?$"),
)


@dataclass(frozen=True)
class Shapes:
    """What counts of a model.

    Attributes:
        blocks: (kind, out, in) of every linear of every block.
        outside: parameters that are in no block linear.
        width: bytes of a number as the model runs.
        hidden: width of the hidden states.
        vocabulary: rows of the embedding.
        positions: of the longest sequence that it was made for; None where nothing says.
    """

    blocks: tuple[tuple[tuple[str, int, int], ...], ...]
    outside: int
    width: int
    hidden: int
    vocabulary: int
    positions: int | None = None

    @classmethod
    def of(
        cls,
        blocks: Mapping[int, Sequence[BlockTensor]],
        params: int,
        *,
        width: int,
        hidden: int,
        vocabulary: int,
        positions: int | None,
        turned: tuple[str, ...],
    ) -> Shapes:
        """Those of a model's headers; ``turned`` says how kinds end that are stored as [in, out]."""
        found = tuple(
            tuple((one.kind, *(one.shape[::-1] if one.kind.endswith(turned) else one.shape)) for one in matrices)
            for matrices in blocks.values()
        )
        linear = sum(rows * columns for block in found for _, rows, columns in block)
        return cls(found, max(0, params - linear), width, hidden, vocabulary, positions)

    @property
    def linear(self) -> int:
        """Parameters of the block linears."""
        return sum(rows * columns for block in self.blocks for _, rows, columns in block)

    @property
    def params(self) -> int:
        """All parameters."""
        return self.outside + self.linear


def inputs_of(block: Sequence[tuple[str, int, int]]) -> Iterator[int]:
    """Width of every distinct input of a block: query, key and value share one, gate and up another."""
    seen = set()
    for kind, _, columns in block:
        same = next((f"{number} {columns}" for number, alike in enumerate(_ALIKE) if alike.search(kind)), kind)
        if same not in seen:
            seen.add(same)
            yield columns


def whole_memory(shapes: Shapes) -> int:
    """The model and what one pass of it takes."""
    return PROCESS + shapes.params * shapes.width + _activations(shapes)


def phase_memory(shapes: Shapes) -> dict[str, int]:
    """Bytes of main memory of every phase when the model is brought in block after block."""
    held = PROCESS + shapes.outside * shapes.width + max(map(_params, shapes.blocks), default=0) * shapes.width
    wide = [max((max(rows, columns) for _, rows, columns in block), default=0) for block in shapes.blocks]
    return {
        "moments": held + _activations(shapes) + max(map(_moments, shapes.blocks), default=0),
        "gradients": held + _activations(shapes) + max(max(map(_slopes, shapes.blocks), default=0), _head(shapes)),
        # The moment in float32, its root in float64, and the factors of a block in float32 as they are and as written.
        "decomposition": held
        + max(12 * side**2 + 8 * _factors(block) for side, block in zip(wide, shapes.blocks, strict=True))
        if wide
        else held,
        "perplexity": held + _activations(shapes) + 6 * min(2**27, 2048 * shapes.vocabulary),
    }


def by_blocks_memory(shapes: Shapes) -> int:
    """The most that any phase takes."""
    return max(phase_memory(shapes).values())


def _params(block: Sequence[tuple[str, int, int]]) -> int:
    return sum(rows * columns for _, rows, columns in block)


def _factors(block: Sequence[tuple[str, int, int]]) -> int:
    """Numbers in the full-rank factors."""
    return sum((rows + columns) * min(rows, columns) for _, rows, columns in block)


def _moments(block: Sequence[tuple[str, int, int]]) -> int:
    """Sums in float64, and one product in float32."""
    columns = list(inputs_of(block))
    return sum(8 * side**2 for side in columns) + 4 * max(columns, default=0) ** 2


def _slopes(block: Sequence[tuple[str, int, int]]) -> int:
    rows = [out for _, out, _ in block]
    return sum(8 * side**2 for side in rows) + 4 * max(rows, default=0) ** 2


def _head(shapes: Shapes) -> int:
    """Logits of some tokens, as the model's and three times in float32."""
    return min(_ROWS * shapes.vocabulary, _LOGITS) * (shapes.width + 12)


def _activations(shapes: Shapes) -> int:
    """What a block's pass over a batch holds."""
    widest = max((max(rows, columns) for block in shapes.blocks for _, rows, columns in block), default=0)
    return _BATCH * (6 * shapes.hidden + 4 * widest) * shapes.width
