"""Losses of token windows; logits of a large vocabulary are never held for all tokens of a batch at once.

A model whose blocks are brought in one after the other is walked so: all windows pass through a block before the next
one comes, and the weights are read once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from lrc_core.errors import CancelledError
from lrc_core.models.blocks.partial import behind_last_block, first_block_input, last_block_output, run_block
from lrc_core.models.onload.hidden_states import Shelf
from lrc_core.models.onload.residence import Residence, residence_of
from lrc_core.models.token_loss import token_losses
from lrc_core.types import OnProgress, Progress, ShouldStop

MOST_LOGITS = 2**27
"""Logits that are held at once."""
_TRIED = 8
"""Tokens on which it is tried whether the head gives the same for a part of a window."""


def batch_losses(
    model: nn.Module,
    batches: Sequence[Tensor],
    scored: Sequence[Sequence[int]],
    on_progress: OnProgress,
    should_stop: ShouldStop,
) -> Iterator[list[float]]:
    """Summed loss over the last tokens of each window, batch by batch.

    Args:
        model: a causal language model in evaluation mode, without gradients.
        batches: [b, window] token ids each, on the CPU.
        scored: how many tokens at the end of each window count, batch by batch.
        on_progress: told what comes before the first batch.
        should_stop: asked before every batch, and at every block where the model is walked.
    """
    device = next(model.parameters()).device
    residence = residence_of(model)
    walked = None if residence is None else _through_blocks(model, residence, batches, on_progress, should_stop)
    for position, (batch, counts) in enumerate(zip(batches, scored, strict=True)):
        if should_stop():
            raise CancelledError("The evaluation was cancelled.")
        tokens = batch.to(device)
        if walked is not None:
            yield _behind(model, tokens, walked[position].to(device), counts)
        elif batch.numel() * _vocabulary(model) <= MOST_LOGITS:
            yield _summed([model(input_ids=tokens, use_cache=False).logits], tokens, counts)
        else:
            yield _large(model, tokens, counts)


def _through_blocks(
    model: nn.Module, residence: Residence, batches: Sequence[Tensor], on_progress: OnProgress, should_stop: ShouldStop
) -> list[Tensor]:
    """What leaves the last block, batch by batch."""
    shelf = Shelf(model, 0)
    on_device = [tokens.to(residence.device) for tokens in batches]
    hidden = [shelf.put(first_block_input(model, tokens)) for tokens in on_device]
    for index in range(residence.count):
        for position, tokens in enumerate(on_device):
            if should_stop():
                raise CancelledError("The evaluation was cancelled.")
            hidden[position] = shelf.put(run_block(model, tokens, index, hidden[position].to(residence.device)))
        on_progress(Progress("block after block", index + 1, residence.count))
    return hidden


def _large(model: nn.Module, tokens: Tensor, counts: Sequence[int]) -> list[float]:
    """Losses over a vocabulary whose logits are too many: a few tokens at a time, where the model allows it."""
    short = tokens[:1, :_TRIED]
    wanted, found = model(input_ids=short, use_cache=False).logits, last_block_output(model, short)
    if not torch.allclose(behind_last_block(model, short, found), wanted, rtol=1e-2, atol=1e-3):
        return _summed([model(input_ids=tokens, use_cache=False).logits], tokens, counts)
    return _behind(model, tokens, last_block_output(model, tokens), counts)


def _behind(model: nn.Module, tokens: Tensor, hidden: Tensor, counts: Sequence[int]) -> list[float]:
    """Losses of a batch given what leaves the last block."""
    step = max(1, MOST_LOGITS // (tokens.shape[0] * _vocabulary(model)))
    pairs = zip(tokens.split(step, 1), hidden.split(step, 1), strict=True)
    return _summed((behind_last_block(model, part, states) for part, states in pairs), tokens, counts)


def _summed(logits: Iterator[Tensor] | list[Tensor], tokens: Tensor, counts: Sequence[int]) -> list[float]:
    """Summed losses of each window from logits [b, some tokens, vocab] that follow each other."""
    found: list[list[Tensor]] = [[] for _ in counts]
    first = 0
    for part in logits:
        for row, (targets, count, losses) in enumerate(zip(tokens, counts, found, strict=True)):
            # Token t is predicted at position t - 1.
            start, end = max(first, len(targets) - count - 1), min(first + part.shape[1], len(targets) - 1)
            if start < end:
                losses.append(token_losses(part[row, start - first : end - first], targets[start + 1 : end + 1]))
        first += part.shape[1]
    return [float(torch.cat(losses).double().sum()) for losses in found]


def _vocabulary(model: nn.Module) -> int:
    return int(model.get_input_embeddings().weight.shape[0])  # type: ignore[operator]
