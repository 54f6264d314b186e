"""Writing text token by token: greedy or drawn, with the key-value cache, from one model after another."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lrc_core.errors import CancelledError, EvaluationError, NumericalError
from lrc_core.evaluate.forward import evaluating, max_positions
from lrc_core.models.end_tokens import end_tokens
from lrc_core.runs.spec import SamplingSpec
from lrc_core.types import ShouldStop, never_stop

FEWEST_TIMED = 8
"""Answers of fewer tokens say nothing about speed."""
_UNFINISHED = "\ufffd"
"""What decoding gives for the beginning of a character whose other bytes are in the next token."""
OnText = Callable[[str, int, float], None]
"""``(text, tokens, seconds)``: the new part of the text, tokens so far, seconds since the first token."""


@dataclass(frozen=True)
class Written:
    """One answer.

    Attributes:
        text: what was written, without the prompt.
        tokens: how many tokens it has.
        prompt_tokens: tokens that were read.
        prefill_s: seconds to read the prompt and choose the first token.
        decode_s: seconds for all later tokens.
        ended: ``end`` (the model ended it) or ``length``.
    """

    text: str
    tokens: int
    prompt_tokens: int
    prefill_s: float
    decode_s: float
    ended: str

    @property
    def tokens_per_s(self) -> float | None:
        """Speed of writing; None where too little was written to time it. The first token comes with the prompt."""
        return (self.tokens - 1) / self.decode_s if self.tokens >= FEWEST_TIMED and self.decode_s > 0 else None


def prompt_ids(tokenizer: Any, prompt: str, chat: str = "auto") -> list[int]:
    """Token ids of a prompt.

    Args:
        chat: ``yes`` puts it into the chat template, ``auto`` where the tokenizer has one, ``no`` never.

    Raises:
        EvaluationError: the prompt has no tokens, or a template is wanted that the tokenizer does not have.
    """
    template = getattr(tokenizer, "chat_template", None)
    if chat == "yes" and not template:
        raise EvaluationError("This model's tokenizer has no chat template.", "Set the chat template to auto or no.")
    if template and chat != "no":
        messages = [{"role": "user", "content": prompt}]
        try:
            found = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)
        except Exception as error:  # a template is a program of its own
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise EvaluationError(f"The chat template failed: {first}", "Set the chat template to no.") from error
        ids = list(found["input_ids"])
    else:
        ids = list(tokenizer(prompt)["input_ids"])
    if not ids:
        raise EvaluationError("The prompt has no tokens.", "Give a prompt of at least one word.")
    return ids


def write_answer(
    model: nn.Module,
    tokenizer: Any,
    ids: Sequence[int],
    sampling: SamplingSpec,
    *,
    on_text: OnText | None = None,
    should_stop: ShouldStop = never_stop,
) -> Written:
    """Let the model answer.

    Args:
        model: a Hugging Face causal LM, on any device.
        ids: the prompt; its beginning is dropped where prompt and answer exceed the model's positions.
        on_text: called with text as soon as it is certain.

    Raises:
        NumericalError: the model's output is not a number.
    """
    limit, count = max_positions(model), sampling.max_new_tokens
    if limit is not None:
        count = min(count, limit - 1)
        ids = ids[-(limit - count) :]
    device = next(model.parameters()).device
    decoder = _Decoder(tokenizer, ids)
    new: list[int] = []
    started = first = last = time.perf_counter()
    tokens = next_tokens(model, torch.tensor([list(ids)], device=device), sampling, end_tokens(model, tokenizer))
    with evaluating(model):
        while len(new) < count:
            if should_stop():
                raise CancelledError("Writing was cancelled.")
            token = next(tokens, None)
            last = time.perf_counter()
            if not new:
                first = last
            if token is None:
                break
            new.append(token)
            if on_text is not None and (fresh := decoder.fresh(new)):
                on_text(fresh, len(new), last - first)
        if on_text is not None and (rest := decoder.fresh(new, whole=True)):
            on_text(rest, len(new), last - first)
    ended = "length" if len(new) >= count else "end"
    return Written(decoder.text(new), len(new), len(ids), first - started, last - first, ended)


def next_tokens(model: nn.Module, ids: Tensor, sampling: SamplingSpec, stop: set[int]) -> Iterator[int]:
    """Tokens after ids [1, length], without end, until one that ends a text (which is not among them).

    A loop of its own instead of ``generate``: a model's generation config may hold penalties or sampling, which would
    make what two models write incomparable; and neither a generation config nor a pad token is needed.

    Raises:
        NumericalError: the model's output is not a number.
    """
    generator = torch.Generator().manual_seed(sampling.seed)
    step = ids
    known: dict[str, Any] = {}
    while True:
        output = model(input_ids=step, use_cache=True, **known)
        scores = output.logits[0, -1]  # [vocab]
        if bool(scores.isnan().any()):
            raise NumericalError("The model's output is not a number, so it cannot write text.", "Try float32.")
        token = chosen(scores, sampling, generator)
        if token in stop:
            return
        yield token
        cache = getattr(output, "past_key_values", None)
        ids = torch.cat([ids, ids.new_tensor([[token]])], dim=1)
        # A recurrent model does not take the word, and one without such a cache sees the whole text again.
        known = {} if cache is None else {"past_key_values": cache}
        step = ids if cache is None else ids[:, -1:]


def chosen(scores: Tensor, sampling: SamplingSpec, generator: torch.Generator) -> int:
    """The next token: the most probable one at temperature 0, else drawn from what top-k and top-p leave.

    Top-p keeps the smallest set of most probable tokens whose probability reaches it (Holtzman et al. 2020,
    arXiv 1904.09751), counted after the temperature and after top-k, as transformers does.

    Args:
        scores: logits [vocab].
        sampling: temperature, top-p, top-k.
        generator: on the CPU, so that a seed gives the same draws on every device.
    """
    if sampling.temperature <= 0:
        return int(scores.argmax())
    values, order = (scores.float().cpu() / sampling.temperature).sort(descending=True, stable=True)
    if sampling.top_k > 0:
        values, order = values[: sampling.top_k], order[: sampling.top_k]
    chances = values.softmax(0)
    if sampling.top_p < 1:
        before = chances.cumsum(0) - chances
        chances = torch.where(before < sampling.top_p, chances, 0.0)  # the first stays: nothing is before it
    return int(order[torch.multinomial(chances, 1, generator=generator)])


class _Decoder:
    """Text of a growing list of tokens behind a prompt, handed out as soon as no later token can change it.

    Args:
        ids: the prompt.
    """

    def __init__(self, tokenizer: Any, ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        # A few tokens of context suffice: decoded alone, many tokenizers drop the space before the first word.
        self._context = list(ids[-8:])
        self._before = tokenizer.decode(self._context, skip_special_tokens=True)
        self._told = 0

    def text(self, new: Sequence[int]) -> str:
        """Everything written so far."""
        both = self._tokenizer.decode([*self._context, *new], skip_special_tokens=True)
        if both.startswith(self._before):
            return str(both[len(self._before) :])
        return str(self._tokenizer.decode(list(new), skip_special_tokens=True))

    def fresh(self, new: Sequence[int], *, whole: bool = False) -> str:
        """What has become certain since the last call; with ``whole``, all that is left."""
        text = self.text(new)
        if not whole:
            text = text.rstrip(_UNFINISHED)
        fresh, self._told = text[self._told :], max(self._told, len(text))
        return fresh
