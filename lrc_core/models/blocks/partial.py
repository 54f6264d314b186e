"""Running part of a model: from a block onwards, or one block alone, with the model's own code around it.

Blocks that are left out are replaced by pass-throughs during the call, so embeddings, rotary tables, attention masks,
the final norm and the head stay whatever the architecture makes them. Nothing is left behind on the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from lrc_core.errors import ModelError
from lrc_core.models.blocks.hooks import hooked
from lrc_core.models.blocks.linears import decoder_blocks

_CHAIN = 1e-2  # of a state's norm: above rounding, far below another state
_RETURNS_TUPLE: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


class _BlockDone(Exception):  # noqa: N818 - control flow, not an error
    """Leaves the model's forward as soon as the wanted block has run."""


def hidden_of(output: Any) -> Tensor:
    """The hidden states in a block's output, which is a tensor or a tuple that starts with one."""
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden


@torch.no_grad()
def block_inputs(model: nn.Module, tokens: Tensor) -> tuple[list[Tensor], Tensor]:
    """Run the whole model once and keep what enters every block.

    Args:
        tokens: [batch, window] token ids on the model's device.

    Returns:
        The input of every block, [batch, window, hidden] each, and the logits [batch, window, vocab].
    """
    inputs: list[Tensor] = []

    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs.append((args[0] if args else kwargs["hidden_states"]).detach())

    with hooked(block.register_forward_pre_hook(keep, with_kwargs=True) for block in decoder_blocks(model)):
        logits: Tensor = model(input_ids=tokens, use_cache=False).logits
    return inputs, logits


@torch.no_grad()
def require_chain(model: nn.Module, tokens: Tensor) -> None:
    """Refuse a model whose blocks do not each read what the one before wrote: it cannot be run block by block.

    Args:
        tokens: [batch, window] token ids; a few suffice.

    Raises:
        ModelError: names the first block that does not follow.
    """
    tokens = tokens.to(next(model.parameters()).device)
    inputs, _ = block_inputs(model, tokens)
    follows = len(inputs) == len(decoder_blocks(model))
    for index, (entering, wanted) in enumerate(pairwise(inputs)):
        found = run_block(model, tokens, index, entering).to(wanted.device) if follows else wanted
        if not follows or found.shape != wanted.shape or (found - wanted).norm() > _CHAIN * wanted.norm():
            raise ModelError(
                f"The blocks of {type(model).__name__} do not read what the block before wrote (block {index + 1} does "
                "not), so that no statistics of single blocks can be had.",
                "Use the plain SVD with a method that only looks at the weights, such as uniform.",
            )


@torch.no_grad()
def first_block_input(model: nn.Module, tokens: Tensor) -> Tensor:
    """What enters the first block: embeddings and whatever the architecture adds to them, [batch, window, hidden]."""
    return _caught(model, tokens, decoder_blocks(model)[0], entering=True).detach()


def _caught(model: nn.Module, tokens: Tensor, module: nn.Module, *, entering: bool) -> Tensor:
    """Run the model up to a module and give the hidden states that enter or leave it; nothing behind it is run."""
    caught: list[Tensor] = []

    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        caught.append(args[0] if args else kwargs["hidden_states"])
        raise _BlockDone

    def leave(_: nn.Module, __: Any, output: Any) -> None:
        caught.append(hidden_of(output))
        raise _BlockDone

    handle = (
        module.register_forward_pre_hook(enter, with_kwargs=True) if entering else module.register_forward_hook(leave)
    )
    with handle, suppress(_BlockDone):
        model(input_ids=tokens, use_cache=False)
    return caught[0]


def logits_from(model: nn.Module, tokens: Tensor, start: int, hidden: Tensor) -> Tensor:
    """Logits when block ``start`` receives ``hidden``; the blocks before it are not run.

    Args:
        tokens: [batch, window], the tokens that ``hidden`` belongs to.
        start: index of the first block to run.
        hidden: [batch, window, hidden].

    Returns:
        [batch, window, vocab]
    """
    with _from_block(model, start, hidden):
        logits: Tensor = model(input_ids=tokens, use_cache=False).logits
        return logits


