"""The product of one layer of vLLM, which may hold several of the model's: queries, keys and values, gate and up.

All parts read the same input, so what they multiply it with lies in one matrix: input factors, pivot rows and whole
matrices one below the other. That is one launch and one pass over the input however many parts there are. Each part of
low rank then takes its own slice of the result through its second factor. One product with a block-diagonal matrix
would spare launches there, but read two or three times the bytes, nearly all of them zeros: what decoding waits for.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from vllm_lowrank.blocks import BLOCK, BLOCK_BYTES, numbers_of
from vllm_lowrank.errors import RefusedFolderError
from vllm_lowrank.folder import FolderMatrix

SHARDS = {"q": 0, "k": 1, "v": 2}
"""How vLLM calls the parts of a fused attention layer; elsewhere it counts them."""


class PartwiseProduct(nn.Module):
    """[..., n] to [..., m], the outputs of all parts one behind the other.

    Args:
        parts: in the order of their outputs.
        columns: n.
        dtype: of the matrices in memory, whatever they are packed as.
    """

    order: Tensor | None

    def __init__(self, parts: Sequence[FolderMatrix], columns: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.parts, self.columns = tuple(parts), columns
        self.inner = _empty((sum(part.inner for part in parts), columns), dtype)
        self.outer = nn.ParameterList([_empty(part.outer or (0, 0), dtype) for part in parts])
        self.register_buffer("order", None, persistent=False)
        self._pivots: dict[int, Tensor] = {}
        self._awaited = {(number, kind) for number, part in enumerate(parts) for kind in _kinds(part)}

    def take(self, kind: str, found: Tensor, shard: str | int | None = None) -> None:
        """Put one tensor of the folder in its place.

        Args:
            kind: ``weight``, ``weight_in`` or ``pivots``.
            found: as it is in the file, packed or not.
            shard: which part, as vLLM calls it; None where there is one.

        Raises:
            RefusedFolderError: it does not belong to the part, or has another shape.
        """
        number = self._number(shard)
        part = self.parts[number]
        if (number, kind) not in self._awaited:
            raise RefusedFolderError(f"{part.name}.{kind} came twice, or config.json knows nothing of it.", _AGAIN)
        self._awaited.remove((number, kind))
        if kind == "pivots":
            self._pivots[number] = _pivots(part, found)
            return
        with torch.no_grad():
            target = self._place(number, kind)
            target.copy_(_numbers(f"{part.name}.{kind}", found, part.form, target))

    def finish(self) -> None:
        """Work out where every output goes, once everything is there.

        Raises:
            RefusedFolderError: something did not come.
        """
        if self._awaited:
            number, kind = min(self._awaited)
            raise RefusedFolderError(f"The folder has no {self.parts[number].name}.{kind}.", _AGAIN)
        if self._pivots:
            self.order = self._order().to(self.inner.device)

    def forward(self, inputs: Tensor, bias: Tensor | None = None) -> Tensor:
        """[..., n] to [..., m]; ``bias`` is [m]."""
        hidden = functional.linear(inputs, self.inner)
        outputs = []
        own = hidden.split([part.inner for part in self.parts], -1)
        for part, piece, outer in zip(self.parts, own, self.outer, strict=True):
            if part.rank is None or part.pivoted:
                outputs.append(piece)
            if part.rank is not None:
                outputs.append(functional.linear(piece, outer))
        joined = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
        if self.order is not None:
            joined = joined.index_select(-1, self.order)
        return joined if bias is None else joined + bias

    def extra_repr(self) -> str:
        """Shown by print(model)."""
        return ", ".join(f"{part.name.rpartition('.')[2]}={part.rank or 'whole'}" for part in self.parts)

    def _number(self, shard: str | int | None) -> int:
        number = SHARDS.get(shard) if isinstance(shard, str) else shard or 0
        if number is None or number >= len(self.parts) or (shard is None and len(self.parts) > 1):
            raise RefusedFolderError(f"vLLM hands over part {shard!r} of a layer of {len(self.parts)} parts.")
        return number

    def _place(self, number: int, kind: str) -> Tensor:
        part = self.parts[number]
        if kind == "weight" and part.rank is not None:
            return self.outer[number]
        start = sum(before.inner for before in self.parts[:number])
        return self.inner[start : start + part.inner]

    def _order(self) -> Tensor:
        """For every output of the layer its place among the outputs as they are computed."""
        found, start = [], 0
        for number, part in enumerate(self.parts):
            rows = torch.arange(part.rows)
            if (pivots := self._pivots.get(number)) is not None:
                others = torch.ones(part.rows, dtype=torch.bool)
                others[pivots] = False
                rows = torch.cat([pivots, others.nonzero()[:, 0]]).argsort()
            found.append(rows + start)
            start += part.rows
        return torch.cat(found)


_AGAIN = "Copy or export the folder again."


def _empty(shape: tuple[int, int], dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape, dtype=dtype), requires_grad=False)


def _kinds(part: FolderMatrix) -> tuple[str, ...]:
    if part.rank is None:
        return ("weight",)
    return ("weight", "weight_in", "pivots") if part.pivoted else ("weight", "weight_in")


def _pivots(part: FolderMatrix, found: Tensor) -> Tensor:
    pivots = found.long().cpu()
    if pivots.shape != (part.rank,) or len(set(pivots.tolist()) & set(range(part.rows))) != part.rank:
        raise RefusedFolderError(f"{part.name}.pivots are not {part.rank} of {part.rows} rows.", _AGAIN)
    return pivots


def _numbers(name: str, found: Tensor, form: str, target: Tensor) -> Tensor:
    rows, width = target.shape
    wanted = (rows, -(-width // BLOCK), BLOCK_BYTES[form]) if form else (rows, width)
    if tuple(found.shape) != wanted or (found.dtype == torch.uint8) != bool(form):
        raise RefusedFolderError(f"{name} is {list(found.shape)} where config.json promises {list(wanted)}.", _AGAIN)
    return numbers_of(found, form, width) if form else found
