"""The forms of one model that ``lrc bench speed`` times against each other: dense, pairs, pivots, a plan's.

Speed depends on shapes and not on what is in them, so low-rank layers are filled with random numbers and nothing is
decomposed. The forms share every tensor that they have in common, so that several of a large model fit in memory.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from lrc_core.bench.eight_bits import rowwise_int8
from lrc_core.budget import Ranks, is_dense, keep_ratio, stored, uniform_ranks
from lrc_core.formats.grids import QUANTISED
from lrc_core.lowrank.structure import read_structure, restructured
from lrc_core.lowrank.timing import random_layer
from lrc_core.models.blocks.linears import bias_of, block_linears, get_module, replace_module, weight_of
from lrc_core.plan import Plan
from lrc_core.types import LinearShape, Storage

WIDTH, INNER, HEADS, BLOCKS = 4096, 11008, 32, 2
_HEAD_ROWS = 2000  # a sixteenth of 32,000: the head weighs beside two blocks what it weighs beside thirty-two
_SPREAD = 0.02  # of weights, as Llama is initialised: values must not overflow, no more
INT8 = "int8 rows"
NO_KERNEL = "not timed: PyTorch has no product with {}; such a model runs here on the numbers that come back"


@dataclass(frozen=True)
class Contender:
    """One form of the model.

    Attributes:
        name: as the table has it.
        keep: share of the block linears' parameters that it keeps.
        model: None where it is not timed.
        reason: why not, "" where it is.
    """

    name: str
    keep: float
    model: nn.Module | None
    reason: str = ""


def two_blocks(device: torch.device, dtype: torch.dtype, width: int = WIDTH, inner: int = INNER) -> nn.Module:
    """Two blocks of a Llama of 7 billion parameters with random weights, and a head in proportion.

    Args:
        width: hidden size, a multiple of 32.
        inner: intermediate size.
    """
    config = LlamaConfig(
        vocab_size=_HEAD_ROWS,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=BLOCKS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):  # transformers' own initialisation takes longer than the measurement
        model = LlamaForCausalLM(config)
    model = model.to_empty(device=device).to(dtype).eval()
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to(device)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        parameter.uniform_(-_SPREAD, _SPREAD) if parameter.ndim > 1 else parameter.fill_(1.0)
    found: nn.Module = model
    return found


def contenders(
    model: nn.Module, keeps: Sequence[float], plans: Sequence[tuple[str, Plan, Path]], stack: ExitStack
) -> list[Contender]:
    """The dense model, then uniform pairs and pivots at every share, every plan, and quantised forms.

    Args:
        model: the dense model; it is left as it is.
        keeps: shares of the block linears to keep.
        plans: plans of this model with their names and the folders of their files.
        stack: pruned structures stay on their copies until it closes.

    Raises:
        PlanError: a plan is not of this model.
    """
    layers = block_linears(model)
    found = [Contender("dense", 1.0, model)]
    laws: tuple[Storage, ...] = ("pair", "pivoted")
    for keep in keeps:
        for storage in laws:
            of_law = stored(layers, storage)
            ranks = uniform_ranks(of_law, keep)
            name = f"{storage} {keep:g}"
            found.append(Contender(name, keep_ratio(of_law, ranks), low_rank_copy(model, of_law, ranks)))
    found += [_of_plan(model, layers, name, plan, folder, stack) for name, plan, folder in plans]
    blocks = [Contender(name, 1.0, None, NO_KERNEL.format(name)) for name in QUANTISED]
    return [*found, _in_eight_bits(model, layers), *blocks]


def _in_eight_bits(model: nn.Module, layers: Sequence[LinearShape]) -> Contender:
    if next(model.parameters()).device.type != "cpu":
        return Contender(INT8, 1.0, None, "not timed: this product is for processors")
    made = shallow_copy(model)
    for layer in layers:
        module = get_module(model, layer.name)
        replace_module(made, layer.name, rowwise_int8(weight_of(module), bias_of(module)))
    return Contender(INT8, 1.0, made)


def _of_plan(
    model: nn.Module, layers: Sequence[LinearShape], name: str, plan: Plan, folder: Path, stack: ExitStack
) -> Contender:
    of_law = stored(layers, plan.storage)
    ranks = plan.full_ranks(of_law)
    if plan.formats:
        names = ", ".join(sorted(set(plan.formats.values())))
        return Contender(name, plan.keep_achieved, None, NO_KERNEL.format(names))
    if plan.structure_file:
        copied = shallow_copy(model)
        structure = read_structure(folder / plan.structure_file, of_law, plan.pruned, plan.digest(plan.structure_file))
        return Contender(name, plan.keep_achieved, stack.enter_context(restructured(copied, *structure)))
    return Contender(name, plan.keep_achieved, low_rank_copy(model, of_law, ranks))


def shallow_copy(model: nn.Module) -> nn.Module:
    """Modules of their own, and the very same tensors."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())})


def low_rank_copy(model: nn.Module, layers: Sequence[LinearShape], ranks: Ranks) -> nn.Module:
    """A copy with random layers of those ranks, each stored by its law.

    Args:
        model: the dense model; it is left as it is.
    """
    made = shallow_copy(model)
    for layer in layers:
        if not is_dense(layer, ranks[layer.name]):
            module = get_module(model, layer.name)
            random = random_layer(layer, ranks[layer.name], weight_of(module), bias_of(module))
            replace_module(made, layer.name, random)
    return made
