from __future__ import annotations

from typing import Any

import pytest
import torch

from lrc_core.errors import EvaluationError, NumericalError
from lrc_core.evaluate.sample import DEFAULT_PROMPT, greedy_sample
from tests.factories.tiny_models import FAMILIES, POSITIONS, tiny_model, tiny_tokenizer


def by_hand(model: Any, tokenizer: Any, prompt: str, count: int) -> str:
    """The most probable token, the whole text run again each time."""
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    length = ids.shape[1]
    with torch.no_grad():
        for _ in range(count):
            token = model(input_ids=ids).logits[0, -1].argmax()
            if token == tokenizer.eos_token_id:
                break
            ids = torch.cat([ids, token.view(1, 1)], dim=1)
    return str(tokenizer.decode(ids[0, length:], skip_special_tokens=True))


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_agrees_with_running_the_whole_text_each_time(family: str) -> None:
    model, tokenizer = tiny_model(family), tiny_tokenizer(add_bos=family == "gemma")
    assert greedy_sample(model, tokenizer, max_new_tokens=12) == by_hand(model, tokenizer, DEFAULT_PROMPT, 12)


def test_needs_no_generation_config_and_ignores_one_that_samples() -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    plain = greedy_sample(model, tokenizer, "a rank", 10)
    model.generation_config.do_sample = True
    model.generation_config.repetition_penalty = 9.0
    assert greedy_sample(model, tokenizer, "a rank", 10) == plain
    model.generation_config = None
    tokenizer.pad_token = None
    assert greedy_sample(model, tokenizer, "a rank", 10) == plain


def test_stops_at_the_end_of_the_text() -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    text = greedy_sample(model, tokenizer, "a rank", 10)
    model.config.eos_token_id = [2, int(tokenizer(text[3])["input_ids"][0])]
    assert greedy_sample(model, tokenizer, "a rank", 10) == text[: text.index(text[3])]


def test_a_long_prompt_loses_its_beginning() -> None:
    text = greedy_sample(tiny_model("gpt2"), tiny_tokenizer(), "long prompt " * POSITIONS, 8)
    assert len(text) <= 8


def test_bad_input() -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    with pytest.raises(EvaluationError, match="no tokens"):
        greedy_sample(model, tokenizer, "")
    model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(NumericalError):
        greedy_sample(model, tokenizer)
