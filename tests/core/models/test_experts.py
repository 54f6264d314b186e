"""Experts of mixtures: linears of their own that compute what the stack did, found and compressed like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lrc_core.allocate  # noqa: F401  registers them
from lrc_core.allocate.protocol import allocated
from lrc_core.budget import is_dense, plan_params, uniform_ranks
from lrc_core.calibrate.factor_model import Calibrated, factors, moments, spectra
from lrc_core.calibrate.statistics import Notes, Statistics
from lrc_core.coverage import family, is_expert
from lrc_core.lowrank.apply import compressed
from lrc_core.models.blocks.experts import unstack_experts
from lrc_core.models.blocks.linears import block_linears, find_blocks, get_module, weight_of
from lrc_core.models.checks.first_look import first_look
from lrc_core.registry import ALLOCATORS, DECOMPOSITIONS, MethodEntry
from tests.factories.tiny_methods import context_for
from tests.factories.tiny_models import BLOCKS, HIDDEN, MIXTURES, tiny_model, tiny_text, tiny_tokenizer

STACKED = {"gate_up_proj", "up_proj", "down_proj", "w1", "v1", "w2"}


def tokens(count: int = 6, window: int = 24, seed: int = 0) -> Tensor:
    ids = tiny_tokenizer()(tiny_text(count * window, seed)).input_ids
    return torch.tensor(ids[: count * window]).view(count, window)


def logits(model: nn.Module, ids: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=ids, use_cache=False).logits
    return found


def stacks(model: nn.Module) -> dict[str, Tensor]:
    """Expert parameters as the model stores them."""
    return {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if (name.split(".")[-1] in STACKED or parameter.ndim == 3) and "conv" not in name
    }


@pytest.mark.parametrize("name", MIXTURES)
def test_experts_of_their_own_compute_what_the_stack_computed(name: str) -> None:
    model, ids = tiny_model(name), tokens()
    before, held = logits(model, ids), sum(parameter.numel() for parameter in model.parameters())
    stacked = stacks(model)
    assert stacked and unstack_experts(model)
    torch.testing.assert_close(logits(model, ids), before, rtol=1e-4, atol=1e-5)
    assert sum(parameter.numel() for parameter in model.parameters()) == held, "weights are views, none is copied"
    blocks = find_blocks(model, first_look(model).called)
    experts = sum(layer.params for layer in blocks.layers if is_expert(layer.kind))
    assert experts == sum(tensor.numel() for tensor in stacked.values()), "every expert counts, once"
    assert not any("router" in layer.kind for layer in blocks.layers), "routers choose, and are left alone"


def test_views_are_the_matrices_that_are_stored() -> None:
    """By hand: concatenated as in Mixtral, and turned with gate and up in turn as in gpt-oss."""
    plain, turned = tiny_model("mixtral"), tiny_model("gpt_oss")
    stored = stacks(plain)["model.layers.1.mlp.experts.gate_up_proj"]
    other = stacks(turned)
    unstack_experts(plain)
    unstack_experts(turned)
    half = stored.shape[1] // 2
    weight = weight_of(get_module(plain, "model.layers.1.mlp.experts.3.up_proj"))
    assert torch.equal(weight, stored[3, half:])
    both = other["model.layers.0.mlp.experts.gate_up_proj"][2].T
    assert torch.equal(weight_of(get_module(turned, "model.layers.0.mlp.experts.2.gate_proj")), both[0::2])
    assert torch.equal(weight_of(get_module(turned, "model.layers.0.mlp.experts.2.up_proj")), both[1::2])
    down = weight_of(get_module(turned, "model.layers.0.mlp.experts.2.down_proj"))
    assert torch.equal(down, other["model.layers.0.mlp.experts.down_proj"][2].T)


def test_what_only_looks_like_experts_is_left_as_it_was() -> None:
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.num_experts = 3
            self.gate_up_proj = nn.Parameter(torch.randn(3, 8, 4))
            self.down_proj = nn.Parameter(torch.randn(3, 4, 4))

        def forward(self, inputs: Tensor, index: Tensor, weights: Tensor) -> Tensor:
            return inputs * self.down_proj.sum()

    module = nn.Sequential(Other())
    inputs = torch.randn(5, 4)
    before = module[0](inputs, inputs, inputs)
    assert unstack_experts(module) == ()
    assert torch.equal(module[0](inputs, inputs, inputs), before)
    assert [name for name, _ in module.named_parameters()] == ["0.gate_up_proj", "0.down_proj"]


@pytest.mark.parametrize("name", ["mixtral", "gpt_oss", "jetmoe"])
@pytest.mark.parametrize("decomposition", DECOMPOSITIONS.names())
def test_every_decomposition_reproduces_the_model_at_full_rank(name: str, decomposition: str, tmp_path: Path) -> None:
    model, ids = tiny_model(name), tokens(8, 48)
    unstack_experts(model)
    layers = find_blocks(model, first_look(model).called).layers
    entry = DECOMPOSITIONS.get(decomposition)
    calibrated = Calibrated(model, layers, "f", ids, tmp_path)
    store = factors(calibrated, entry, entry.settings())
    for layer in layers:
        found = store.factors(layer.name, layer.block)
        weight = weight_of(get_module(model, layer.name))
        torch.testing.assert_close(found.left @ found.right, weight, rtol=2e-3, atol=2e-3)


def test_plain_spectra_of_experts_are_those_of_numpy(tmp_path: Path) -> None:
    model = tiny_model("gpt_oss")
    stored = stacks(model)["model.layers.2.mlp.experts.down_proj"].numpy()
    unstack_experts(model)
    entry = DECOMPOSITIONS.get("svd")
    calibrated = Calibrated(model, block_linears(model), "f", tokens(), tmp_path)
    found = spectra(calibrated, entry, entry.settings())
    for expert, matrix in enumerate(stored):
        expected = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
        np.testing.assert_allclose(found[f"model.layers.2.mlp.experts.{expert}.down_proj"], expected, rtol=1e-6)


def test_a_plan_on_experts_gives_what_dense_products_give(tmp_path: Path) -> None:
    """The stacked model with W replaced by left right, through transformers' own code."""
    model, ids = tiny_model("mixtral"), tokens(8, 48)
    reference = tiny_model("mixtral")
    unstack_experts(model)
    layers = find_blocks(model, first_look(model).called).layers
    entry = DECOMPOSITIONS.get("whitened")
    store = factors(Calibrated(model, layers, "f", ids, tmp_path), entry, entry.settings())
    ranks = uniform_ranks(layers, 0.5)
    for layer in layers:
        if is_dense(layer, ranks[layer.name]):
            continue
        found, rank = store.factors(layer.name, layer.block), ranks[layer.name]
        product = found.left[:, :rank] @ found.right[:rank]
        if not is_expert(layer.kind):
            get_module(reference, layer.name).weight.copy_(product)
            continue
        number, kind = layer.name.split(".")[-2:]
        experts = get_module(reference, layer.name.rsplit(".", 2)[0])
        half = experts.gate_up_proj.shape[1] // 2
        target = {"gate_proj": slice(0, half), "up_proj": slice(half, None)}.get(kind)
        if target is None:
            experts.down_proj[int(number)] = product
        else:
            experts.gate_up_proj[int(number), target] = product
    with compressed(model, layers, ranks, store):
        found = logits(model, ids)
    torch.testing.assert_close(found, logits(reference, ids), rtol=1e-3, atol=1e-4)
    assert plan_params(layers, ranks) / sum(layer.params for layer in layers) <= 0.5


