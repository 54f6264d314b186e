"""Which tensors of a model's files are linears of its decoder blocks, as they are found once it is loaded. No torch.

Files name what :func:`~lrc_core.models.blocks.linears.find_blocks` finds by structure. What that leaves out is left out
here: towers for pictures and sound, routers of mixtures, linears whose weight is read and that are never called, blocks
beyond the configured number. Experts that are stored as one stack are taken apart.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lrc_core.coverage import count_coverage
from lrc_core.models.headers import TensorHeader

_NUMBERED = re.compile(r"(.*?)(?:^|\.)(\d+)\.(.+)")
_STACK = re.compile(r"expert|exps|(?:^|\.)moe\.|input_linear|output_linear")
_TOWER = re.compile(r"vis(?:ion|ual)|image|audio|speech")
_ROUTER = re.compile(r"(?:gate|router|gate_inp|wg|layer|classifier)$")
_NEVER_CALLED = re.compile(r"(?:mamba|mixer)\.dt_proj|encoder_attn\.")
_TURNED = frozenset(("gpt_oss", "llama4", "llama4_text", "aria", "aria_text", "qwen3_vl_moe", "openai_privacy_filter"))
"""Model types whose stacks are [experts, in, out], for where the sizes alone do not tell."""
_IN_TURN = frozenset(("gpt_oss",))
"""Model types whose gate and up are stored column by column in turn."""
_NAMED = {
    "input_linear": "gate_up_proj", "output_linear": "down_proj", "fc1": "gate_up_proj", "fc2": "down_proj",
    "w1": "gate_proj", "v1": "up_proj", "w2": "down_proj",
}  # fmt: skip


@dataclass(frozen=True)
class BlockTensor:
    """One matrix of a block in a file.

    Attributes:
        kind: path inside the block, e.g. ``mlp.experts.3.up_proj``.
        tensor: what to read: the tensor of that name, or the part of it of this shape and size.
        offset: bytes of the tensor before that part.
        turned: it is stored as [in, out].
        columns: what to take of it, as ``slice`` takes it; None for all.
    """

    kind: str
    tensor: TensorHeader
    offset: int = 0
    turned: bool = False
    columns: tuple[int | None, int | None, int | None] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """[out, in]"""
        rows, columns = self.tensor.shape
        if self.columns is not None:
            columns = len(range(*slice(*self.columns).indices(columns)))
        return (columns, rows) if self.turned else (rows, columns)


def block_tensors(
    tensors: Sequence[TensorHeader], config: Mapping[str, Any] | None = None
) -> dict[int, list[BlockTensor]]:
    """The linears of every numbered block, by the tensors' names.

    The blocks are those tensors ``<prefix>.<number>.<kind>`` whose common prefix covers most parameters.

    Args:
        tensors: what the files hold.
        config: of the language model, as far as it is known.
    """
    config = config or {}
    groups: dict[str, dict[int, list[BlockTensor]]] = defaultdict(lambda: defaultdict(list))
    for tensor in tensors:
        match = _NUMBERED.fullmatch(tensor.name)
        if match:
            prefix, number, kind = match.group(1), int(match.group(2)), match.group(3)
            groups[prefix][number] += _matrices(tensor, kind, config)
    text = {prefix: found for prefix, found in groups.items() if not _TOWER.search(prefix)}
    largest = max((text if any(map(_elements, text.values())) else groups).values(), key=_elements, default={})
    last = next((value for name in _COUNTS if isinstance(value := config.get(name), int)), math.inf)
    return {block: _without_routers(found) for block, found in sorted(largest.items()) if found and block < last}


def coverage_of(
    tensors: Sequence[TensorHeader], blocks: Mapping[int, Sequence[BlockTensor]]
) -> dict[str, tuple[int, int]]:
    """What of the blocks can be compressed, by part; all tensors under the blocks' own prefix count."""
    first = next((matrix for found in blocks.values() for matrix in found), None)
    match = first and _NUMBERED.fullmatch(first.tensor.name)
    if not match:
        return {}
    every = []
    for tensor in tensors:
        own = _NUMBERED.fullmatch(tensor.name)
        matrix = len(tensor.shape) in (2, 3) and min(tensor.shape[-2:]) > 1  # what has more is a table that was saved
        if own and own.group(1) == match.group(1) and int(own.group(2)) in blocks and matrix:
            every.append((own.group(3), tensor.numel))
    matrices = (matrix for found in blocks.values() for matrix in found if min(matrix.shape) > 1)
    return count_coverage(every, ((matrix.kind, math.prod(matrix.shape)) for matrix in matrices))


