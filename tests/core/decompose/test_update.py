"""The closed-form update of a whole model: the walk through both models, and what it never does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lrc_core.budget import dense_ranks, uniform_ranks
from lrc_core.calibrate.update_factors import LayerUpdate, UpdateCallbacks, updated_blocks
from lrc_core.decompose.factorise import Factors
from lrc_core.decompose.update import (
    PairedMoments,
    component_sizes,
    damped,
    update_both,
)
from lrc_core.errors import CancelledError, NumericalError
from lrc_core.lowrank.apply import compressed
from lrc_core.models.blocks.linears import block_linears, get_module, weight_of
from lrc_core.plan import Plan, make_plan
from lrc_core.types import Progress
from lrc_core.updates import UpdateSettings
from tests.factories.tiny_methods import MemoryFactors, card_of, modules_of, random_windows, same_state, state_of
from tests.factories.tiny_models import BLOCKS, FAMILIES, tiny_model

WINDOWS = random_windows(6, 40)
EXACT = UpdateSettings(damping=0.0)


def moments_of(dense: Tensor, small: Tensor) -> PairedMoments:
    return PairedMoments(small.T @ small / len(small), dense.T @ small / len(small), len(small))


def a_plan(model: Any, keep: float = 0.5, kept: Any = None) -> Plan:
    card = card_of(model)
    ranks = uniform_ranks(card.layers, keep)
    return make_plan(card, ranks, decomposition="whitened", method="uniform", keep_target=keep, kept=kept)


def updates_of(
    model: Any, plan: Plan, source: Any, settings: UpdateSettings = EXACT, **more: Any
) -> dict[str, LayerUpdate]:
    found: dict[str, LayerUpdate] = {}
    for _, updates in updated_blocks(model, plan, source, WINDOWS, settings, UpdateCallbacks(**more), batch=4):
        found.update(updates)
    return found


class Updated:
    """Factors of updates as a source."""

    def __init__(self, updates: dict[str, LayerUpdate]) -> None:
        self._updates = updates

    def factors(self, name: str, block: int) -> Any:
        from lrc_core.decompose.factorise import Factors

        found = self._updates[name]
        return Factors(found.left, found.right, component_sizes(found.left, found.right))

    def sigma(self, name: str, block: int) -> Tensor:
        raise AssertionError


def inputs_and_outputs(model: Any, names: list[str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """[tokens, n] inputs and [tokens, m] outputs without bias of every named linear, in one plain run."""
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}

    def hook(name: str) -> Any:
        def keep(module: Any, args: Any, output: Tensor) -> None:
            bias = getattr(module, "bias", None)
            inputs[name] = args[0].reshape(-1, args[0].shape[-1]).double()
            outputs[name] = (output - (0 if bias is None else bias)).reshape(-1, output.shape[-1]).double()

        return keep

    handles = [get_module(model, name).register_forward_hook(hook(name)) for name in names]
    with torch.no_grad():
        model(input_ids=WINDOWS, use_cache=False)
    for handle in handles:
        handle.remove()
    return inputs, outputs


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_is_the_least_squares_fit_of_its_own_inputs_to_dense_outputs(family: str) -> None:
    """Stacked activations of the finished model, solved by lstsq: no layer could do better with its right factor."""
    model = tiny_model(family)
    state, modules = state_of(model), modules_of(model)
    plan, source = a_plan(model), MemoryFactors(model, random_windows(6, 32, seed=1))
    updates = updates_of(model, plan, source)
    assert same_state(model, state)
    assert modules_of(model) == modules
    assert set(updates) == set(plan.ranks)
    layers = block_linears(model)
    _, wanted = inputs_and_outputs(model, list(plan.ranks))
    with compressed(model, layers, plan.full_ranks(layers), Updated(updates)):
        seen, got = inputs_and_outputs(model, list(plan.ranks))
    for name, found in updates.items():
        hidden = seen[name] @ found.right.double().T
        expected = hidden @ torch.linalg.lstsq(hidden, wanted[name]).solution
        best = float((wanted[name] - expected).square().sum() / wanted[name].square().sum())
        mine = float((wanted[name] - got[name]).square().sum() / wanted[name].square().sum())
        assert mine == pytest.approx(best, rel=2e-3, abs=1e-6), name
        assert found.after == pytest.approx(mine, rel=2e-3, abs=1e-5), name
        assert found.after <= found.before


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi"])
@pytest.mark.parametrize("target", ["dense", "compressed"])
def test_both_is_at_least_as_close_as_left(family: str, target: str) -> None:
    """In the first block, whose attention sees the same inputs either way; further on the inputs differ."""
    model = tiny_model(family)
    plan, source = a_plan(model), MemoryFactors(model, random_windows(6, 32, seed=1))
    settings = replace(EXACT, target=target)
    left = updates_of(model, plan, source, settings)
    both = updates_of(model, plan, source, replace(settings, kind="both"))
    first = next(iter(plan.ranks))
    assert both[first].after <= left[first].after * (1 + 1e-4)
    assert sum(found.after for found in both.values()) < sum(found.after for found in left.values())
    assert sum(found.after for found in left.values()) < sum(found.before for found in left.values())
    for found in (*left.values(), *both.values()):
        assert 0 <= found.after <= found.before


def test_the_compressed_target_is_dense_weights_on_compressed_inputs() -> None:
    model = tiny_model("llama")
    plan, source = a_plan(model), MemoryFactors(model, random_windows(6, 32, seed=1))
    updates = updates_of(model, plan, source, replace(EXACT, target="compressed"))
    layers = block_linears(model)
    weights = {name: weight_of(get_module(model, name)).double() for name in plan.ranks}
    with compressed(model, layers, plan.full_ranks(layers), Updated(updates)):
        seen, got = inputs_and_outputs(model, list(plan.ranks))
    for name, found in updates.items():
        wanted, hidden = seen[name] @ weights[name].T, seen[name] @ found.right.double().T
        expected = hidden @ torch.linalg.lstsq(hidden, wanted).solution
        torch.testing.assert_close(got[name], expected, rtol=1e-2, atol=1e-2)
        mine = float((wanted - got[name]).square().sum() / wanted.square().sum())
        assert found.after == pytest.approx(mine, rel=2e-3, abs=1e-5)


def test_factors_of_full_rank_reproduce_the_dense_outputs() -> None:
    """A layer behind truncated ones, given every component, takes their errors back as far as a linear map can."""
    model = tiny_model("llama")
    card, source = card_of(model), MemoryFactors(model, random_windows(6, 32, seed=1))
    name = "model.layers.1.mlp.up_proj"  # 48 x 32: break-even is at 19.2, full rank would be dense
    plan = a_plan(model, 0.9)
    updates = updates_of(model, plan, source, replace(EXACT, kind="both"))
    layers = block_linears(model)
    with compressed(model, layers, plan.full_ranks(layers), Updated(updates)):
        seen, _ = inputs_and_outputs(model, [name])
    dense, wanted = inputs_and_outputs(model, [name])
    moments = damped(moments_of(dense[name], seen[name]), 0.0)
    left, right = update_both(weight_of(get_module(model, name)), card.layers[0].full_rank, moments)
    expected = seen[name] @ torch.linalg.lstsq(seen[name], wanted[name]).solution
    torch.testing.assert_close(seen[name] @ right.T @ left.T, expected, rtol=1e-4, atol=1e-4)
    same = damped(moments_of(dense[name], dense[name]), 0.0)
    left, right = update_both(weight_of(get_module(model, name)), card.layers[0].full_rank, same)
    torch.testing.assert_close(dense[name] @ right.T @ left.T, wanted[name], rtol=1e-5, atol=1e-5)


def test_dense_layers_are_left_alone_and_a_dense_plan_asks_for_nothing() -> None:
    model = tiny_model("llama")
    source = MemoryFactors(model, random_windows(6, 32, seed=1))
    assert updates_of(model, a_plan(model, 1.0), None) == {}
    plan = a_plan(model)
    spared = [name for name in plan.ranks if "layers.1" in name or name.endswith("down_proj")]
    layers = block_linears(model)
    ranks = plan.full_ranks(layers) | {name: rank for name, rank in dense_ranks(layers).items() if name in spared}
    part = make_plan(card_of(model), ranks, decomposition="whitened", method="uniform", keep_target=0.8)
    source.reads = 0
    updates = updates_of(model, part, source)
    assert set(updates) == set(part.ranks) == set(plan.ranks) - set(spared)
    assert source.reads == len(part.ranks)


def test_kept_components_are_where_the_update_begins() -> None:
    model = tiny_model("llama")
    source = MemoryFactors(model, random_windows(6, 32, seed=1))
    ranks = uniform_ranks(block_linears(model), 0.5)
    kept = {name: sorted({*range(1, rank), rank + 3}) for name, rank in ranks.items()}
    plan = a_plan(model, kept=kept)
    for name, found in updates_of(model, plan, source).items():
        torch.testing.assert_close(found.right, source.factors(name, 0).right[list(kept[name])])


def test_a_bfloat16_model_gets_bfloat16_factors_and_is_fitted_with_them() -> None:
    model = tiny_model("llama").to(torch.bfloat16)
    state = state_of(model)
    plan, source = a_plan(model), MemoryFactors(model, random_windows(6, 32, seed=1))
    for kind in ("left", "both"):
        updates = updates_of(model, plan, source, UpdateSettings(kind=kind))
        assert {found.left.dtype for found in updates.values()} == {torch.bfloat16}
        before, after = (sum(getattr(found, part) for found in updates.values()) for part in ("before", "after"))
        assert after < 0.95 * before
    assert same_state(model, state)


def test_damping_never_makes_a_layer_worse() -> None:
    model = tiny_model("llama")
    plan, source = a_plan(model), MemoryFactors(model, random_windows(6, 32, seed=1))
    for damping in (1e-2, 1.0):
        for kind in ("left", "both"):
            for found in updates_of(model, plan, source, UpdateSettings(kind=kind, damping=damping)).values():
                assert found.after <= found.before


def test_progress_reaches_its_total_and_cancel_leaves_the_model_as_it_was() -> None:
    model = tiny_model("llama")
    state, modules = state_of(model), modules_of(model)
    plan, source = a_plan(model), MemoryFactors(model, random_windows(6, 32, seed=1))
    ticks: list[Progress] = []
    whole = updates_of(model, plan, source, on_progress=ticks.append)
    assert [tick.step for tick in ticks] == list(range(1, ticks[-1].total + 1))
    assert ticks[-1].total == BLOCKS * 5 * 2  # four groups and moving on, in two batches
    for stop in (0, 5, 13, 25):
        seen: list[Progress] = []
        with pytest.raises(CancelledError):
            updates_of(
                model, plan, source, on_progress=seen.append, should_stop=lambda seen=seen, stop=stop: len(seen) >= stop
            )
        assert same_state(model, state)
        assert modules_of(model) == modules
    walk = updated_blocks(model, plan, source, WINDOWS, EXACT, batch=4)
    next(walk)
    assert modules_of(model) == modules  # dense between two blocks
    walk.close()
    resumed = updates_of(
        model,
        plan,
        source,
        finished=(0, 1),
        known=lambda name, block: (whole[name].left, whole[name].right),
    )
    assert set(resumed) == {name for name in plan.ranks if "layers.2" in name}
    for name, found in resumed.items():
        assert torch.equal(found.left, whole[name].left)
        assert torch.equal(found.right, whole[name].right)


def test_inputs_that_are_not_finite_name_the_layer() -> None:
    model = tiny_model("llama")
    plan, source = a_plan(model), MemoryFactors(model, random_windows(6, 32, seed=1))
    with torch.no_grad():
        model.model.layers[1].input_layernorm.weight[3] = float("nan")
    with pytest.raises(NumericalError, match=r"model\.layers\.1\.self_attn"):
        updates_of(model, plan, source)


def test_linears_that_do_not_see_every_token_keep_their_factors() -> None:
    """As experts do: a layer that gets half of the tokens cannot be paired with the dense model's."""
    model = tiny_model("llama")
    plan, source = a_plan(model), MemoryFactors(model, random_windows(6, 32, seed=1))
    layer = model.model.layers[1].mlp
    usual = layer.forward
    layer.forward = lambda x: torch.cat([usual(x[:, : x.shape[1] // 2]), x[:, x.shape[1] // 2 :]], dim=1)
    updates = updates_of(model, plan, source)
    untouched = {name for name, found in updates.items() if found.before != found.before}
    assert untouched == {f"model.layers.1.mlp.{kind}_proj" for kind in ("gate", "up", "down")}
    name = next(iter(untouched))
    assert torch.equal(updates[name].left, source.factors(name, 1).left[:, : plan.ranks[name]])


def test_outputs_are_weighed_where_the_decomposition_weighs_them() -> None:
    model = tiny_model("llama")
    plan, source = a_plan(model), MemoryFactors(model, random_windows(6, 32, seed=1))
    layers = block_linears(model)
    roots = {
        layer.name: torch.linalg.cholesky(
            torch.diag(torch.logspace(2, -2, layer.out_features).double())
            + 0.001 * torch.ones(layer.out_features, layer.out_features)
        )
        for layer in layers
    }
    settings = replace(EXACT, kind="both")
    plain = updates_of(model, plan, source, settings)
    weighed = updates_of(model, plan, source, settings, output_root=roots.__getitem__)
    _, wanted = inputs_and_outputs(model, list(plan.ranks))
    errors: dict[str, list[float]] = {}
    for updates in (plain, weighed):
        with compressed(model, layers, plan.full_ranks(layers), Updated(updates)):
            _, got = inputs_and_outputs(model, list(plan.ranks))
        for name in updates:
            difference, target = (wanted[name] - got[name]) @ roots[name], wanted[name] @ roots[name]
            errors.setdefault(name, []).append(float(difference.square().sum() / target.square().sum()))
    for name, (_, with_root) in errors.items():
        assert weighed[name].after == pytest.approx(with_root, rel=2e-3, abs=1e-5)
    # One layer may lose, as its inputs are others in the two models.
    assert sum(with_root for _, with_root in errors.values()) < sum(without for without, _ in errors.values())
    left = updates_of(model, plan, source, EXACT, output_root=roots.__getitem__)
    other = updates_of(model, plan, source, EXACT)
    assert all(torch.equal(left[name].left, other[name].left) for name in left)


class CutFactors(MemoryFactors):
    """Factors of the plan's ranks and no more, as a plan's own weights are: nothing is left to be copied."""

    def __init__(self, model: Any, windows: Tensor, plan: Plan) -> None:
        super().__init__(model, windows)
        whole = {layer.name: super(CutFactors, self).factors(layer.name, layer.block) for layer in block_linears(model)}
        self._cut = {
            name: Factors(found.left[:, :rank].contiguous(), found.right[:rank].contiguous(), found.sigma[:rank])
            for name, rank in plan.ranks.items()
            for found in (whole[name],)
        }

    def factors(self, name: str, block: int) -> Factors:
        return self._cut[name]


def test_the_source_of_the_factors_is_left_as_it_was() -> None:
    model = tiny_model("llama")
    plan = a_plan(model)
    source = CutFactors(model, random_windows(6, 32, seed=1), plan)
    before = {name: found.left.clone() for name, found in source._cut.items()}
    found = list(updated_blocks(model, plan, source, random_windows(6, 32), UpdateSettings()))
    assert any(not torch.equal(update.left, before[name]) for _, layers in found for name, update in layers.items())
    assert all(torch.equal(source._cut[name].left, left) for name, left in before.items())
