"""Running part of a model gives what running all of it gives, in every family, and leaves nothing behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lrc_core.models.blocks.linears import decoder_blocks
from lrc_core.models.blocks.partial import block_inputs, first_block_input, logits_from, run_block
from tests.factories.tiny_methods import modules_of, random_windows, same_state, state_of
from tests.factories.tiny_models import BLOCKS, FAMILIES, tiny_model

TOKENS = random_windows(3, 20)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_part_gives_what_the_whole_gives(family: str) -> None:
    model = tiny_model(family)
    state, modules = state_of(model), modules_of(model)
    with torch.no_grad():
        whole = model(input_ids=TOKENS, use_cache=False).logits
        inputs, logits = block_inputs(model, TOKENS)
        assert len(inputs) == BLOCKS
        assert torch.equal(logits, whole)
        assert torch.equal(first_block_input(model, TOKENS), inputs[0])
        for start in range(BLOCKS):
            assert torch.equal(logits_from(model, TOKENS, start, inputs[start]), whole)
        hidden = inputs[0]
        for index in range(BLOCKS - 1):
            hidden = run_block(model, TOKENS, index, hidden)
            assert torch.equal(hidden, inputs[index + 1])
        assert torch.equal(model(input_ids=TOKENS, use_cache=False).logits, whole)
    assert modules_of(model) == modules
    assert same_state(model, state)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_injected_is_what_is_used(family: str) -> None:
    model = tiny_model(family)
    inputs, _ = block_inputs(model, TOKENS)
    other = inputs[1] + 0.5 * torch.randn(inputs[1].shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        step_by_step = other
        for index in range(1, BLOCKS):
            step_by_step = run_block(model, TOKENS, index, step_by_step)
        changed = logits_from(model, TOKENS, 1, other)
        assert not torch.allclose(changed, logits_from(model, TOKENS, 1, inputs[1]))
        last_input = run_block(model, TOKENS, 1, other)
        torch.testing.assert_close(logits_from(model, TOKENS, BLOCKS - 1, last_input), changed)


def test_a_failure_inside_a_block_leaves_nothing_behind() -> None:
    model = tiny_model("gpt2")
    state = state_of(model)
    inputs, _ = block_inputs(model, TOKENS)

    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("inside")

    last = decoder_blocks(model)[BLOCKS - 1]
    last.forward = fail  # type: ignore[method-assign]
    for call in (
        lambda: logits_from(model, TOKENS, 1, inputs[1]),
        lambda: run_block(model, TOKENS, BLOCKS - 1, inputs[1]),
        lambda: block_inputs(model, TOKENS),
    ):
        with pytest.raises(RuntimeError, match="inside"):
            call()
    del last.forward
    assert same_state(model, state)


def test_gradients_flow_through_the_part_that_runs() -> None:
    model = tiny_model("llama")
    inputs, _ = block_inputs(model, TOKENS)
    start = inputs[2].clone().requires_grad_()
    logits_from(model, TOKENS, 2, start).sum().backward()  # type: ignore[no-untyped-call]
    assert start.grad is not None
    assert start.grad.abs().sum() > 0
