"""Size and speed of a model, counted and measured (two small products are not automatically faster than one large)."""

from __future__ import annotations

import inspect
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from lrc_core.errors import CancelledError
from lrc_core.evaluate.forward import evaluating, max_positions
from lrc_core.models.onload.residence import residence_of
from lrc_core.types import ShouldStop, never_stop

_NO_CACHE = "The model keeps no key-value cache, so the speed of writing with one was not timed."


@dataclass(frozen=True)
class Cost:
    """What a model costs on the device it lies on.

    Attributes:
        params: parameters, tied ones once.
        bytes: bytes of parameters and buffers as held, tied ones once.
        prefill_tokens_per_s: tokens of a prompt read per second, batch 1; None where the model cannot be timed.
        decode_tokens_per_s: tokens written per second with the key-value cache, batch 1; None without such a cache.
        prefill_stderr: standard error of that speed, from its repetitions.
        decode_stderr: likewise.
        note: why a speed is missing, "" where none is.
    """

    params: int
    bytes: int
    prefill_tokens_per_s: float | None
    decode_tokens_per_s: float | None
    prefill_stderr: float | None = None
    decode_stderr: float | None = None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; only the sizes and speeds are always there."""
        always = ("params", "bytes", "prefill_tokens_per_s", "decode_tokens_per_s")
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if value or name in always}


def paces(pairs: Sequence[tuple[Cost, Cost]]) -> dict[str, dict[str, float]]:
    """How fast a model is beside the dense one: pairs that were timed right after each other, at different moments.

    Args:
        pairs: the model's cost and the dense model's, two pairs at least.

    Returns:
        For ``prefill`` and ``decode``, as far as all were timed: ``value``, the geometric mean of the pairs' ratios,
        and ``stderr``, from the repetitions or from what the pairs differ by, whichever is more: on a computer that
        does other work the repetitions of one moment agree and the moments do not.
    """
    found = {}
    for what in ("prefill", "decode"):
        timings = [
            [(getattr(one, f"{what}_tokens_per_s"), getattr(one, f"{what}_stderr")) for one in two] for two in pairs
        ]
        if any(speed is None or stderr is None for two in timings for speed, stderr in two):
            continue
        logs = [math.log(mine[0] / dense[0]) for mine, dense in timings]
        repeated = math.hypot(*(stderr / speed for two in timings for speed, stderr in two)) / len(pairs)
        between = statistics.stdev(logs) / math.sqrt(len(pairs))
        value = math.exp(statistics.fmean(logs))
        found[what] = {"value": value, "stderr": value * max(repeated, between)}
    return found


def count_params(model: nn.Module) -> int:
    """Parameters of a model, tied ones once."""
    return held_size(model)[0]


def count_bytes(model: nn.Module) -> int:
    """Bytes of parameters and buffers as held, tied ones once."""
    return held_size(model)[1]


def held_size(model: nn.Module) -> tuple[int, int]:
    """Parameters, and bytes of parameters and buffers."""
    params = size = 0
    for part in _held(model):
        params += part.numel() if isinstance(part, nn.Parameter) else 0
        size += part.numel() * part.element_size()
    return params, size


def _held(model: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers, tied ones once; of blocks that come and go as they are when it is their turn."""
    residence = residence_of(model)
    if residence is None:
        yield from chain(model.parameters(), model.buffers())
        return
    blocks = f"{residence.prefix}."
    named = chain(model.named_parameters(), model.named_buffers())
    yield from (part for name, part in named if not name.startswith(blocks))
    for index in range(residence.count):
        block = residence.bring(index)
        yield from chain(block.parameters(), block.buffers())


