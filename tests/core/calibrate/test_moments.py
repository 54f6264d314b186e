"""Streamed second moments equal those of a plain run over hooks, in every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lrc_core.calibrate.moments import block_statistics
from lrc_core.errors import CancelledError, NumericalError
from lrc_core.models.blocks.linears import block_linears, get_module
from lrc_core.types import Progress
from tests.factories.tiny_methods import random_windows, same_state, state_of, statistics_of
from tests.factories.tiny_models import BLOCKS, FAMILIES, tiny_model

WINDOWS = random_windows(5, 24)


def inputs_of_all(model: Any, tokens: Tensor) -> dict[str, Tensor]:
    """Inputs of every block linear, [tokens, n], in one plain forward pass."""
    caught: dict[str, Tensor] = {}

    def hook(name: str) -> Any:
        def keep(_: Any, args: tuple[Tensor, ...]) -> None:
            caught[name] = args[0].reshape(-1, args[0].shape[-1])

        return keep

    handles = [
        get_module(model, layer.name).register_forward_pre_hook(hook(layer.name)) for layer in block_linears(model)
    ]
    with torch.no_grad():
        model(input_ids=tokens, use_cache=False)
    for handle in handles:
        handle.remove()
    return caught


@pytest.mark.parametrize("family", FAMILIES)
def test_moments_equal_a_plain_run(family: str) -> None:
    model = tiny_model(family)
    state = state_of(model)
    found = statistics_of(model, WINDOWS)
    assert same_state(model, state)
    for name, inputs in inputs_of_all(model, WINDOWS).items():
        wide = inputs.double()
        second = (wide.T @ wide / len(wide)).float()
        torch.testing.assert_close(found[name].second_moment, second, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[name].abs_mean, wide.abs().mean(0).float(), rtol=1e-4, atol=1e-5)
        assert found[name].tokens == WINDOWS.numel()


@pytest.mark.parametrize("family", FAMILIES)
def test_linears_share_a_statistic_exactly_when_they_share_their_input(family: str) -> None:
    model = tiny_model(family)
    layers = block_linears(model)
    inputs = inputs_of_all(model, WINDOWS)
    for block, found in block_statistics(model, layers, WINDOWS):
        names = [layer.name for layer in layers if layer.block == block]
        assert set(found.group_of) == set(names)
        assert set(found.groups) == set(found.group_of.values())
        for one in names:
            for other in names:
                same = inputs[one].shape == inputs[other].shape and torch.equal(inputs[one], inputs[other])
                assert (found.group_of[one] == found.group_of[other]) == same


def test_query_key_value_and_gate_up_are_measured_once() -> None:
    model = tiny_model("llama")
    _, first = next(iter(block_statistics(model, block_linears(model), WINDOWS)))
    assert len(first.groups) == 4  # attention input, its output, MLP input, its output
    attention = {first.group_of[f"model.layers.0.self_attn.{kind}_proj"] for kind in "qkv"}
    mlp = {first.group_of[f"model.layers.0.mlp.{kind}_proj"] for kind in ("gate", "up")}
    assert len(attention) == len(mlp) == 1


@pytest.mark.parametrize("batch", [1, 2, 5, 100])
def test_the_batch_does_not_matter(batch: int) -> None:
    model = tiny_model("qwen2")
    layers = block_linears(model)
    expected = dict(block_statistics(model, layers, WINDOWS, batch=3))
    for block, found in block_statistics(model, layers, WINDOWS, batch=batch):
        for group, inputs in found.groups.items():
            other = expected[block].groups[group].second_moment
            torch.testing.assert_close(inputs.second_moment, other, rtol=1e-4, atol=1e-5)


def test_progress_counts_every_batch_and_cancel_is_heard() -> None:
    model = tiny_model("llama")
    state = state_of(model)
    ticks: list[Progress] = []
    list(block_statistics(model, block_linears(model), WINDOWS, batch=2, on_progress=ticks.append))
    assert [tick.step for tick in ticks] == list(range(1, 3 * BLOCKS + 1))
    assert {tick.total for tick in ticks} == {3 * BLOCKS}
    seen: list[Progress] = []
    with pytest.raises(CancelledError):
        list(
            block_statistics(
                model,
                block_linears(model),
                WINDOWS,
                batch=2,
                on_progress=seen.append,
                should_stop=lambda: len(seen) == 4,
            )
        )
    assert same_state(model, state)


def test_inputs_that_are_not_finite_name_the_layer() -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.layers[1].self_attn.v_proj.weight[0, 0] = float("nan")
    with pytest.raises(NumericalError, match=r"model\.layers\.1\.self_attn\.o_proj"):
        statistics_of(model, WINDOWS)


def test_bfloat16_inputs_are_summed_in_full_precision() -> None:
    model = tiny_model("llama").to(torch.bfloat16)
    before = torch.get_float32_matmul_precision()
    found = statistics_of(model, WINDOWS)
    assert torch.get_float32_matmul_precision() == before
    for name, inputs in inputs_of_all(model, WINDOWS).items():
        wide = inputs.double()
        second = (wide.T @ wide / len(wide)).float()
        torch.testing.assert_close(found[name].second_moment, second, rtol=1e-2, atol=1e-2)
        assert found[name].second_moment.dtype == torch.float32
