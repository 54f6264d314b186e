"""Log-likelihoods of continuations; what several of them share is run once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import DynamicCache, DynamicLayer

from lrc_core.evaluate.forward import max_positions
from lrc_core.models.token_loss import token_losses

_CPU_LOGITS_BYTES, _GPU_LOGITS_BYTES = 2**29, 2**32  # held at once

Pair = tuple[Sequence[int], Sequence[int]]
"""Token ids of a context and of its continuation, neither of them empty."""
Likelihood = tuple[float, bool]
"""Summed log-probability of a continuation in nats, and whether it is the greedy one."""


@dataclass(frozen=True)
class _Group:
    """Continuations of one context: the context but its last token, then a row for each continuation.

    A row is what the model reads (the context's last token and all but the last of the continuation); the logits at
    all its positions are what scores the continuation.
    """

    prefix: tuple[int, ...]
    indices: list[int]
    rows: list[tuple[int, ...]]

    @property
    def shared(self) -> bool:
        """Whether there is anything to run once for several rows."""
        return len(self.rows) > 1 and len(self.prefix) > 0

    @property
    def longest_row(self) -> int:
        """Tokens of the longest row."""
        return max(map(len, self.rows))


def continuation_likelihoods(
    model: nn.Module, pairs: Sequence[Pair], *, on_batch: Callable[[int], None] = lambda done: None
) -> list[Likelihood]:
    """Log-likelihood of every continuation after its context, in float32 whatever the model's precision.

    The beginning of a context is dropped where context and continuation exceed the model's positions. Continuations of
    the same context share its key-value cache where the model has a plain one; else each is run whole.

    Args:
        model: a Hugging Face causal LM in eval mode, on any device, without gradients.
        pairs: contexts and continuations as token ids.
        on_batch: called before every batch with the number of pairs done; may raise to stop.

    Returns:
        Likelihoods in the order of ``pairs``; a log-probability is NaN where the model's output is.
    """
    results: list[Likelihood] = [(0.0, False)] * len(pairs)
    done = 0
    for batch in _batches(_grouped(pairs, max_positions(model)), *_limits(model)):
        on_batch(done)
        indices = [index for group in batch for index in group.indices]
        for index, likelihood in zip(indices, _run(model, batch, pairs), strict=True):
            results[index] = likelihood
        done += len(indices)
    return results


def _limits(model: nn.Module) -> tuple[int, int]:
    """Tokens that a batch may hold, and that it should compute."""
    vocabulary = int(model.get_input_embeddings().num_embeddings)  # type: ignore[operator]
    on_cpu = next(model.parameters()).device.type == "cpu"
    # Logits are held in the model's precision and, a row at a time, in float32.
    held = max(1, (_CPU_LOGITS_BYTES if on_cpu else _GPU_LOGITS_BYTES) // (vocabulary * 6))
    # A CPU is as fast on small batches, and they need less padding.
    return held, min(held, 512) if on_cpu else held


def _grouped(pairs: Sequence[Pair], limit: int | None) -> list[_Group]:
    """Pairs by context; a context and continuation too long for the model lose their beginning."""
    groups: dict[tuple[int, ...], _Group] = {}
    for index, (context, continuation) in enumerate(pairs):
        room = len(context) if limit is None else max(1, limit + 1 - len(continuation))
        read = (*context[-room:], *continuation[:-1])
        prefix, row = read[: -len(continuation)], read[-len(continuation) :]
        group = groups.setdefault(prefix, _Group(prefix, [], []))
        group.indices.append(index)
        group.rows.append(row)
    return list(groups.values())


def _batches(groups: list[_Group], held: int, computed: int) -> Iterator[list[_Group]]:
    """Groups of like lengths that are run together, those that share a prefix apart from those that do not.

    The longest come first: then memory runs out at once or never. Most tokens of a group that shares are in its rows.
    """
    shared = sorted((g for g in groups if g.shared), key=lambda g: (-g.longest_row, -len(g.prefix)))
    whole = sorted((g for g in groups if not g.shared), key=lambda g: -len(g.prefix) - g.longest_row)
    for kind in (shared, whole):
        batch: list[_Group] = []
        for group in kind:
            rows = len(group.rows) + sum(len(g.rows) for g in batch)
            prefix = max(len(g.prefix) for g in (group, *batch))
            row = max(g.longest_row for g in (group, *batch))
            alone = (len(batch) + 1) * prefix + rows * row if group.shared else 0
            if batch and (rows * (prefix + row) > held or (alone or rows * (prefix + row)) > computed):
                yield batch
                batch = []
            batch.append(group)
        if batch:
            yield batch


def _run(model: nn.Module, batch: list[_Group], pairs: Sequence[Pair]) -> list[Likelihood]:
    """Likelihoods of a batch, in the order of its groups and their rows."""
    rows = [torch.tensor(row) for group in batch for row in group.rows]
    wanted = [torch.tensor(pairs[index][1]) for group in batch for index in group.indices]
    logits = _shared_logits(model, batch, rows) if batch[0].shared else None
    if logits is not None:
        return [_scored(logits[i, : len(row)], wanted[i]) for i, row in enumerate(rows)]
    whole = [torch.tensor((*group.prefix, *row)) for group in batch for row in group.rows]
    logits = model(input_ids=_padded(model, whole), use_cache=False).logits  # [rows, longest, vocab]
    return [_scored(logits[i, len(whole[i]) - len(row) : len(whole[i])], wanted[i]) for i, row in enumerate(rows)]


def _shared_logits(model: nn.Module, batch: list[_Group], rows: list[Tensor]) -> Tensor | None:
    """Logits of rows [rows, longest row, vocab] with each prefix run once; None where the model has no plain cache."""
    accepted = inspect.signature(model.forward).parameters
    if "position_ids" not in accepted or "attention_mask" not in accepted:
        return None
    # Padding goes before a prefix and after a row, so that a row follows its prefix.
    prefixes = [torch.tensor(group.prefix) for group in batch]
    ids = _padded(model, prefixes, left=True)  # [groups, longest prefix]
    mask = _padded(model, [torch.ones_like(prefix) for prefix in prefixes], left=True)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
    output = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, **last_only)
    cache: Any = getattr(output, "past_key_values", None)
    if type(cache) is not DynamicCache or any(type(layer) is not DynamicLayer for layer in cache.layers):
        return None
    # On the processor: the caches of blocks may lie on several devices, and all of them take indices from there.
    owner = torch.tensor([i for i, group in enumerate(batch) for _ in group.rows])
    cache.batch_select_indices(owner)
    tails = _padded(model, rows)  # [rows, longest row]
    lengths = mask.sum(1)[owner]
    tail_positions = lengths[:, None] + torch.arange(tails.shape[1], device=ids.device)
    # A row's own padding comes after it, and so is never looked at.
    mask = torch.cat([mask[owner], torch.ones_like(tails)], dim=1)
    limit = max_positions(model)
    tail_positions = tail_positions if limit is None else tail_positions.clamp(max=limit - 1)
    logits: Tensor = model(
        input_ids=tails, attention_mask=mask, position_ids=tail_positions, past_key_values=cache, use_cache=True
    ).logits
    return logits


def _padded(model: nn.Module, sequences: list[Tensor], *, left: bool = False) -> Tensor:
    """One tensor [sequences, longest] on the model's device, padded with 0."""
    padded = pad_sequence(sequences, batch_first=True, padding_side="left" if left else "right")
    return padded.to(next(model.parameters()).device)


def _scored(logits: Tensor, wanted: Tensor) -> Likelihood:
    """Likelihood of ``wanted`` [n] under logits [n, vocab]."""
    wanted = wanted.to(logits.device)
    return -float(token_losses(logits, wanted).sum()), bool((logits.argmax(-1) == wanted).all())