_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


def _elements(blocks: Mapping[int, Sequence[BlockTensor]]) -> int:
    return sum(math.prod(matrix.shape) for found in blocks.values() for matrix in found)


def _matrices(tensor: TensorHeader, kind: str, config: Mapping[str, Any]) -> Iterator[BlockTensor]:
    """The matrices that one tensor of a block holds."""
    weight = kind.endswith(".weight")
    kind = kind.removesuffix(".weight")
    if _NEVER_CALLED.search(kind):
        return
    if len(tensor.shape) == 2 and weight:
        yield BlockTensor(kind, tensor)
    elif len(tensor.shape) == 3 and min(tensor.shape[1:]) > 1 and _STACK.search(kind):
        yield from _stacked(tensor, kind, config)
    elif len(tensor.shape) == 2 and kind.endswith(("experts.mlp.w1", "experts.mlp.v1", "experts.mlp.w2")):
        yield from _below_each_other(tensor, kind, config)


def _stacked(tensor: TensorHeader, kind: str, config: Mapping[str, Any]) -> Iterator[BlockTensor]:
    """Experts of [experts, out, in] or [experts, in, out]; gate and up in one are two matrices."""
    path, _, leaf = kind.rpartition(".")
    if config.get("model_type") == "jetmoe":  # keeps both as one, as its linears do
        path, leaf, name = kind, "", ""
    else:
        path = path if leaf not in ("input_linear", "output_linear") else f"{path}.experts".removeprefix(".")
        name = _NAMED.get(leaf, leaf)
    turned = _is_turned(tensor.shape[1:], name or kind, config)
    for number in range(tensor.shape[0]):
        whole = BlockTensor(f"{path}.{number}.{name}".rstrip("."), tensor, turned=turned)
        one = _part(whole, number, tensor.shape[0], tensor.shape[1:])
        if name != "gate_up_proj":
            yield one
            continue
        for side, half in enumerate(("gate_proj", "up_proj")):
            yield replace(_half(one, side, config), kind=f"{path}.{number}.{half}")


def _half(both: BlockTensor, side: int, config: Mapping[str, Any]) -> BlockTensor:
    rows, columns = both.tensor.shape
    if not both.turned:
        return _part(both, side, 2, (rows // 2, columns))
    half = columns // 2
    in_turn = config.get("model_type") in _IN_TURN
    return replace(both, columns=(side, None, 2) if in_turn else (side * half, (side + 1) * half, None))


def _below_each_other(tensor: TensorHeader, kind: str, config: Mapping[str, Any]) -> Iterator[BlockTensor]:
    """DBRX: the experts of a block in one matrix, all [width, hidden]."""
    inner = config.get("ffn_config")
    count = (inner.get("moe_num_experts") if isinstance(inner, dict) else None) or 1
    path, _, leaf = kind.rpartition(".mlp.")
    for number in range(count):
        whole = BlockTensor(f"{path}.{number}.{_NAMED[leaf]}", tensor, turned=leaf == "w2")
        yield _part(whole, number, count, (tensor.shape[0] // count, tensor.shape[1]))


def _part(whole: BlockTensor, number: int, count: int, shape: Sequence[int]) -> BlockTensor:
    """One of equal parts that follow each other."""
    tensor = whole.tensor
    size = tensor.bytes // count
    piece = TensorHeader(tensor.name, tuple(shape), tensor.dtype, size)
    return replace(whole, tensor=piece, offset=whole.offset + number * size)


def _is_turned(shape: Sequence[int], name: str, config: Mapping[str, Any]) -> bool:
    hidden = config.get("hidden_size")
    inputs_first = "down" not in name and "output" not in name
    rows, columns = shape
    if isinstance(hidden, int) and rows != columns and hidden in (rows, columns):
        return (rows == hidden) == inputs_first
    return config.get("model_type") in _TURNED


def _without_routers(found: Sequence[BlockTensor]) -> list[BlockTensor]:
    """Without the matrix that has a row for every expert of its block."""
    numbers = {int(part) for matrix in found for part in matrix.kind.split(".") if part.isdecimal()}
    counts = {len(numbers), max(numbers, default=-1) + 1} if numbers else set()
    return [
        matrix
        for matrix in found
        if not (matrix.shape[0] in counts and _ROUTER.search(matrix.kind) and "shared" not in matrix.kind)
    ]
