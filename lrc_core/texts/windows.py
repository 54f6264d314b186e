"""Token windows cut out of documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from lrc_core.errors import TextError
from lrc_core.texts.documents import BUILT_IN, load_documents

_SEPARATOR = "\n\n"
_AT_ONCE = 4_000_000
"""Characters tokenised in one go: all of it for usual texts, which is what published perplexities do."""


def token_windows(
    documents: Sequence[str], tokenizer: Any, *, window: int, count: int, seed: int, bos: bool = False
) -> Tensor:
    """Distinct, non-overlapping windows out of the documents' token stream, chosen by the seed.

    Args:
        documents: joined by an empty line.
        window: tokens in a window, the beginning-of-sequence token included where there is one.
        count: windows wanted, in a seeded order (fewer of one seed are a beginning of more); 0 for all, in order.
        bos: start every window with the tokenizer's beginning-of-sequence token.

    Returns:
        LongTensor [n, window] on the CPU; n is less than ``count`` where the text has no more.

    Raises:
        TextError: too short for one window, or no such token.
    """
    body = _body(window, tokenizer, bos)
    stream = _token_stream(documents, tokenizer)
    available = _require_one(len(stream), body) // body
    windows = stream[: available * body].view(available, body)
    if count:
        order = torch.randperm(available, generator=torch.Generator().manual_seed(seed))
        windows = windows[order[:count]]
    return _with_bos(windows, tokenizer, bos)


def mixed_windows(
    names: Sequence[str],
    tokenizer: Any,
    *,
    part: str,
    window: int,
    count: int,
    seed: int,
    made: Mapping[str, Callable[[int, int, int], Tensor]] = MappingProxyType({}),
) -> Tensor:
    """Windows out of several texts, an equal share of each, taking turns so that every batch is mixed.

    Args:
        names: texts as in :func:`~lrc_core.texts.documents.load_documents`.
        count: windows in all; 0 for all there are. Earlier texts get one more where it does not divide.
        made: texts that are made and not read, by name: ``(count, window, seed)`` to [count, window] token ids.

    Returns:
        LongTensor [n, window] on the CPU; n is less than ``count`` where a text is too short for its share.

    Raises:
        TextError: no names, or a text that cannot be read or is too short.
    """
    if not names:
        raise TextError("No calibration text is named.", f"Choose from {', '.join(BUILT_IN)}, or a file.")
    shares = []
    for index, name in enumerate(names):
        share = count // len(names) + (index < count % len(names))
        if count and not share:
            continue
        if name in made:
            shares.append(made[name](share, window, seed))
            continue
        shares.append(token_windows(load_documents(name, part), tokenizer, window=window, count=share, seed=seed))
    longest = max(len(share) for share in shares)
    turns = [share[turn] for turn in range(longest) for share in shares if turn < len(share)]
    return torch.stack(turns)


def sequential_windows(
    documents: Sequence[str],
    tokenizer: Any,
    *,
    window: int,
    max_windows: int,
    stride: int = 0,
    bos: bool = False,
) -> Tensor:
    """Windows in order, for perplexity; where there are more than wanted, spread evenly over the text.

    Args:
        documents: joined by an empty line.
        window: tokens in a window, the beginning-of-sequence token included where there is one.
        max_windows: most windows; 0 for all.
        stride: tokens between window starts; 0 for the window, so that none overlap.
        bos: start every window with the tokenizer's beginning-of-sequence token.

    Returns:
        LongTensor [n, window] on the CPU. An incomplete window at the end is left out.

    Raises:
        TextError: too short for one window, an impossible stride, or no such token.
    """
    body = _body(window, tokenizer, bos)
    step = stride or body
    if not 0 < step <= body:
        raise TextError(f"A stride of {stride} does not fit windows of {window} tokens.", f"Use 1 to {body}, or 0.")
    stream = _token_stream(documents, tokenizer)
    available = (_require_one(len(stream), body) - body) // step + 1
    chosen = min(max_windows or available, available)
    starts = [index * available // chosen * step for index in range(chosen)]
    return _with_bos(torch.stack([stream[start : start + body] for start in starts]), tokenizer, bos)


def wants_bos(choice: str, tokenizer: Any) -> bool:
    """Whether windows start with the beginning-of-sequence token.

    Args:
        choice: ``yes``, ``no``, or ``auto``: as the tokenizer does with any text (Llama and Gemma do, GPT-2 does not).
    """
    if choice != "auto":
        return choice == "yes"
    bos = getattr(tokenizer, "bos_token_id", None)
    return bos is not None and list(tokenizer("a").input_ids)[:1] == [bos]


def _token_stream(documents: Sequence[str], tokenizer: Any) -> Tensor:
    """All tokens, without special ones, LongTensor [n]."""
    tokens: list[Tensor] = []
    for group in _groups(documents):
        ids = tokenizer(group, add_special_tokens=False, return_attention_mask=False, verbose=False).input_ids
        tokens.append(torch.tensor(ids, dtype=torch.long))
    return torch.cat(tokens) if tokens else torch.empty(0, dtype=torch.long)


def _groups(documents: Sequence[str]) -> Iterator[str]:
    """The documents joined, in pieces of bounded length so that a huge text does not need its size in memory again."""
    group: list[str] = []
    size = 0
    for document in documents:
        if group and size + len(document) > _AT_ONCE:
            yield _SEPARATOR.join(group) + _SEPARATOR
            group, size = [], 0
        group.append(document)
        size += len(document)
    if group:
        yield _SEPARATOR.join(group)


def _body(window: int, tokenizer: Any, bos: bool) -> int:
    """Tokens of text in a window."""
    if bos and getattr(tokenizer, "bos_token_id", None) is None:
        raise TextError("This tokenizer has no beginning-of-sequence token.", "Set bos to no.")
    if window < 2 + bos:
        raise TextError(f"A window of {window} tokens is too short.", "Use 32 or more.")
    return window - bos


def _require_one(tokens: int, body: int) -> int:
    if tokens < body:
        raise TextError(
            f"The text has {tokens} tokens, fewer than one window of {body}.", "Use a longer text or a shorter window."
        )
    return tokens


def _with_bos(windows: Tensor, tokenizer: Any, bos: bool) -> Tensor:
    if not bos:
        return windows.contiguous()
    return torch.cat([windows.new_full((len(windows), 1), int(tokenizer.bos_token_id)), windows], dim=1)
