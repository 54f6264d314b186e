"""What the tests of decompositions and allocators share: factors, windows, cards and contexts of tiny models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import lrc_core.decompose  # noqa: F401  registers the decompositions
from lrc_core.allocate.protocol import Context
from lrc_core.calibrate.gradients import block_gradients
from lrc_core.calibrate.moments import block_statistics
from lrc_core.decompose.factorise import Factors, InputStatistics, factorise
from lrc_core.models.blocks.linears import block_linears, get_module, weight_of
from lrc_core.registry import DECOMPOSITIONS
from lrc_core.types import LinearShape, ModelCard, ModelIdentity
from tests.factories.tiny_models import BLOCKS, HIDDEN, POSITIONS, VOCAB


class MemoryFactors:
    """Factors of every layer of a small model, held in memory."""

    def __init__(self, model: nn.Module, windows: Tensor, decomposition: str = "whitened") -> None:
        entry = DECOMPOSITIONS.get(decomposition)
        make, settings = entry.load(), entry.settings()
        self.statistics = statistics_of(model, windows, gradients=entry.statistics == "gradients")
        self.reads = 0
        self._factors = {
            layer.name: factorise(weight_of(get_module(model, layer.name)), make(self.statistics[layer.name], settings))
            for layer in block_linears(model)
        }

    def factors(self, name: str, block: int) -> Factors:
        self.reads += 1
        return self._factors[name]

    def sigma(self, name: str, block: int) -> Tensor:
        return self._factors[name].sigma


def statistics_of(model: nn.Module, windows: Tensor, *, gradients: bool = False) -> dict[str, InputStatistics]:
    """Statistics of every block linear's inputs, with those of the gradients at its outputs if asked for."""
    layers = block_linears(model)
    inputs = {index: part for index, part in block_statistics(model, layers, windows, batch=2)}
    found = {layer.name: inputs[layer.block].of(layer.name) for layer in layers}
    if not gradients:
        return found
    outputs = {
        name: part for _, block in block_gradients(model, layers, windows, batch=2) for name, part in block.items()
    }
    return {name: replace(statistics, gradient_moment=outputs[name]) for name, statistics in found.items()}


def random_windows(count: int, window: int, seed: int = 0) -> Tensor:
    """[count, window] token ids, some much more frequent than others; fewer of one seed are a beginning of more."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.rand(window, generator=generator) for _ in range(count)]
    return (3 + torch.stack(rows) ** 2 * (VOCAB - 3)).long()


def card_of(model: Any, source: str = "tiny") -> ModelCard:
    """The card of a tiny model; its fingerprint is ``source``."""
    layers = block_linears(model)
    return ModelCard(
        identity=ModelIdentity(source, "", source, type(model).__name__),
        name=source,
        params_total=sum(parameter.numel() for parameter in model.parameters()),
        params_linear=sum(layer.params for layer in layers),
        n_blocks=BLOCKS,
        hidden_size=HIDDEN,
        vocab_size=VOCAB,
        max_positions=POSITIONS,
        dtype="float32",
        dtype_bytes=4,
        device="cpu",
        layers=layers,
    )


def context_for(model: nn.Module, folder: Path, *, keep: float = 0.8, **more: Any) -> Context:
    """A context whose factors are whitened on random windows; ``more`` replaces single fields."""
    fields: dict[str, Any] = {
        "model": model,
        "layers": block_linears(model),
        "source": more.pop("source", None) or MemoryFactors(model, random_windows(8, 32, seed=1)),
        "decomposition": "whitened",
        "windows": random_windows,
        "keep": keep,
        "seed": 0,
        "checkpoint": folder / "checkpoint",
        "shared": folder / "shared",
        "common": folder / "common",
    }
    return Context(**{**fields, **more})


def modules_of(model: nn.Module) -> dict[str, int]:
    """Identity of every module by name: equal before and after means that the very same modules are in place."""
    return {name: id(module) for name, module in model.named_modules()}


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all weights."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same_state(model: nn.Module, before: dict[str, Tensor]) -> bool:
    """Whether the weights are what they were, bit for bit, and no hook is left behind."""
    now = model.state_dict()
    hooks = [
        name
        for name, module in model.named_modules()
        if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
    ]
    return not hooks and now.keys() == before.keys() and all(torch.equal(now[name], before[name]) for name in now)


def shape(name: str, rows: int, columns: int, block: int = 0) -> LinearShape:
    """A layer that exists on paper only."""
    return LinearShape(name, block, name.split(".")[-1], rows, columns)


def grid_of_shapes(sizes: Sequence[tuple[int, int]], blocks: int = 2) -> tuple[LinearShape, ...]:
    """Layers of those sizes in every block."""
    return tuple(
        shape(f"blocks.{block}.linear_{number}", rows, columns, block)
        for block in range(blocks)
        for number, (rows, columns) in enumerate(sizes)
    )
