"""Masked linears: their value and gradients against autograd, and nothing left behind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers.pytorch_utils import Conv1D

from lrc_core.lowrank.apply import compressed
from lrc_core.lowrank.masked import MaskedLinear, masked_layers
from lrc_core.models.blocks.linears import block_linears
from tests.factories.tiny_methods import MemoryFactors, modules_of, random_windows, same_state, state_of
from tests.factories.tiny_models import FAMILIES, tiny_model


def reference(inputs: Tensor, mask: Tensor, left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
    """The same product, left to autograd."""
    outputs = ((inputs @ right.T) * mask) @ left.T
    return outputs if bias is None else outputs + bias


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("leading", [(7,), (2, 5), (2, 3, 4)])
def test_value_and_gradients_are_autograds(bias: bool, leading: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    dense = nn.Linear(6, 9, bias=bias, dtype=torch.float64).requires_grad_(False)
    left, right = full_rank_factors(dense)
    inputs = torch.randn(*leading, 6, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(6, dtype=torch.float64, requires_grad=True)
    module = MaskedLinear(dense, left, right)
    module.mask = mask
    outputs = module(inputs)
    expected = reference(inputs, mask, left, right, dense.bias)
    check_gradients(outputs, expected, inputs, mask)


def full_rank_factors(dense: nn.Linear) -> tuple[Tensor, Tensor]:
    left, sigma, right = torch.linalg.svd(dense.weight, full_matrices=False)
    return left * sigma, right


def check_gradients(outputs: Tensor, expected: Tensor, inputs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    torch.testing.assert_close(outputs, expected)
    weights = torch.randn(outputs.shape, dtype=torch.float64)
    found = torch.autograd.grad((outputs * weights).sum(), (inputs, mask))
    wanted = torch.autograd.grad((expected * weights).sum(), (inputs, mask))
    torch.testing.assert_close(found[0], wanted[0])
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-5, atol=1e-5)  # the mask's is summed in float32
    return found[1], wanted[1]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("off", [0, 1, 7, 8, 12, 15, 16])
@pytest.mark.parametrize("trained", [0, 1, 5])
def test_leaving_out_what_does_not_matter_changes_nothing(bias: bool, off: int, trained: int) -> None:
    """Few components off: the dense weight minus those. Many: only those on. Either way the same value and gradients,
    but for masks that need none."""
    torch.manual_seed(off)
    dense = nn.Linear(16, 20, bias=bias, dtype=torch.float64).requires_grad_(False)
    left, right = full_rank_factors(dense)
    inputs = torch.randn(2, 3, 16, dtype=torch.float64, requires_grad=True)
    order = torch.randperm(16)
    values = torch.ones(16, dtype=torch.float64)
    values[order[:off]] = 0
    chosen = torch.zeros(16, dtype=torch.bool)
    chosen[torch.randperm(16)[:trained]] = True
    mask = values.clone().requires_grad_()
    module = MaskedLinear(dense, left, right)
    module.mask, module.trained = mask, chosen
    outputs = module(inputs)
    expected = reference(inputs, values, left, right, dense.bias)
    torch.testing.assert_close(outputs, expected)
    weights = torch.randn(outputs.shape, dtype=torch.float64)
    wanted_inputs, wanted_mask = torch.autograd.grad(
        (reference(inputs, mask, left, right, dense.bias) * weights).sum(), (inputs, mask)
    )
    (outputs * weights).sum().backward()
    torch.testing.assert_close(inputs.grad, wanted_inputs)
    assert mask.grad is not None
    torch.testing.assert_close(mask.grad[chosen], wanted_mask[chosen], rtol=1e-5, atol=1e-5)


def test_the_gradient_is_the_slope() -> None:
    torch.manual_seed(1)
    dense = nn.Linear(4, 4, bias=False, dtype=torch.float64).requires_grad_(False)
    inputs = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    module = MaskedLinear(dense, *full_rank_factors(dense))

    for mask in (torch.rand(4, dtype=torch.float64), torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64)):

        def value(x: Tensor) -> Tensor:
            module.mask = mask  # noqa: B023 - called at once
            found: Tensor = module(x)
            return found.sin()

        assert torch.autograd.gradcheck(value, (inputs,))


def test_only_what_is_needed_is_computed() -> None:
    """In products of matrices: two forward, one for the gradient of the mask, one more for that of the inputs."""
    dense = nn.Linear(4, 4).requires_grad_(False)
    module = MaskedLinear(dense, *full_rank_factors(dense))
    product = 2 * 3 * 4 * 4
    for needed in (False, True):
        inputs = torch.randn(3, 4, requires_grad=needed)
        module.mask = torch.ones(4, requires_grad=True)
        with FlopCounterMode(display=False) as counter:
            module(inputs).sum().backward()
        assert counter.get_total_flops() == (4 if needed else 3) * product
        assert module.mask.grad is not None and (inputs.grad is not None) == needed


@pytest.mark.parametrize("bias", [True, False])
def test_a_dense_layer_can_give_its_mask_a_gradient(bias: bool) -> None:
    """With factors of full rank it is the product under a mask of ones; cut factors get the same slopes."""
    torch.manual_seed(2)
    dense = nn.Linear(6, 9, bias=bias, dtype=torch.float64).requires_grad_(False)
    left, right = full_rank_factors(dense)
    inputs = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    ones = torch.ones(6, dtype=torch.float64, requires_grad=True)
    module = MaskedLinear(dense, left, right)
    module.mask, module.run_dense = ones, True
    check_gradients(module(inputs), reference(inputs, ones, left, right, dense.bias), inputs, ones)

    mask = torch.rand(4, dtype=torch.float64, requires_grad=True)  # what it is worth does not matter
    module = MaskedLinear(dense, left[:, :4], right[:4])
    module.mask, module.run_dense = mask, True
    outputs = module(inputs)
    assert torch.equal(outputs, dense(inputs))
    torch.manual_seed(3)
    weights = torch.randn(outputs.shape, dtype=torch.float64)
    found = torch.autograd.grad((outputs * weights).sum(), (inputs, mask))
    wanted = torch.autograd.grad((reference(inputs, ones, left, right, dense.bias) * weights).sum(), (inputs, ones))
    torch.testing.assert_close(found[0], wanted[0])
    torch.testing.assert_close(found[1], wanted[1][:4], rtol=1e-5, atol=1e-5)

    module.trained = torch.tensor([False, True, True, False])
    (few,) = torch.autograd.grad((module(inputs) * weights).sum(), mask)
    torch.testing.assert_close(few, found[1] * module.trained)


@pytest.mark.parametrize("dense", [nn.Linear(6, 4), Conv1D(4, 6)])
def test_without_a_mask_the_layer_is_the_dense_one(dense: nn.Module) -> None:
    inputs = torch.randn(3, 6)
    module = MaskedLinear(dense.requires_grad_(False), torch.zeros(4, 4), torch.zeros(4, 6))
    assert torch.equal(module(inputs), dense(inputs))
    module.mask = torch.zeros(4)
    torch.testing.assert_close(module(inputs), dense.bias.expand(3, 4))


def test_the_mask_keeps_its_gradient_in_bfloat16() -> None:
    dense = nn.Linear(6, 4, bias=False).requires_grad_(False)
    left, right = full_rank_factors(dense)
    module = MaskedLinear(dense.bfloat16(), left.bfloat16(), right.bfloat16())
    mask = torch.ones(4, requires_grad=True)
    module.mask = mask
    outputs = module(torch.randn(3, 6).bfloat16())
    assert outputs.dtype == torch.bfloat16
    outputs.sum().backward()
    assert mask.grad is not None
    assert mask.grad.dtype == torch.float32


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mask_of_zeros_and_ones_is_a_plan(family: str) -> None:
    """What training sees is what the plan will give, biases and Conv1D included."""
    model = tiny_model(family)
    layers, source = block_linears(model), MemoryFactors(model, random_windows(6, 32))
    tokens, state, modules = random_windows(2, 16), state_of(model), modules_of(model)
    kept = {layer.name: [0, 2, 3, 5, 7] for layer in layers}
    with torch.no_grad(), compressed(model, layers, {layer.name: 5 for layer in layers}, source, kept):
        expected = model(input_ids=tokens, use_cache=False).logits
    pairs = {layer.name: (source.factors(layer.name, 0).left, source.factors(layer.name, 0).right) for layer in layers}
    with torch.no_grad(), masked_layers(model, pairs) as masked:
        assert set(masked) == {layer.name for layer in layers}
        for layer in layers:
            mask = torch.zeros(layer.full_rank)
            mask[kept[layer.name]] = 1
            masked[layer.name].mask = mask
        torch.testing.assert_close(model(input_ids=tokens, use_cache=False).logits, expected, rtol=1e-3, atol=1e-3)
    assert modules_of(model) == modules
    assert same_state(model, state)


def test_a_failure_inside_puts_the_modules_back() -> None:
    model = tiny_model("llama")
    layers, source = block_linears(model), MemoryFactors(model, random_windows(6, 32))
    modules = modules_of(model)
    pairs = {layers[0].name: (source.factors(layers[0].name, 0).left, source.factors(layers[0].name, 0).right)}
    with pytest.raises(RuntimeError, match="inside"), masked_layers(model, pairs):
        raise RuntimeError("inside")
    assert modules_of(model) == modules
