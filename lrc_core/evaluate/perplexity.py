"""Perplexity on token windows, with a standard error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from lrc_core.errors import EvaluationError, NumericalError
from lrc_core.evaluate.forward import evaluating
from lrc_core.evaluate.losses import batch_losses
from lrc_core.types import OnProgress, Progress, ShouldStop, ignore_progress, never_stop

RESAMPLES = 1000


@dataclass(frozen=True)
class Perplexity:
    """A perplexity and how sure it is.

    Attributes:
        value: exp of the mean loss over all scored tokens.
        stderr: standard error of ``value`` by a bootstrap over windows; None where there is only one window.
        tokens: scored tokens.
        windows: number of windows.
        window_losses: summed loss of each window in nats, for paired comparisons of two models on the same windows.
        window_tokens: scored tokens of each window.
    """

    value: float
    stderr: float | None
    tokens: int
    windows: int
    window_losses: tuple[float, ...]
    window_tokens: tuple[int, ...]


def perplexity(
    model: nn.Module,
    windows: Tensor,
    *,
    batch_size: int = 4,
    stride: int = 0,
    seed: int = 0,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> Perplexity:
    """Token-weighted perplexity of a causal language model; log-probabilities in float32.

    The first token of a window is context only. With overlapping windows (0 < stride < window) every window after the
    first scores only its last ``stride`` tokens, so that each token of the text is scored once.

    Args:
        model: a Hugging Face causal LM, on any device.
        windows: token ids [n, window], with BOS already in place where it is wanted.
        batch_size: windows run at once.
        stride: tokens between window starts; 0, or anything from the window up, means no overlap.
        seed: chooses the bootstrap samples.
        on_progress: called after each batch, with the perplexity so far.

    Raises:
        EvaluationError: no windows, windows of fewer than two tokens, or a negative stride.
        NumericalError: a window's loss is not finite; the window is named.
    """
    _check(windows, stride)
    count, window = windows.shape
    losses: list[float] = []
    tokens = _scored_tokens(count, window, stride)
    scored = [tokens[start : start + batch_size] for start in range(0, count, batch_size)]
    with evaluating(model):
        for found in batch_losses(model, windows.split(batch_size), scored, on_progress, should_stop):
            losses += found
            done = len(losses)
            _check_finite(losses, done - len(found))
            so_far = _exp(sum(losses) / sum(tokens[:done]))
            on_progress(Progress("perplexity", done, count, {"perplexity": so_far}))
    return Perplexity(
        value=so_far,
        stderr=_bootstrap_stderr(losses, tokens, seed),
        tokens=sum(tokens),
        windows=count,
        window_losses=tuple(losses),
        window_tokens=tuple(tokens),
    )


def _check(windows: Tensor, stride: int) -> None:
    if windows.ndim != 2 or windows.shape[0] == 0 or windows.shape[1] < 2:
        raise EvaluationError(
            f"Perplexity needs at least one window of two tokens, not windows of shape {tuple(windows.shape)}.",
            "Use a longer text or a larger window.",
        )
    if stride < 0:
        raise EvaluationError(f"The stride is {stride}, but must be 0 (no overlap) or more.")


def _scored_tokens(count: int, window: int, stride: int) -> list[int]:
    """How many tokens at the end of each window are scored."""
    later = stride if 0 < stride < window else window - 1
    return [window - 1] + [later] * (count - 1)


def _check_finite(losses: list[float], first: int) -> None:
    for index in range(first, len(losses)):
        if not math.isfinite(losses[index]):
            raise NumericalError(
                f"The loss of window {index} is {losses[index]}: the model's output is not finite.",
                "Try float32 instead of a half precision; if it stays, the weights or factors are damaged.",
            )


def _exp(mean_loss: float) -> float:
    try:
        return math.exp(mean_loss)
    except OverflowError:
        raise NumericalError(f"The perplexity is too large for a number: the mean loss is {mean_loss:.4g}.") from None


def _bootstrap_stderr(losses: list[float], tokens: list[int], seed: int) -> float | None:
    """Standard deviation of the perplexity over resamples of whole windows: tokens of one are not independent."""
    count = len(losses)
    if count < 2:
        return None
    generator = np.random.default_rng(seed)
    sums, weights = np.asarray(losses), np.asarray(tokens, dtype=np.float64)
    values = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        drawn = generator.integers(0, count, count)
        values[i] = _exp(float(sums[drawn].sum() / weights[drawn].sum()))
    return float(values.std(ddof=1))