def test_errors_of_an_expert_count_for_the_tokens_that_reach_it(tmp_path: Path) -> None:
    """The discarded sigma^2 is the squared error of the outputs, summed over routed tokens, per token of the text."""
    model, ids = tiny_model("mixtral"), tokens(8, 48)
    unstack_experts(model)
    layers = find_blocks(model, first_look(model).called).layers
    name = "model.layers.0.mlp.experts.1.gate_proj"
    seen: list[Tensor] = []
    handle = get_module(model, name).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    logits(model, ids)
    handle.remove()
    inputs = torch.cat(seen).double()
    assert HIDDEN <= len(inputs) < ids.numel()
    entry = DECOMPOSITIONS.get("whitened")
    store = factors(Calibrated(model, layers, "f", ids, tmp_path), entry, entry.settings())
    found, weight = store.factors(name, 0), weight_of(get_module(model, name)).double()
    missing = weight - found.left[:, :5].double() @ found.right[:5].double()
    expected = float((inputs @ missing.T).square().sum()) / ids.numel()
    assert float(found.sigma[5:].double().square().sum()) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("decomposition", ["whitened", "kfac"])
def test_an_expert_without_tokens_takes_the_statistics_of_its_block(decomposition: str, tmp_path: Path) -> None:
    model, ids = tiny_model("gpt_oss"), tokens(8, 48)
    get_module(model, "model.layers.1.mlp.router").bias[2] = -1e4
    unstack_experts(model)
    layers, entry, notes = block_linears(model), DECOMPOSITIONS.get(decomposition), Notes()
    found = spectra(
        Calibrated(model, layers, "f", ids, tmp_path),
        entry,
        entry.settings(),
        notes=notes,
    )
    assert found.keys() == {layer.name for layer in layers}
    assert all(torch.isfinite(sigma).all() and float(sigma[0]) > 0 for sigma in found.values())
    alone = {f"model.layers.1.mlp.experts.2.{kind}": 0 for kind in ("gate_proj", "up_proj", "down_proj")}
    assert notes.shared == alone, "it, and no other"
    assert any("experts.2" in sentence and "0 tokens" in sentence for sentence in notes.sentences())


