"""A greedy text sample: a good perplexity with garbage text shows at a glance."""

from __future__ import annotations

from typing import Any

from torch import nn

from lrc_core.evaluate.generate import prompt_ids, write_answer
from lrc_core.runs.spec import SamplingSpec

DEFAULT_PROMPT = "The most important thing to know about the ocean is"


def greedy_sample(model: nn.Module, tokenizer: Any, prompt: str = DEFAULT_PROMPT, max_new_tokens: int = 48) -> str:
    """The most probable continuation, token by token, until the end-of-text token.

    Args:
        model: a Hugging Face causal LM, on any device.
        tokenizer: its tokenizer; special tokens are added as it does on its own.
        prompt: text to continue; its beginning is dropped where prompt and continuation exceed the model's positions.
        max_new_tokens: length of the continuation in tokens, at most.

    Raises:
        EvaluationError: the prompt has no tokens.
        NumericalError: the model's output is not finite.
    """
    ids = prompt_ids(tokenizer, prompt, chat="no")
    return write_answer(model, tokenizer, ids, SamplingSpec(max_new_tokens=max_new_tokens)).text
