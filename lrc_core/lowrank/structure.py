"""Smaller linears: a pruned structure put on a model and taken off again, and the file that describes it.

The safetensors file of a plan holds, of every linear that changes, ``<layer>.rows`` and ``<layer>.columns`` (int32,
what is kept, ascending; absent where all are) and ``<layer>.weight`` (updated weight [rows, columns]; absent where the
original's stand), and of every attention module that loses heads ``<module>.heads`` = [groups kept, groups had].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lrc_core.budget import Shapes
from lrc_core.errors import PlanError
from lrc_core.files import write_tensors
from lrc_core.lowrank.apply import require_unaltered
from lrc_core.models.blocks.linears import bias_of, get_module, swapped, weight_of
from lrc_core.types import LinearShape, Structure

STRUCTURE_FILE = "structure.safetensors"
_REMEDY = "Allocate again, or copy the file once more from the run that made it."


@contextmanager
def restructured(
    model: nn.Module, structure: Structure, weights: Mapping[str, Tensor] | None = None
) -> Iterator[nn.Module]:
    """The model with pruned linears swapped in; the very same modules are put back at the end.

    Biases lose the rows that their weights lose and are never updated. An attention module that loses heads is told
    how many it has left: its integer attributes that end in "head" or "heads" shrink with them.

    Args:
        structure: what is left of which linears.
        weights: updated weights by layer, [rows, columns] as the structure leaves them.
    """
    updated = weights or {}
    rows, columns = structure.rows, structure.columns
    smaller = (
        (name, _cut(get_module(model, name), rows.get(name), columns.get(name), updated.get(name)))
        for name in sorted({*rows, *columns, *updated})
    )
    counts: list[tuple[nn.Module, str, int]] = []
    with swapped(model, smaller):
        try:
            for name, (kept, had) in structure.heads.items():
                module = get_module(model, name)
                for attribute, count in _head_counts(module, had).items():
                    counts.append((module, attribute, count))
                    setattr(module, attribute, count * kept // had)
            yield model
        finally:
            for module, attribute, count in counts:
                setattr(module, attribute, count)


def _head_counts(module: nn.Module, had: int) -> dict[str, int]:
    """Attributes that count heads; most families read the number of heads off the shapes and need none."""
    return {
        name: value
        for name, value in vars(module).items()
        if name.endswith(("head", "heads")) and type(value) is int and value > 0 and value % had == 0
    }


def _cut(
    module: nn.Module, rows: Sequence[int] | None, columns: Sequence[int] | None, weight: Tensor | None
) -> nn.Module:
    """A linear of the same class, dtype and device with some rows and columns only."""
    old, bias = weight_of(module).detach(), bias_of(module)
    if weight is None:
        weight = _chosen(_chosen(old, 0, rows), 1, columns)
    weight = weight.to(old.device, old.dtype)
    smaller: nn.Linear | Conv1D
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced at once
        if isinstance(module, Conv1D):
            smaller = Conv1D(weight.shape[0], weight.shape[1])
            weight = weight.T
        else:
            smaller = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    smaller.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    if bias is not None:
        smaller.bias = nn.Parameter(_chosen(bias.detach(), 0, rows).clone(), requires_grad=False)
    return smaller.train(module.training)


def _chosen(tensor: Tensor, axis: int, index: Sequence[int] | None) -> Tensor:
    if index is None:
        return tensor
    return tensor.index_select(axis, torch.as_tensor(list(index), dtype=torch.long, device=tensor.device))


def write_structure(path: Path, structure: Structure, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write the structure file of a plan, in one step."""
    tensors = {f"{name}.rows": torch.tensor(kept, dtype=torch.int32) for name, kept in structure.rows.items()}
    tensors |= {f"{name}.columns": torch.tensor(kept, dtype=torch.int32) for name, kept in structure.columns.items()}
    tensors |= {f"{name}.heads": torch.tensor(counts, dtype=torch.int32) for name, counts in structure.heads.items()}
    tensors |= {f"{name}.weight": weight for name, weight in (weights or {}).items()}
    write_tensors(path, tensors)


def read_structure(
    path: Path, layers: Sequence[LinearShape], shapes: Shapes | None = None, digest: str = ""
) -> tuple[Structure, dict[str, Tensor]]:
    """Read and check the structure file of a plan.

    Args:
        layers: the model's block linears.
        shapes: what the plan says is left of its pruned layers; None to believe the file.
        digest: SHA-256 of the file as the plan has it; "" where it has none.

    Returns:
        The structure, and updated weights by layer.

    Raises:
        PlanError: the file is missing, damaged, or does not fit the model or the plan; names the layer.
    """
    require_unaltered(path, digest)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise PlanError(f"The plan's structure {path} cannot be read: {error}.", _REMEDY) from error
    parts: dict[str, dict[str, Tensor]] = {"rows": {}, "columns": {}, "heads": {}, "weight": {}}
    for key, tensor in tensors.items():
        name, _, part = key.rpartition(".")
        if part not in parts:
            raise PlanError(f"The plan's structure {path} holds {key}, which is none of its parts.", _REMEDY)
        parts[part][name] = tensor
    known = {layer.name: layer for layer in layers}
    for name in {*parts["rows"], *parts["columns"], *parts["weight"]}:
        if name not in known:
            raise PlanError(f"The plan's structure {path} prunes {name}, which the model does not have.")
    structure = Structure(
        {name: _index(path, name, kept, known[name].out_features) for name, kept in parts["rows"].items()},
        {name: _index(path, name, kept, known[name].in_features) for name, kept in parts["columns"].items()},
        {name: _heads(path, name, counts) for name, counts in parts["heads"].items()},
    )
    found = structure.shapes(layers)
    _check_shapes(path, found, found if shapes is None else shapes)
    for name, weight in parts["weight"].items():
        expected = found.get(name, (known[name].out_features, known[name].in_features))
        if tuple(weight.shape) != tuple(expected) or not weight.is_floating_point():
            raise PlanError(f"The updated weight of {name} in {path} is not {expected[0]} x {expected[1]}.", _REMEDY)
    return structure, parts["weight"]


def _index(path: Path, name: str, kept: Tensor, size: int) -> tuple[int, ...]:
    values = kept.tolist() if kept.ndim == 1 and not kept.is_floating_point() else []
    if not values or sorted(set(values)) != values or not 0 <= values[0] <= values[-1] < size:
        raise PlanError(f"The kept rows or columns of {name} in {path} cannot be those of {size}.", _REMEDY)
    return tuple(values)


def _heads(path: Path, name: str, counts: Tensor) -> tuple[int, int]:
    values = counts.tolist() if counts.shape == (2,) else []
    if not values or not 1 <= values[0] <= values[1]:
        raise PlanError(f"The kept heads of {name} in {path} cannot be.", _REMEDY)
    return int(values[0]), int(values[1])


def _check_shapes(path: Path, found: Shapes, wanted: Shapes) -> None:
    """The file and plan.json must speak of the same pruning."""
    for name in {*found, *wanted}:
        if tuple(found.get(name, ())) != tuple(wanted.get(name, ())):
            raise PlanError(f"The structure file {path} and its plan disagree about what is left of {name}.", _REMEDY)