@torch.no_grad()
def run_block(model: nn.Module, tokens: Tensor, index: int, hidden: Tensor) -> Tensor:
    """Output of one block given its input, [batch, window, hidden]; nothing else is run."""
    return block_output(model, tokens, index, hidden)


def block_output(model: nn.Module, tokens: Tensor, index: int, hidden: Tensor) -> Tensor:
    """What :func:`run_block` gives, with gradients where they are enabled."""
    with _from_block(model, index, hidden):
        return _caught(model, tokens, decoder_blocks(model)[index], entering=False)


def final_states(model: nn.Module, tokens: Tensor, start: int, hidden: Tensor) -> Tensor:
    """What enters the output embedding when block ``start`` receives ``hidden``, [batch, window, hidden].

    The head is not run; gradients where they are enabled.
    """
    head: nn.Module = model.get_output_embeddings()  # type: ignore[operator]
    with _from_block(model, start, hidden):
        return _caught(model, tokens, head, entering=True)


@torch.no_grad()
def last_block_output(model: nn.Module, tokens: Tensor) -> Tensor:
    """What leaves the last block, [batch, window, hidden]; nothing behind it is run."""
    return _caught(model, tokens, decoder_blocks(model)[-1], entering=False)


@torch.no_grad()
def behind_last_block(model: nn.Module, tokens: Tensor, hidden: Tensor) -> Tensor:
    """Logits when the last block has put out ``hidden``; no block is run.

    What stands behind the blocks treats every token alike, so that a part of a window will do.

    Args:
        tokens: [batch, some tokens] that ``hidden`` belongs to.
        hidden: [batch, some tokens, hidden].

    Returns:
        [batch, some tokens, vocab]
    """
    blocks, output = list(decoder_blocks(model)), (hidden,) if _returns_tuple(model) else hidden
    try:
        for block in blocks:
            block.forward = lambda *_, **__: output
        logits: Tensor = model(input_ids=tokens, use_cache=False).logits
        return logits
    finally:
        for block in blocks:
            del block.forward


@contextmanager
def _from_block(model: nn.Module, start: int, hidden: Tensor) -> Iterator[None]:
    """Blocks before ``start`` hand their input on unchanged; ``start`` receives ``hidden``."""
    blocks = decoder_blocks(model)
    as_tuple = start > 0 and _returns_tuple(model)

    def skip(*args: Any, **kwargs: Any) -> Any:
        passed = args[0] if args else kwargs["hidden_states"]
        return (passed,) if as_tuple else passed

    def inject(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

    skipped = list(blocks)[:start]
    # First of its hooks: one that brings what enters to the block's device finds what is injected.
    handle = blocks[start].register_forward_pre_hook(inject, with_kwargs=True, prepend=True)
    try:
        for block in skipped:
            block.forward = skip
        yield
    finally:
        handle.remove()
        for block in skipped:
            del block.forward


def look_at_output(model: nn.Module) -> None:
    """Remember what the blocks return, so that no pass has to leave its block for it later."""
    _returns_tuple(model)


@torch.no_grad()
def _returns_tuple(model: nn.Module) -> bool:
    """Whether the model's blocks return a tuple, found by running the first one on one token, once per model."""
    if model not in _RETURNS_TUPLE:
        outputs: list[Any] = []

        def catch(_: nn.Module, __: Any, output: Any) -> None:
            outputs.append(output)
            raise _BlockDone

        token = torch.zeros(1, 1, dtype=torch.long, device=next(model.parameters()).device)
        with decoder_blocks(model)[0].register_forward_hook(catch), suppress(_BlockDone):
            model(input_ids=token, use_cache=False)
        _RETURNS_TUPLE[model] = isinstance(outputs[0], tuple)
    return _RETURNS_TUPLE[model]