def test_the_statistics_of_a_block_are_the_mean_over_all_routed_tokens(tmp_path: Path) -> None:
    model, ids = tiny_model("gpt_oss"), tokens(8, 48)
    get_module(model, "model.layers.1.mlp.router").bias[2] = -1e4
    unstack_experts(model)
    layers = find_blocks(model, first_look(model).called).layers
    kind = "down_proj"
    seen: list[Tensor] = []
    names = [f"model.layers.1.mlp.experts.{number}.{kind}" for number in (0, 1, 3)]
    hooks = [get_module(model, name).register_forward_pre_hook(lambda _, args: seen.append(args[0])) for name in names]
    logits(model, ids)
    for hook in hooks:
        hook.remove()
    inputs = torch.cat(seen).double()
    calibrated = Calibrated(model, layers, "f", ids, tmp_path)
    layer = next(layer for layer in layers if layer.name == f"model.layers.1.mlp.experts.2.{kind}")
    found = Statistics(layers, moments(calibrated), None, Notes()).of(layer)
    torch.testing.assert_close(found.second_moment.double(), inputs.T @ inputs / len(inputs), rtol=1e-4, atol=1e-6)
    assert found.share == 1 / ids.numel()


def test_paths_of_experts() -> None:
    assert is_expert("mlp.experts.12.up_proj") and is_expert("block_sparse_moe.experts.0.w1")
    assert is_expert("mlp.input_linear.3") and not is_expert("mlp.shared_expert.up_proj")
    assert not is_expert("self_attn.q_proj")
    assert family("mlp.experts.12.up_proj") == "mlp.experts.*.up_proj"
    assert family("self_attn.q_proj") == "self_attn.q_proj"
    assert len({family(layer.kind) for layer in block_linears(tiny_model("mixtral"))}) == 4
    model = tiny_model("mixtral")
    unstack_experts(model)
    assert len(block_linears(model)) == BLOCKS * (4 + 4 * 3)


@pytest.mark.parametrize("entry", list(ALLOCATORS), ids=lambda entry: entry.name)
def test_every_method_allocates_on_a_mixture(entry: MethodEntry, tmp_path: Path) -> None:
    model, ids = tiny_model("mixtral"), tokens(8, 48)
    unstack_experts(model)
    layers = find_blocks(model, first_look(model).called).layers
    decomposition = DECOMPOSITIONS.get("whitened")
    store = factors(Calibrated(model, layers, "f", ids, tmp_path / "cache"), decomposition, decomposition.settings())
    given = context_for(model, tmp_path, keep=0.6, source=store)
    found = allocated(entry, given, entry.settings(next(iter(entry.presets)), entry.tiny))
    shapes = None if found.structure is None else found.structure.shapes(layers)
    total = sum(layer.params for layer in layers)
    assert plan_params(layers, found.ranks, shapes) <= 0.6 * total
    cut = [layer for layer in layers if is_expert(layer.kind) and found.ranks[layer.name] < layer.full_rank]
    assert cut or shapes
