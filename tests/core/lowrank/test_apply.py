"""Putting a plan on a model and taking it off again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from lrc_core.budget import dense_ranks, largest_low_rank, uniform_ranks
from lrc_core.decompose.factorise import Factors
from lrc_core.errors import PlanError
from lrc_core.lowrank.apply import PlanWeights, compressed, low_rank_layer
from lrc_core.lowrank.linear import LowRankLinear
from lrc_core.models.blocks.linears import block_linears, get_module, weight_of
from tests.factories.tiny_methods import MemoryFactors, modules_of, random_windows, same_state, state_of
from tests.factories.tiny_models import FAMILIES, tiny_model

TOKENS = random_windows(2, 24)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=TOKENS, use_cache=False).logits
        return found


@pytest.mark.parametrize("family", FAMILIES)
def test_a_plan_is_put_on_and_taken_off(family: str) -> None:
    model = tiny_model(family)
    layers, source = block_linears(model), MemoryFactors(model, random_windows(6, 32))
    before, modules, state = logits(model), modules_of(model), state_of(model)
    ranks = uniform_ranks(layers, 0.6)
    with compressed(model, layers, ranks, source) as small:
        assert small is model
        for layer in layers:
            module = get_module(model, layer.name)
            assert isinstance(module, LowRankLinear)
            assert (module.rank, module.out_features, module.in_features) == (
                ranks[layer.name],
                layer.out_features,
                layer.in_features,
            )
        assert not torch.allclose(logits(model), before, atol=1e-3)
    assert modules_of(model) == modules
    assert same_state(model, state)
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("family", FAMILIES)
def test_factors_of_full_rank_reproduce_the_model(family: str) -> None:
    """Biases, Conv1D and fused projections included: only the weight is replaced."""
    model = tiny_model(family)
    before = logits(model)
    source = MemoryFactors(model, random_windows(6, 32))
    originals = {}
    for layer in block_linears(model):
        module = originals[layer.name] = get_module(model, layer.name)
        replacement = low_rank_layer(module, source.factors(layer.name, layer.block), slice(None))
        model.set_submodule(layer.name, replacement)
    torch.testing.assert_close(logits(model), before, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_keep_one_is_the_dense_model_bit_for_bit(family: str) -> None:
    model = tiny_model(family)
    layers = block_linears(model)
    before = logits(model)
    with compressed(model, layers, dense_ranks(layers), _NoFactors()):
        assert torch.equal(logits(model), before)


class _NoFactors:
    def factors(self, name: str, block: int) -> Factors:
        raise AssertionError(f"the factors of the dense layer {name} were read")

    def sigma(self, name: str, block: int) -> torch.Tensor:
        raise AssertionError


def test_a_rank_at_break_even_stays_dense() -> None:
    model = tiny_model("llama")
    layers, source = block_linears(model), MemoryFactors(model, random_windows(6, 32))
    ranks = {layer.name: largest_low_rank(layer) + index % 2 for index, layer in enumerate(layers)}
    modules = modules_of(model)
    with compressed(model, layers, ranks, source):
        for index, layer in enumerate(layers):
            same = id(get_module(model, layer.name)) == modules[layer.name]
            assert same == bool(index % 2)


def test_kept_components_are_the_ones_used() -> None:
    model = tiny_model("gpt2")
    layers, source = block_linears(model), MemoryFactors(model, random_windows(6, 32))
    layer = layers[0]
    chosen = [0, 3, 5]
    ranks = {**dense_ranks(layers), layer.name: 3}
    with compressed(model, layers, ranks, source, {layer.name: chosen}):
        module = get_module(model, layer.name)
        assert isinstance(module, LowRankLinear)
        found = source.factors(layer.name, 0)
        torch.testing.assert_close(module.left @ module.right, found.left[:, chosen] @ found.right[chosen])


@pytest.mark.parametrize("chosen", [[0, 1], [0, 1, 99], [-1, 0, 1], [0, 0, 1], [0, 0, 1, 2], [0, 1, 2, 3]])
def test_kept_components_that_cannot_be_are_refused(chosen: list[int]) -> None:
    model = tiny_model("llama")
    layers, source = block_linears(model), MemoryFactors(model, random_windows(6, 32))
    modules = modules_of(model)
    ranks = {layer.name: 3 for layer in layers}
    kept = {layer.name: [0, 1, 2] for layer in layers} | {layers[4].name: chosen}
    with pytest.raises(PlanError, match=layers[4].name), compressed(model, layers, ranks, source, kept):
        pass
    assert modules_of(model) == modules


def test_a_failure_inside_puts_the_modules_back() -> None:
    model = tiny_model("llama")
    layers, source = block_linears(model), MemoryFactors(model, random_windows(6, 32))
    modules = modules_of(model)
    ranks = {layer.name: 2 for layer in layers}
    with pytest.raises(RuntimeError, match="inside"), compressed(model, layers, ranks, source):
        raise RuntimeError("inside")
    assert modules_of(model) == modules
    missing = dict(list(ranks.items())[:5])
    with pytest.raises(KeyError), compressed(model, layers, missing, source):
        pass
    assert modules_of(model) == modules


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_the_low_rank_form_has_the_originals_precision_and_bias(dtype: torch.dtype, bias: bool) -> None:
    dense = nn.Linear(12, 8, bias=bias, dtype=dtype)
    factors = Factors(torch.randn(8, 8), torch.randn(8, 12), torch.ones(8))
    module = low_rank_layer(dense, factors, slice(0, 5))
    assert {parameter.dtype for parameter in module.parameters()} == {dtype}
    assert not any(parameter.requires_grad for parameter in module.parameters())
    inputs = torch.randn(2, 3, 12, dtype=dtype)
    expected = inputs.float() @ (factors.left[:, :5] @ factors.right[:5]).T
    if bias:
        expected = expected + dense.bias.float()
    torch.testing.assert_close(
        module(inputs).float(), expected, rtol=0.1, atol=0.2 if dtype == torch.bfloat16 else 1e-4
    )
    assert sum(parameter.numel() for parameter in module.parameters()) == 5 * 20 + (8 if bias else 0)
    assert "rank=5" in repr(module)


def test_a_conv1d_is_seen_through() -> None:
    conv = Conv1D(6, 10)
    nn.init.normal_(conv.bias)
    full = Factors(torch.eye(6), weight_of(conv).detach().clone(), torch.ones(6))
    inputs = torch.randn(4, 10)
    torch.testing.assert_close(low_rank_layer(conv, full, slice(None))(inputs), conv(inputs))


def test_a_plan_may_bring_its_own_factors(tmp_path: Path) -> None:
    model = tiny_model("llama")
    layers, source = block_linears(model), MemoryFactors(model, random_windows(6, 32))
    brought, other = layers[3], layers[4]
    own = {f"{brought.name}.left": torch.randn(32, 4), f"{brought.name}.right": torch.randn(4, 32)}
    save_file(own, tmp_path / "weights.safetensors")
    weights = PlanWeights(tmp_path / "weights.safetensors", source)
    ranks = {**dense_ranks(layers), brought.name: 4, other.name: 4}
    with compressed(model, layers, ranks, weights):
        first, second = (get_module(model, layer.name) for layer in (brought, other))
        assert isinstance(first, LowRankLinear)
        assert isinstance(second, LowRankLinear)
        assert torch.equal(first.left, own[f"{brought.name}.left"])
        assert torch.equal(first.right, own[f"{brought.name}.right"])
        assert torch.equal(second.left, source.factors(other.name, 0).left[:, :4])
    assert torch.equal(weights.sigma(brought.name, 0), source.sigma(brought.name, 0))


@pytest.mark.parametrize("content", [None, b"", b"\xff" * 40])
def test_weights_that_cannot_be_read_are_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "weights.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PlanError, match=r"weights\.safetensors cannot be read"):
        PlanWeights(path, _NoFactors())


def test_weights_too_few_for_the_rank_are_refused(tmp_path: Path) -> None:
    model = tiny_model("llama")
    layers, source = block_linears(model), MemoryFactors(model, random_windows(6, 32))
    name = layers[3].name
    save_file({f"{name}.left": torch.randn(32, 3), f"{name}.right": torch.randn(3, 32)}, tmp_path / "few.safetensors")
    save_file({f"{name}.left": torch.randn(32, 3)}, tmp_path / "half.safetensors")
    modules = modules_of(model)
    for file, words in (("few", "fewer components than its rank 4"), ("half", "lack")):
        weights = PlanWeights(tmp_path / f"{file}.safetensors", source)
        with (
            pytest.raises(PlanError, match=words),
            compressed(model, layers, {**dense_ranks(layers), name: 4}, weights),
        ):
            pass
    assert modules_of(model) == modules
