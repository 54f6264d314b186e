"""Which rows and columns of a block's linears belong together: attention heads and MLP channels, found by structure.

Two linears are coupled where what one writes is all that the other reads (DepGraph, arXiv 2301.12900; LLM-Pruner, arXiv
2305.11627, section 3.1). Instead of tracing the graph, one forward pass records what every linear reads, and shapes
propose how units are laid out. Each proposal is then tried: units dropped on both sides must give what the model gives
with their columns set to zero. A layout that the family's code does not follow fails that trial and is not offered.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lrc_core.lowrank.structure import restructured
from lrc_core.models.blocks.hooks import hooked
from lrc_core.models.blocks.linears import get_module, weight_of
from lrc_core.types import LinearShape, Structure

Index = NDArray[np.int64]
_PROBE = (2, 12)  # tokens that layouts are tried on: enough for attention to look back
_TOLERANCE = 0.2  # of the effect of dropping half the units: above rounding in bfloat16, far below any wrong layout


@dataclass(frozen=True)
class CoupledUnits:
    """The units of one attention module or MLP, each a set of rows and columns that can only go together.

    Attributes:
        name: full name of the module that holds the linears, e.g. ``model.layers.3.mlp``; the block's own name where
            the block holds them itself.
        kind: ``heads`` (a key/value head with all its query heads) or ``channels``.
        block: index of the decoder block.
        count: number of units.
        rows: for every linear that writes the units [count, width]: rows of each unit.
        columns: for the linear that reads them, likewise: columns of each unit.
    """

    name: str
    kind: str
    block: int
    count: int
    rows: Mapping[LinearShape, Index]
    columns: Mapping[LinearShape, Index]

    @property
    def params(self) -> int:
        """Parameters that one unit costs."""
        written = sum(index.shape[1] * layer.in_features for layer, index in self.rows.items())
        return written + sum(index.shape[1] * layer.out_features for layer, index in self.columns.items())


def structure_of(kept: Iterable[tuple[CoupledUnits, Sequence[int]]]) -> Structure:
    """The structure that keeps the given units of every set, in their order; sets that lose none are left whole."""
    rows: dict[str, tuple[int, ...]] = {}
    columns: dict[str, tuple[int, ...]] = {}
    heads: dict[str, tuple[int, int]] = {}
    for units, chosen in kept:
        if len(chosen) == units.count:
            continue
        for target, members in ((rows, units.rows), (columns, units.columns)):
            for layer, index in members.items():
                target[layer.name] = tuple(int(i) for i in np.sort(index[np.asarray(chosen, dtype=int)].ravel()))
        if units.kind == "heads":
            heads[units.name] = (len(chosen), units.count)
    return Structure(rows, columns, heads)


@torch.no_grad()
def coupled_units(model: nn.Module, layers: Sequence[LinearShape]) -> tuple[CoupledUnits, ...]:
    """All heads and channels that can be pruned, block by block; modules whose layout is unknown are left out.

    Args:
        model: a causal language model; left as it was found.
    """
    vocabulary = int(model.get_input_embeddings().num_embeddings)  # type: ignore[operator]
    device = next(model.parameters()).device
    tokens = ((7 * torch.arange(math.prod(_PROBE)) + 3) % vocabulary).view(_PROBE).to(device)
    with _reads(model, layers) as reads:
        dense = _logits(model, tokens)
    proposals: dict[str, dict[str, list[CoupledUnits]]] = defaultdict(lambda: defaultdict(list))
    for name, members in _modules(layers, reads).items():
        path = members[0].kind.rpartition(".")[0]  # the same module in every block
        for layout, units in _layouts(name, members, _kv_groups(model)):
            proposals[path][layout].append(units)
    found: list[CoupledUnits] = []
    for layouts in proposals.values():
        found += next((units for units in layouts.values() if _is_sound(model, tokens, dense, units)), [])
    return tuple(sorted(found, key=lambda units: (units.block, units.name)))


def _kv_groups(model: nn.Module) -> int:
    config = model.config.get_text_config()  # type: ignore[operator,union-attr]
    groups = getattr(config, "num_key_value_heads", None) or getattr(config, "num_attention_heads", 1)
    return groups if isinstance(groups, int) else 1  # a list, one per block: heads of such models are not offered


def _logits(model: nn.Module, tokens: Tensor) -> Tensor:
    found: Tensor = model(input_ids=tokens, use_cache=False).logits
    return found.float()


# -- what belongs together -----------------------------------------------------------------------------------------


@contextmanager
def _reads(model: nn.Module, layers: Sequence[LinearShape]) -> Iterator[dict[str, Tensor]]:
    """What every linear read during the forward passes inside the context, in the order of the calls."""
    reads: dict[str, Tensor] = {}  # held until the end, so that no two share an address

    def hook(name: str) -> Any:
        def on_forward(_: nn.Module, args: tuple[Any, ...]) -> None:
            if args:
                reads.setdefault(name, args[0])

        return on_forward

    with hooked(get_module(model, layer.name).register_forward_pre_hook(hook(layer.name)) for layer in layers):
        yield reads


def _modules(layers: Sequence[LinearShape], reads: Mapping[str, Tensor]) -> dict[str, list[LinearShape]]:
    """Linears by the module that holds them, as called: those that read the same thing, then the one that reads them.

    Modules of any other form are left out.
    """
    order = {name: place for place, name in enumerate(reads)}
    modules: dict[str, list[LinearShape]] = defaultdict(list)
    for layer in layers:
        modules[layer.name.rpartition(".")[0]].append(layer)
    found = {}
    for name, members in modules.items():
        if len(members) < 2 or not all(member.name in order for member in members):
            continue
        called = sorted(members, key=lambda member: order[member.name])
        places = [_place(reads[member.name]) for member in called]
        if len(set(places[:-1])) == 1 and places[-1] != places[0]:
            found[name] = called
    return found


def _place(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.data_ptr(), tuple(tensor.shape)


# -- how units are laid out ----------------------------------------------------------------------------------------


def _layouts(name: str, members: Sequence[LinearShape], groups: int) -> Iterator[tuple[str, CoupledUnits]]:
    """Proposals for one module, the likeliest first."""
    *writers, reader = members
    width = reader.in_features
    if len(writers) <= 2 and all(writer.out_features == width for writer in writers):
        yield "channels", _units(name, "channels", width, writers, reader)
    if len(writers) == 1 and writers[0].out_features == 2 * width:  # gate and up in one matrix, one after the other
        halves = np.stack([np.arange(width), width + np.arange(width)], axis=1)
        yield "two halves", _units(name, "channels", width, writers, reader, {writers[0]: halves})
    divides = all(writer.out_features % groups == 0 for writer in writers) and width % groups == 0
    if len(writers) in (1, 3) and groups > 1 and divides:  # query, key and value apart, or fused head by head
        yield "heads", _units(name, "heads", groups, writers, reader)


def _units(
    name: str,
    kind: str,
    count: int,
    writers: Sequence[LinearShape],
    reader: LinearShape,
    rows: Mapping[LinearShape, Index] | None = None,
) -> CoupledUnits:
    """Units that are runs of neighbouring rows and columns, unless ``rows`` says otherwise."""
    return CoupledUnits(
        name,
        kind,
        reader.block,
        count,
        rows or {writer: np.arange(writer.out_features).reshape(count, -1) for writer in writers},
        {reader: np.arange(reader.in_features).reshape(count, -1)},
    )


def _is_sound(model: nn.Module, tokens: Tensor, dense: Tensor, proposed: Sequence[CoupledUnits]) -> bool:
    """Whether dropping half of the units is the same as setting their columns to zero, in all blocks at once."""
    kept = [(units, range(max(1, units.count // 2), units.count)) for units in proposed if units.count > 1]
    zeroed = {}
    for units, chosen in kept:
        for layer, index in units.columns.items():
            weight = weight_of(get_module(model, layer.name)).detach().clone()
            dropped = np.setdiff1d(np.arange(units.count), chosen)
            weight[:, torch.as_tensor(index[dropped].ravel(), device=weight.device)] = 0
            zeroed[layer.name] = weight
    with restructured(model, Structure(), zeroed):
        expected = _logits(model, tokens)
    try:
        with restructured(model, structure_of(kept)):
            found = _logits(model, tokens)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # a family's own code raises whatever it likes over shapes it does not expect
        return False
    if found.shape != expected.shape:
        return False
    return bool((found - expected).norm() <= _TOLERANCE * (expected - dense).norm())
