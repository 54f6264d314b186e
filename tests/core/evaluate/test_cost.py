from __future__ import annotations

import statistics

import pytest
import torch
from torch import nn

from lrc_core.errors import CancelledError
from lrc_core.evaluate import cost as cost_module
from lrc_core.evaluate.cost import count_bytes, count_params, measure_cost
from lrc_core.evaluate.sample import greedy_sample
from tests.factories.tiny_models import FAMILIES, HIDDEN, VOCAB, tiny_model, tiny_tokenizer


def test_tied_parameters_count_once_and_buffers_count_in_bytes() -> None:
    model = tiny_model("llama")
    head = VOCAB * HIDDEN
    assert model.config.tie_word_embeddings
    assert count_params(model) == sum(value.numel() for value in model.state_dict().values()) - head
    module = nn.Linear(3, 2).to(torch.bfloat16)
    module.register_buffer("table", torch.zeros(5))
    assert (count_params(module), count_bytes(module)) == (8, 2 * 8 + 4 * 5)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_measures_every_family_and_leaves_it_as_found(family: str) -> None:
    model = tiny_model(family)
    model.train()
    cost = measure_cost(model, prompt_tokens=32, new_tokens=3, repeats=3)
    assert cost.params == count_params(model)
    assert cost.prefill_stderr is not None and cost.decode_stderr is not None
    assert cost.prefill_tokens_per_s > 0
    assert cost.decode_tokens_per_s > 0
    assert model.training
    assert set(cost.to_dict()) == {
        "params", "bytes", "prefill_tokens_per_s", "decode_tokens_per_s", "prefill_stderr", "decode_stderr",
    }  # fmt: skip


def test_the_error_is_that_of_a_median_and_unknown_of_two_timings() -> None:
    seconds = [0.1, 0.11, 0.12, 0.10, 0.11]
    speed, stderr = cost_module._speed(seconds, 22)
    assert speed == pytest.approx(200)
    assert stderr == pytest.approx(200 * 1.2533 * statistics.stdev(seconds) / 5**0.5 / 0.11, rel=1e-4)
    assert cost_module._speed([0.1, 0.3], 1) == (pytest.approx(5), None)


def test_a_prompt_beyond_the_models_positions_is_shortened() -> None:
    assert measure_cost(tiny_model("gpt2"), prompt_tokens=10_000, new_tokens=10_000, repeats=1).params > 0


@pytest.mark.parametrize("name", ["mamba", "rwkv", "recurrent_gemma", "gpt1", "xlm"])
def test_without_a_cache_the_speed_of_writing_is_left_out_with_a_word(name: str) -> None:
    model = tiny_model(name)
    cost = measure_cost(model, prompt_tokens=32, new_tokens=3, repeats=2)
    assert (cost.params, cost.decode_tokens_per_s) == (count_params(model), None)
    assert cost.note and cost.to_dict()["note"] == cost.note
    assert isinstance(greedy_sample(model, tiny_tokenizer(), "a layer", 4), str)


def test_cancel() -> None:
    with pytest.raises(CancelledError):
        measure_cost(tiny_model("llama"), should_stop=lambda: True)
