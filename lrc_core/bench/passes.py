"""Reading a prompt and writing tokens after it, as actions that can be repeated and timed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import DynamicCache, StaticCache

from lrc_core.bench.limits import Need
from lrc_core.errors import EvaluationError
from lrc_core.models.blocks.linears import block_linears

STEPS = 4
"""Tokens that are written after one another in a turn."""
PREFILL, DECODE = "prefill", "decode"
PHASES = (PREFILL, DECODE)
EAGER, COMPILE, GRAPHS = "eager", "compile", "graphs"
_COMPILED = {COMPILE: "default", GRAPHS: "reduce-overhead"}
Layers = Sequence[tuple[Tensor, Tensor]]
"""Keys and values of every layer, [batch, heads, tokens, width]."""


@dataclass(frozen=True)
class Workload:
    """One place of the grid.

    Attributes:
        mode: one of :data:`EAGER`, :data:`COMPILE`, :data:`GRAPHS`.
        phase: one of :data:`PHASES`.
        batch: sequences at once.
        prompt: tokens that are read, or lie in the cache already.
    """

    mode: str
    phase: str
    batch: int
    prompt: int

    @property
    def tokens(self) -> int:
        """Of one pass: a whole prompt, or one token of every sequence."""
        return self.batch * (self.prompt if self.phase == PREFILL else 1)

    @property
    def passes(self) -> int:
        """Of one turn."""
        return 1 if self.phase == PREFILL else STEPS


class Timed(Protocol):
    """What is timed."""

    def ready(self) -> None:
        """Make it ready for another turn; not timed."""

    def run(self) -> None:
        """The turn itself."""


def timed(model: nn.Module, cell: Workload, seed: Layers) -> Timed:
    """The passes of a cell on a model.

    Args:
        seed: see :func:`cache_seed`.
    """
    run = model
    if cell.mode != EAGER:
        torch._dynamo.reset()  # a limit of compiled forms holds for one model of a class, not for several
        run = torch.compile(model, mode=_COMPILED[cell.mode], dynamic=False)  # type: ignore[assignment]
    last_only = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}

    def forward(ids: Tensor, **more: Any) -> None:
        if cell.mode == GRAPHS:
            torch.compiler.cudagraph_mark_step_begin()
        run(input_ids=ids, use_cache=True, **last_only, **more)

    device = next(model.parameters()).device
    if cell.phase == PREFILL:
        return _Reading(forward, torch.ones(cell.batch, cell.prompt, dtype=torch.long, device=device))
    ids = torch.ones(cell.batch, 1, dtype=torch.long, device=device)
    if cell.mode == EAGER:
        return _Writing(forward, ids, seed, cell)
    return _WritingInPlace(forward, ids, _static(model, seed, cell), cell)


def cache_seed(model: nn.Module) -> Layers:
    """Keys and values of one token, from which caches of any size are made: what they hold does not matter for speed.

    Raises:
        EvaluationError: the model keeps no cache of keys and values.
    """
    ids = torch.ones(1, 1, dtype=torch.long, device=next(model.parameters()).device)
    cache = getattr(model(input_ids=ids, use_cache=True), "past_key_values", None)
    layers = [(getattr(layer, "keys", None), getattr(layer, "values", None)) for layer in getattr(cache, "layers", ())]
    found = [(keys, values) for keys, values in layers if keys is not None and values is not None]
    if not found or len(found) != len(layers):
        raise EvaluationError(
            f"{type(model).__name__} keeps no key-value cache, so its speed cannot be measured at a length.",
            "`lrc evaluate` times it as it is.",
        )
    return found


def cache_bytes(seed: Layers, cell: Workload) -> int:
    """Bytes of the cache of a cell."""
    return cell.batch * cell.prompt * sum(part.numel() * part.element_size() for pair in seed for part in pair)


@dataclass
class _Reading:
    forward: Callable[..., None]
    ids: Tensor

    def ready(self) -> None:
        """Nothing is left of the last turn."""

    def run(self) -> None:
        self.forward(self.ids)


class _Writing:
    """With a cache that grows, as transformers has it unless told otherwise."""

    def __init__(self, forward: Callable[..., None], ids: Tensor, seed: Layers, cell: Workload) -> None:
        self._forward, self._ids, self._seed, self._cell = forward, ids, seed, cell
        self._cache = DynamicCache()

    def ready(self) -> None:
        self._cache = DynamicCache()
        size = (self._cell.batch, -1, self._cell.prompt, -1)
        for number, (keys, values) in enumerate(self._seed):
            self._cache.update(keys.expand(size), values.expand(size), number)

    def run(self) -> None:
        for _ in range(STEPS):
            self._forward(self._ids, past_key_values=self._cache)


class _WritingInPlace:
    """With a cache of fixed size and place, which compiled models need."""

    def __init__(self, forward: Callable[..., None], ids: Tensor, cache: StaticCache, cell: Workload) -> None:
        self._forward, self._ids, self._cache, self._prompt = forward, ids, cache, cell.prompt

    def ready(self) -> None:
        for layer in self._cache.layers:
            layer.cumulative_length.fill_(self._prompt)

    def run(self) -> None:
        for _ in range(STEPS):
            self._forward(self._ids, past_key_values=self._cache)


def _static(model: nn.Module, seed: Layers, cell: Workload) -> StaticCache:
    cache = StaticCache(config=model.config, max_cache_len=cell.prompt + STEPS)
    heads, widths = ([keys.shape[place] for keys, _ in seed] for place in (1, 3))
    keys = seed[0][0]
    cache.early_initialization(cell.batch, heads, widths, keys.dtype, keys.device)
    return cache


def need_of(model: nn.Module, cell: Workload, seed: Layers, launches: int) -> Need:
    """What one pass of a cell needs of a model; of attention every pair of positions is counted, as kernels do.

    Args:
        model: in any form.
        seed: see :func:`cache_seed`.
        launches: operations of one pass.
    """
    head = model.get_output_embeddings().weight  # type: ignore[operator]
    tables = {id(m.weight): m.weight for m in model.modules() if isinstance(m, nn.Embedding) and m.weight is not head}
    weights = {id(p): p for p in model.parameters() if id(p) not in tables}
    inside = sum(p.numel() for p in weights.values() if p.ndim > 1 and p is not head)
    width = int(model.config.hidden_size)  # type: ignore[union-attr, arg-type]
    flops = 2 * (cell.tokens * inside + cell.batch * head.numel()) + 4 * len(seed) * cell.tokens * cell.prompt * width
    read = sum(p.numel() * p.element_size() for p in weights.values())
    return Need(read + cache_bytes(seed, cell), flops, launches)


def working_bytes(model: nn.Module, cell: Workload, seed: Layers) -> int:
    """About what a pass takes beside the weights: the cache, and a few activations as wide as the widest layer."""
    widest = max((layer.out_features for layer in block_linears(model)), default=0)
    size = next(model.parameters()).element_size()
    return 2 * cache_bytes(seed, cell) + 4 * cell.tokens * widest * size
