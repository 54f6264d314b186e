"""Sensitivity of components against a naive autograd reference with the same sampled labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lrc_core.allocate.curves.sensitivity import component_sensitivity
from lrc_core.errors import CancelledError
from lrc_core.models.blocks.linears import bias_of, block_linears, get_module
from lrc_core.types import Progress
from tests.factories.tiny_methods import MemoryFactors, context_for, random_windows, same_state, state_of
from tests.factories.tiny_models import FAMILIES, tiny_model

BATCHES = [random_windows(2, 12, seed=1), random_windows(3, 10, seed=2)]


def pairs_of(model: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    source = MemoryFactors(model, random_windows(6, 32))
    found = {layer.name: source.factors(layer.name, layer.block) for layer in block_linears(model)}
    return {name: (factors.left, factors.right) for name, factors in found.items()}


def measured(model: nn.Module, pairs: Any, batches: Any = BATCHES, **more: Any) -> dict[str, Any]:
    context = context_for(model, Path(), **{"source": object(), "seed": 3, **more})
    return component_sensitivity(context, pairs, batches)


class PositionMasked(nn.Module):
    """Every position has a mask of its own, so that autograd gives every position's slope."""

    def __init__(self, left: Tensor, right: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.left, self.right, self.bias_ = left, right, bias
        self.mask: Tensor | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs @ self.right.T
        self.mask = torch.ones_like(hidden, requires_grad=True)
        outputs = (hidden * self.mask) @ self.left.T
        return outputs if self.bias_ is None else outputs + self.bias_


def naive(model: Any, pairs: dict[str, tuple[Tensor, Tensor]]) -> dict[str, np.ndarray]:
    modules = {}
    for name, (left, right) in pairs.items():
        modules[name] = PositionMasked(left, right, bias_of(get_module(model, name)))
        model.set_submodule(name, modules[name])
    generator = torch.Generator().manual_seed(3)
    sums = {name: torch.zeros(left.shape[1], dtype=torch.float64) for name, (left, _) in pairs.items()}
    for tokens in BATCHES:
        logits = model(input_ids=tokens, use_cache=False).logits.flatten(0, 1)
        noise = -torch.empty(logits.shape).exponential_(generator=generator).log()
        labels = (logits.detach() + noise).argmax(-1)
        loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
        masks = [module.mask for module in modules.values()]
        for name, grad in zip(modules, torch.autograd.grad(loss, masks), strict=True):
            sums[name] += grad.double().square().flatten(0, -2).sum(0)
    tokens_seen = sum(tokens.numel() for tokens in BATCHES)
    return {name: (total / (2 * tokens_seen)).numpy() for name, total in sums.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_sensitivity_is_the_naive_one(family: str) -> None:
    model = tiny_model(family)
    pairs, state = pairs_of(model), state_of(model)
    found = measured(model, pairs)
    assert same_state(model, state)
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())
    expected = naive(model, pairs)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=2e-3, atol=1e-6 * values.max())


def test_a_seed_means_the_same_labels() -> None:
    model = tiny_model("llama")
    pairs = pairs_of(model)
    first, again, other = measured(model, pairs), measured(model, pairs), measured(model, pairs, seed=4)
    assert all((first[name] == again[name]).all() for name in first)
    assert any((first[name] != other[name]).any() for name in first)


def test_progress_and_cancel() -> None:
    model = tiny_model("llama")
    pairs, state = pairs_of(model), state_of(model)
    ticks: list[Progress] = []
    measured(model, pairs, on_progress=ticks.append)
    assert [(tick.step, tick.total) for tick in ticks] == [(1, 2), (2, 2)]
    with pytest.raises(CancelledError):
        measured(model, pairs, should_stop=lambda: True)
    assert same_state(model, state)
