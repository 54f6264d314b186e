"""Calibration text that the model writes itself: for models whose training data is not available.

Each window starts with a token drawn uniformly from the vocabulary and goes on with samples from the model's own
distribution (LLM-QAT, arXiv 2305.17888, section 3.1, draws the first token the same way; it takes the next three to
five greedily, here all are sampled, at temperature 1 and without truncation, so that the text has the model's own
statistics). Where a text ends, the next begins with a fresh token in the same window, as in packed training text.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lrc_core.damage import earlier
from lrc_core.errors import CancelledError, NumericalError, TextError
from lrc_core.files import make_private, read_array, write_array
from lrc_core.models.end_tokens import end_tokens
from lrc_core.types import OnProgress, Progress, ShouldStop, ignore_progress, never_stop

BATCH = 32
"""Windows written at once; part of what the samples depend on."""
VERSION = 1


@dataclass(frozen=True)
class Wanted:
    """How much text.

    Attributes:
        count: windows.
        window: tokens in each.
        seed: draws them; fewer windows of one seed are a beginning of more.
    """

    count: int
    window: int
    seed: int


def generated_windows(
    model: nn.Module,
    tokenizer: Any,
    wanted: Wanted,
    cache: Path,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> Tensor:
    """Windows that the model writes, from the cache where they were written before.

    Args:
        model: the dense model in evaluation mode.
        tokenizer: of the model; its special tokens never start a text.
        cache: folder of this model's generated text; one file a batch, so that a cancel loses one batch at most.

    Returns:
        LongTensor [count, window] on the CPU.

    Raises:
        TextError: no number of windows is given, or the model has no token to start with.
        NumericalError: the model's output is not finite.
    """
    if wanted.count < 1:
        raise TextError("The text generated has no end: say how many windows.", "Give a number of windows above 0.")
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    folder = cache / f"{dtype}-v{VERSION}-{wanted.window}-{wanted.seed}"
    make_private(cache)
    folder.mkdir(parents=True, exist_ok=True)
    batches = -(-wanted.count // BATCH)
    parts = []
    for index in range(batches):
        path = folder / f"{index:05d}.npy"
        tokens = earlier(path, partial(_read, window=wanted.window))
        if tokens is None:

            def told(position: int, index: int = index) -> None:
                if should_stop():
                    raise CancelledError("Writing calibration text was cancelled.", "Resume the run.")
                done = index * wanted.window + position
                on_progress(Progress("writing calibration text", done, batches * wanted.window))

            tokens = _written(model, tokenizer, wanted, index, told)
            write_array(path, tokens.numpy().astype(np.int32))
        parts.append(tokens)
    return torch.cat(parts)[: wanted.count]


def _read(path: Path, window: int) -> Tensor:
    tokens = read_array(path)
    if tokens.shape != (BATCH, window) or tokens.dtype != np.int32:
        raise TextError(f"It holds {tokens.dtype} {tokens.shape}.")
    return torch.from_numpy(tokens).long()


@torch.no_grad()
def _written(model: nn.Module, tokenizer: Any, wanted: Wanted, index: int, told: Any) -> Tensor:
    """One batch [BATCH, window]; its random numbers depend on seed and index only."""
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(wanted.seed * 1_000_003 + index)
    starts, ends = _starts(model, tokenizer), torch.tensor(sorted(end_tokens(model, tokenizer)), dtype=torch.long)
    tokens = starts[torch.randint(len(starts), (BATCH, 1), generator=generator)]
    step, cache = tokens, None
    while tokens.shape[1] < wanted.window:
        told(tokens.shape[1])
        output = model(input_ids=step.to(device), past_key_values=cache, use_cache=True)
        chances = torch.softmax(output.logits[:, -1].float(), dim=-1).cpu()  # [BATCH, vocab]
        if not bool(chances.isfinite().all()):
            raise NumericalError("The model's output is not finite, so it cannot write text.", "Try float32.")
        drawn = torch.multinomial(chances, 1, generator=generator)
        fresh = starts[torch.randint(len(starts), (BATCH, 1), generator=generator)]
        # The end stands in the text as the tokenizer would put it there; what follows it is a new beginning.
        after_end = torch.isin(tokens[:, -1:], ends)
        tokens = torch.cat([tokens, torch.where(after_end, fresh, drawn)], dim=1)
        cache = getattr(output, "past_key_values", None)
        step = tokens if cache is None else tokens[:, -1:]
    return tokens


def _starts(model: nn.Module, tokenizer: Any) -> Tensor:
    """Tokens that may begin a text: all that stand for text. [n]"""
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    size = min(len(tokenizer), int(embedding.weight.shape[0]))
    special = set(tokenizer.all_special_ids)
    found = [token for token in range(size) if token not in special]
    if not found:
        raise TextError("This tokenizer has special tokens only.", "Choose another calibration text.")
    return torch.tensor(found, dtype=torch.long)