def measure_cost(
    model: nn.Module,
    *,
    prompt_tokens: int = 256,
    new_tokens: int = 24,
    repeats: int = 5,
    max_seconds: float = 10.0,
    should_stop: ShouldStop = never_stop,
) -> Cost:
    """Count parameters and bytes, and time reading a prompt and writing tokens after it, batch 1.

    Both speeds are medians after a warm-up: of ``repeats`` readings of the prompt, and of ``new_tokens`` single steps.
    The prompt is random tokens, since only its length matters for speed.

    Args:
        model: a Hugging Face causal LM, on any device.
        prompt_tokens: length of the prompt; shortened where the model takes fewer positions.
        new_tokens: single steps timed.
        repeats: readings of the prompt timed.
        max_seconds: fewer are timed where they would take longer than this (two at least).
    """
    limit = max_positions(model)
    if limit is not None:
        new_tokens = min(new_tokens, max(1, limit // 4))
        prompt_tokens = min(prompt_tokens, limit - new_tokens - 2)
    device = next(model.parameters()).device
    vocabulary = int(model.get_input_embeddings().num_embeddings)  # type: ignore[operator]
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(0, vocabulary, (1, prompt_tokens), generator=generator).to(device)
    cost = Cost(*held_size(model), None, None)
    with evaluating(model):
        clock = _Clock(device, max_seconds / 2, should_stop)
        try:
            timed, output = clock.timed(lambda: _forward(model, prompt), repeats)
            speed, stderr = _speed(timed, prompt_tokens)
            cost = replace(cost, prefill_tokens_per_s=speed, prefill_stderr=stderr)
            if getattr(output, "past_key_values", None) is None:
                return replace(cost, note=_NO_CACHE)
            state = {"output": output}
            timed, _ = clock.timed(lambda: _decode_step(model, state), new_tokens)
        except (CancelledError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # a family's own code raises whatever it likes over a cache it does not expect
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            return replace(cost, note=f"The speed could not be timed: {reason}")
    speed, stderr = _speed(timed, 1)
    return replace(cost, decode_tokens_per_s=speed, decode_stderr=stderr)


def _speed(seconds: Sequence[float], tokens: int) -> tuple[float, float | None]:
    """Tokens per second by the median, and its standard error: that of a median of normal errors, pi/2 in variance."""
    middle = statistics.median(seconds)
    if len(seconds) < 3:
        return tokens / middle, None
    error = math.sqrt(math.pi / 2 / len(seconds)) * statistics.stdev(seconds)
    return tokens / middle, tokens / middle * error / middle


def _forward(model: nn.Module, ids: Tensor, cache: Any = None) -> Any:
    # A server computes the head for the last position only; older models always compute it for all.
    last_only = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    known = {} if cache is None else {"past_key_values": cache}  # a recurrent model does not take that word
    return model(input_ids=ids, use_cache=True, **known, **last_only)


def _decode_step(model: nn.Module, state: dict[str, Any]) -> None:
    """Write one token after ``state["output"]`` and keep the new output there."""
    output = state["output"]
    token = output.logits[:, -1].argmax(-1, keepdim=True)  # [1, 1]
    state["output"] = _forward(model, token, output.past_key_values)


@dataclass(frozen=True)
class _Clock:
    """Times actions on a device."""

    device: torch.device
    max_seconds: float
    should_stop: ShouldStop

    def timed(self, action: Callable[[], Any], repeats: int) -> tuple[list[float], Any]:
        """Seconds of ``repeats`` actions after one more to warm up, and what the last one returned."""
        seconds: list[float] = []
        # The warm-up counts towards the limit: a machine that is slow at it is slow at all.
        while len(seconds) <= min(repeats, 2) or (len(seconds) <= repeats and sum(seconds) < self.max_seconds):
            if self.should_stop():
                raise CancelledError("The measurement was cancelled.")
            self._synchronise()
            start = time.perf_counter()
            result = action()
            self._synchronise()
            seconds.append(time.perf_counter() - start)
        return seconds[1:], result

    def _synchronise(self) -> None:
        """Wait for the device: its work is queued, and the clock would stop too early."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()
