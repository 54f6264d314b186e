"""What of a compressed model goes on the disk, under which names: the format that :mod:`lrc_core.hf` loads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.core_model_loading import revert_weight_conversion
from transformers.modeling_utils import remove_tied_weights_from_state_dict
from transformers.pytorch_utils import Conv1D

from lrc_core.errors import ModelError
from lrc_core.hf.experts import unstack
from lrc_core.lowrank.linear import LowRankLinear, PivotedLinear
from lrc_core.lowrank.pivots import rows_in_order
from lrc_core.lowrank.rounding import Packed, packed_in
from lrc_core.models.onload.residence import Residence
from lrc_core.types import Storage

_LOW = (LowRankLinear, PivotedLinear)
_RENAMED = {"left": "weight", "right": "weight_in", "coefficients": "weight", "rows": "weight_in"}
"""Factors by their names in files. The stock name for the left one is deliberate: whoever loads the folder without
knowing the format meets a weight of the wrong shape, and not a layer that is made up."""


@dataclass(frozen=True)
class Stored:
    """A model as it is written.

    Attributes:
        tensors: by name in the files, tied ones once.
        layout: what the loader needs: ``storage``, ``ranks``, ``pairs``, ``packed``, ``pruned``, ``attributes``;
            empty where every layer has its stock shape.
    """

    tensors: Mapping[str, Tensor]
    layout: Mapping[str, Any]

    @property
    def bytes(self) -> int:
        """Of all tensors."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())


@dataclass(frozen=True)
class Stock:
    """What is remembered of the dense model before a plan is put on it.

    Attributes:
        shapes: [out, in] of every linear.
        transposed: names of linears that store [in, out].
        numbers: whole-number attributes of every module.
        experts: names of modules whose experts were taken out of their stacks, see :mod:`lrc_core.hf.experts`.
    """

    shapes: Mapping[str, tuple[int, int]]
    transposed: Collection[str]
    numbers: Mapping[str, Mapping[str, int]]
    experts: Collection[str] = ()


def stock_of(model: nn.Module) -> Stock:
    """Look at the dense model.

    Raises:
        ModelError: it runs code of its own.
    """
    if type(model).__module__.startswith("transformers_modules"):
        raise ModelError(
            f"{type(model).__name__} runs code that came with the model, which cannot be exported yet.",
            "Architectures that transformers knows itself can be.",
        )
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    transposed = {name for name, module in linears.items() if isinstance(module, Conv1D)}
    shapes = {
        name: (module.weight.shape[1], module.weight.shape[0]) if name in transposed else tuple(module.weight.shape)
        for name, module in linears.items()
    }
    experts = [name for name, module in model.named_modules() if "forward" in vars(module)]
    return Stock(shapes, transposed, {name: _numbers(module) for name, module in model.named_modules()}, experts)


def _numbers(module: nn.Module) -> dict[str, int]:
    return {key: value for key, value in vars(module).items() if type(value) is int and not key.startswith("_")}


Wanted = Callable[[str], bool]
"""Whether a tensor of that name in the model is to be written."""


def as_stored(model: Any, stock: Stock, storage: Storage, wanted: Wanted) -> Stored:
    """The model as it is now, or a part of it: low-rank layers as two matrices, rounded ones as blocks of bytes.

    Args:
        model: with a plan on it.
        stock: what it was before.
    """
    low = {name: module for name, module in model.named_modules() if isinstance(module, _LOW)}
    packed = {name: found for name, module in model.named_modules() if (found := packed_in(module))}
    tensors = {
        _name_in_file(key, low): _as_packed(key, tensor, packed)
        for key, tensor in model.state_dict().items()
        if wanted(key)
    }
    layout: dict[str, Any] = {}
    if low:
        pairs = [name for name, module in low.items() if isinstance(module, LowRankLinear)]
        layout |= {"storage": storage, "ranks": {name: module.rank for name, module in low.items()}}
        layout |= {"pairs": pairs} if pairs and storage == "pivoted" else {}
    if packed:
        layout |= {"packed": {name: found.form.name for name, found in packed.items()}}
    if pruned := _pruned(model, stock):
        layout |= {"pruned": pruned, "attributes": _attributes(model, stock)}
    if stock.experts:
        return Stored(_single(model, tensors), {**layout, "experts": list(stock.experts)})
    return Stored(_as_in_files(model, tensors), layout)


