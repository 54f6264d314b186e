"""Streamed second moments of output gradients equal those of a plain backward pass, in every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lrc_core.allocate.probing.prober import LayerProber
from lrc_core.calibrate.gradients import block_gradients, drawn
from lrc_core.errors import CancelledError, NumericalError
from lrc_core.models.blocks.linears import block_linears, get_module
from lrc_core.models.blocks.partial import logits_from
from lrc_core.types import Progress
from tests.factories.tiny_methods import MemoryFactors, random_windows, same_state, state_of
from tests.factories.tiny_models import BLOCKS, FAMILIES, tiny_model

WINDOWS = random_windows(5, 24)


def streamed(model: nn.Module, windows: Tensor = WINDOWS, **more: Any) -> dict[str, Tensor]:
    found = block_gradients(model, block_linears(model), windows, **{"batch": 2, **more})
    return {name: moment for _, block in found for name, moment in block.items()}


def plain(model: Any, batch: int = 2, seed: int = 0) -> dict[str, Tensor]:
    """One whole backward pass a batch, on the same drawn labels."""
    sums: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(seed)
    for tokens in WINDOWS.split(batch):
        outputs: dict[str, Tensor] = {}
        handles = [
            get_module(model, layer.name).register_forward_hook(
                lambda _, __, output, name=layer.name, into=outputs: into.__setitem__(name, output)
            )
            for layer in block_linears(model)
        ]
        embedded = model.get_input_embeddings()(tokens).detach().requires_grad_()
        logits = model(inputs_embeds=embedded, use_cache=False).logits.flatten(0, 1)
        for handle in handles:
            handle.remove()
        labels = drawn(torch.softmax(logits.detach().float(), -1), generator)
        loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
        for name, gradient in zip(outputs, torch.autograd.grad(loss, list(outputs.values())), strict=True):
            rows = gradient.reshape(-1, gradient.shape[-1]).double()
            sums[name] = sums.get(name, 0) + rows.T @ rows
    return {name: total.float() / WINDOWS.numel() for name, total in sums.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_moments_equal_a_plain_backward_pass(family: str) -> None:
    model = tiny_model(family)
    state = state_of(model)
    found = streamed(model)
    assert same_state(model, state)
    assert all(parameter.grad is None for parameter in model.parameters())
    expected = plain(model)
    assert found.keys() == expected.keys() == {layer.name for layer in block_linears(model)}
    for name, moment in expected.items():
        torch.testing.assert_close(found[name], moment, rtol=1e-3, atol=1e-4 * float(moment.abs().max()))


def test_labels_are_drawn_as_often_as_they_are_predicted() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -30.0, 0.5])
    labels = drawn(torch.softmax(logits, 0).expand(20000, 5), torch.Generator().manual_seed(0))
    frequencies = torch.bincount(labels, minlength=5) / 20000
    torch.testing.assert_close(frequencies, torch.softmax(logits, 0), atol=0.015, rtol=0)


def test_the_same_twice() -> None:
    model = tiny_model("llama")
    first, again = streamed(model), streamed(model)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_progress_ends_at_its_total_and_a_cancel_leaves_the_model_alone() -> None:
    model = tiny_model("gpt2")
    state, ticks = state_of(model), list[Progress]()
    streamed(model, on_progress=ticks.append)
    assert [tick.step for tick in ticks] == list(range(1, ticks[0].total + 1 - 3))  # no forward run of the last block
    for stop_at in (2, len(ticks) - 1):
        seen: list[Progress] = []
        with pytest.raises(CancelledError):
            streamed(model, on_progress=seen.append, should_stop=lambda seen=seen, at=stop_at: len(seen) >= at)
        assert same_state(model, state)


def test_gradients_that_are_not_finite_name_the_layer() -> None:
    model = tiny_model("llama")
    layer = block_linears(model)[-1]
    assert layer.block == BLOCKS - 1
    get_module(model, layer.name).weight.data[0, 0] = float("nan")
    with pytest.raises(NumericalError, match=rf"outputs of {layer.name.rsplit('.', 2)[0]}"):
        streamed(model)


def test_half_precision_is_summed_in_full() -> None:
    model = tiny_model("llama").to(torch.bfloat16)
    expected = plain(model)
    for name, moment in streamed(model).items():
        assert moment.dtype == torch.float32
        assert float((moment - expected[name]).norm() / expected[name].norm()) < 0.05


@pytest.fixture(scope="module")
def two_sided() -> tuple[Any, Tensor, MemoryFactors]:
    """A model, windows and the model's factors on them."""
    model, windows = tiny_model("llama"), random_windows(160, 32, seed=1)
    return model, windows, MemoryFactors(model, windows, "kfac")


@pytest.mark.parametrize("kind", ["q_proj", "o_proj", "up_proj", "down_proj"])
def test_half_the_discarded_energy_is_the_divergence_that_a_truncation_causes(
    kind: str, two_sided: tuple[Any, Tensor, MemoryFactors]
) -> None:
    """The estimate of the two-sided decomposition against the measured KL from the dense predictions."""
    model, windows, source = two_sided
    layer = next(layer for layer in block_linears(model) if layer.name.endswith(kind) and layer.block == BLOCKS - 1)
    found = source.factors(layer.name, layer.block)
    rank = layer.full_rank - layer.full_rank // 4
    predicted = 0.5 * float(found.sigma[rank:].square().sum())
    prober = LayerProber(model, source, windows)
    with torch.no_grad():
        dense = torch.log_softmax(logits_from(model, windows, 0, prober._inputs[0]), -1)
        module = get_module(model, layer.name)
        weight = module.weight.data.clone()
        module.weight.data = found.left[:, :rank] @ found.right[:rank]
        truncated = torch.log_softmax(logits_from(model, windows, 0, prober._inputs[0]), -1)
        module.weight.data = weight
    measured = float((dense.exp() * (dense - truncated)).sum(-1).mean())
    assert predicted == pytest.approx(measured, rel=0.5)