def densified(model: Any, stock: Stock, wanted: Wanted) -> Stored:
    """The model, or a part of it, with low-rank layers multiplied out, in the stock shapes; products are in float64."""
    low = {name: module for name, module in model.named_modules() if isinstance(module, _LOW)}
    tensors = {}
    for key, tensor in filter(lambda one: wanted(one[0]), model.state_dict().items()):
        name, _, part = key.rpartition(".")
        if name not in low or part == "bias":
            tensors[key] = tensor
        elif _RENAMED.get(part) == "weight":
            weight = _product(low[name])
            tensors[f"{name}.weight"] = (weight.T if name in stock.transposed else weight).contiguous()
    return Stored(_as_in_files(model, _stacked(model, stock, tensors)), {})


@torch.no_grad()
def _stacked(model: Any, stock: Stock, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with experts in their stacks: empty stacks are taken apart as the model's were, and filled."""
    if stock.experts:
        with torch.device("meta"):
            empty = type(model)(model.config).to(model.dtype)
        for name in stock.experts:
            module = empty.get_submodule(name).to_empty(device="cpu")
            stacks = {f"{name}.{key}": stack.data for key, stack in module.named_parameters()}
            unstack(module)
            for key, part in module.named_parameters():
                part.copy_(tensors[f"{name}.{key}"])
            tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(f"{name}.")} | stacks
    return tensors


def stored_parts(residence: Residence, make: Callable[[Wanted], Stored]) -> Iterator[Stored]:
    """A model whose blocks are brought in one after the other: first what stands outside them, then block by block."""
    yield make(lambda name: not name.startswith(f"{residence.prefix}."))
    for index in range(residence.count):
        residence.bring(index)
        yield make(_starts(f"{residence.prefix}.{index}."))


def _starts(prefix: str) -> Wanted:
    return lambda name: name.startswith(prefix)


def _product(module: LowRankLinear | PivotedLinear) -> Tensor:
    """The matrix [m, n] that a layer stands for."""
    if isinstance(module, LowRankLinear):
        return (module.left.double() @ module.right.double()).to(module.left.dtype)
    combined = (module.coefficients.double() @ module.rows.double()).to(module.rows.dtype)
    return rows_in_order(torch.cat([module.rows, combined]), module.places)


def _name_in_file(key: str, low: Collection[str]) -> str:
    name, _, part = key.rpartition(".")
    return f"{name}.{_RENAMED.get(part, part)}" if name in low else key


def _as_packed(key: str, tensor: Tensor, packed: Mapping[str, Packed]) -> Tensor:
    name, _, part = key.rpartition(".")
    return packed[name].parts.get(part, tensor) if name in packed else tensor


def _as_in_files(model: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tied tensors once, and names as the base model's own files have them."""
    found: dict[str, Tensor] = revert_weight_conversion(model, _single(model, tensors))
    return {name: tensor.detach() for name, tensor in found.items()}


def _single(model: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = remove_tied_weights_from_state_dict(tensors, model)
    return {name: tensor.detach() for name, tensor in found.items()}


def _pruned(model: nn.Module, stock: Stock) -> dict[str, list[int]]:
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D):
            rows, columns = reversed(module.weight.shape) if isinstance(module, Conv1D) else module.weight.shape
            if (rows, columns) != stock.shapes[name]:
                found[name] = [rows, columns]
    return found


def _attributes(model: nn.Module, stock: Stock) -> dict[str, dict[str, int]]:
    """Numbers of modules that are other ones now, those of linears aside, which follow from their shapes."""
    found = {}
    for name, module in model.named_modules():
        if name in stock.shapes:
            continue
        before = stock.numbers.get(name, {})
        if changed := {key: value for key, value in _numbers(module).items() if before.get(key) != value}:
            found[name] = changed
    return found


@torch.no_grad()
def put_in_own_memory(model: nn.Module) -> None:
    """Copy every tensor into memory of its own: products of weights that lie in a mapped file, at whatever address,
    may differ in the last bit.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
