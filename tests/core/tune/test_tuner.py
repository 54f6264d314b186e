"""Tuning a plan's factors: what it lowers, what it leaves alone, and going on where it stopped."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from lrc_core.allocate.masks.teacher import TeacherStates
from lrc_core.budget import uniform_ranks
from lrc_core.decompose.factorise import Factors
from lrc_core.errors import CancelledError, NumericalError, SettingsError
from lrc_core.lowrank.apply import WithGains, compressed
from lrc_core.lowrank.linear import LowRankLinear
from lrc_core.models.blocks.linears import block_linears, get_module
from lrc_core.plan import Plan, make_plan
from lrc_core.tune.trained_pairs import TrainedPair, balanced
from lrc_core.tune.tuner import PHASE, Tuned, Tuner, TuningCallbacks
from lrc_core.types import Progress
from lrc_core.updates import KINDS, TuningSettings, update_settings
from tests.factories.tiny_methods import MemoryFactors, card_of, modules_of, random_windows, same_state, state_of
from tests.factories.tiny_models import FAMILIES, tiny_model

WINDOWS = random_windows(44, 24, seed=2)
SETTINGS = TuningSettings(text_weight=0.0, batch=4, check_windows=4, rate=0.01)


def a_plan(model: Any, kept: Any = None, keep: float = 0.5) -> Plan:
    card = card_of(model)
    ranks = uniform_ranks(card.layers, keep)
    return make_plan(card, ranks, decomposition="whitened", method="uniform", keep_target=keep, kept=kept)


def tuned(
    model: Any, plan: Plan, source: Any, folder: Path, settings: TuningSettings = SETTINGS, **watch: Any
) -> Tuned:
    return Tuner(model, plan, source, WINDOWS, settings, TuningCallbacks(folder, **watch)).run()


class OfPlan:
    """Tuned factors as a source."""

    def __init__(self, found: Tuned) -> None:
        self._found = found

    def factors(self, name: str, block: int) -> Factors:
        left, right = self._found.factors[name]
        return Factors(left, right, torch.ones(left.shape[1]))

    def sigma(self, name: str, block: int) -> Any:
        raise AssertionError("nobody asks")


@torch.no_grad()
def divergence(model: Any, plan: Plan, source: Any, windows: Any) -> float:
    """KL(dense || compressed) in nats a token from whole tables of log-probabilities."""
    dense = model(input_ids=windows).logits.float().log_softmax(-1)
    with compressed(model, block_linears(model), plan.full_ranks(block_linears(model)), source, plan.kept):
        small = model(input_ids=windows).logits.float().log_softmax(-1)
    return float((dense.exp() * (dense - small)).sum(-1).mean())


def test_balancing_leaves_the_product() -> None:
    torch.manual_seed(0)
    left, right = torch.randn(7, 3), torch.randn(3, 5) * torch.tensor([[100.0], [1e-3], [1.0]])
    left[:, 2] = 0
    first, second = balanced(left, right)
    torch.testing.assert_close(first @ second, left @ right)
    lengths = torch.linalg.vector_norm(first, dim=0), torch.linalg.vector_norm(second, dim=1)
    torch.testing.assert_close(lengths[0][:2], lengths[1][:2])
    assert torch.equal(second[2], right[2])


def test_a_trained_pair_is_the_layer_and_gives_both_factors_their_slopes() -> None:
    torch.manual_seed(0)
    left, right, bias = torch.randn(6, 2), torch.randn(2, 4), torch.randn(6)
    plain = LowRankLinear(left, right, bias)
    pair, inputs = TrainedPair(plain), torch.randn(3, 5, 4)
    torch.testing.assert_close(pair(inputs), plain(inputs))
    pair(inputs).square().sum().backward()
    free = [pair.left.detach().clone().requires_grad_(), pair.right.detach().clone().requires_grad_()]
    functional.linear(inputs, free[0] @ free[1], bias).square().sum().backward()
    for parameter, other in zip((pair.left, pair.right), free, strict=True):
        torch.testing.assert_close(parameter.grad, other.grad)


@pytest.mark.parametrize("family", FAMILIES)
def test_tuning_lowers_the_divergence_and_leaves_the_model(family: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    plan, source = a_plan(model), MemoryFactors(model, random_windows(8, 32, seed=1))
    modules, state = modules_of(model), state_of(model)
    found = tuned(model, plan, source, tmp_path, replace(SETTINGS, passes=3))
    assert modules_of(model) == modules
    assert same_state(model, state)
    assert found.helped
    assert set(found.factors) == set(plan.ranks)
    for layer in block_linears(model):
        if layer.name in plan.ranks:
            left, right = found.factors[layer.name]
            assert left.shape == (layer.out_features, plan.ranks[layer.name])
            assert right.shape == (plan.ranks[layer.name], layer.in_features)
    check = WINDOWS[40:]
    before, after = (divergence(model, plan, given, check) for given in (source, OfPlan(found)))
    assert found.before == pytest.approx(before, rel=1e-3)
    assert found.after == pytest.approx(after, rel=1e-3)
    assert after < 0.95 * before


def test_the_text_counts_by_its_weight(tmp_path: Path) -> None:
    model = tiny_model("llama")
    plan, source = a_plan(model), MemoryFactors(model, random_windows(8, 32, seed=1))
    found = tuned(model, plan, source, tmp_path, replace(SETTINGS, text_weight=3.0, passes=3))

    @torch.no_grad()
    def loss(given: Any) -> float:
        check = WINDOWS[40:]
        with compressed(model, block_linears(model), plan.full_ranks(block_linears(model)), given):
            logits = model(input_ids=check).logits[:, :-1].flatten(0, 1)
        text = functional.cross_entropy(logits.float(), check[:, 1:].flatten(), reduction="sum") / check.numel()
        return divergence(model, plan, given, check) + 3 * float(text)

    assert found.before == pytest.approx(loss(source), rel=1e-4)
    assert found.after == pytest.approx(loss(OfPlan(found)), rel=1e-4)
    assert found.after < found.before


def test_any_components_and_gains_are_where_tuning_starts(tmp_path: Path) -> None:
    model = tiny_model("llama")
    source = MemoryFactors(model, random_windows(8, 32, seed=1))
    plan = a_plan(model)
    still = replace(SETTINGS, rate=1e-6)
    any_k = replace(plan, kept={name: (*range(1, rank), rank + 1) for name, rank in plan.ranks.items()})
    gains = WithGains(source, {name: torch.linspace(0.5, 1.5, rank) for name, rank in plan.ranks.items()})
    for number, (given, factors) in enumerate(((any_k, source), (plan, gains))):
        found = tuned(model, given, factors, tmp_path / str(number), still)
        assert found.before == pytest.approx(divergence(model, given, factors, WINDOWS[40:]), rel=1e-3)
        for layer in block_linears(model):
            kept = list((given.kept or {}).get(layer.name, range(plan.ranks[layer.name])))
            theirs = factors.factors(layer.name, layer.block)
            left, right = found.factors[layer.name]
            torch.testing.assert_close(left @ right, theirs.left[:, kept] @ theirs.right[kept], rtol=1e-2, atol=1e-3)


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    model = tiny_model("llama")
    plan, source = a_plan(model), MemoryFactors(model, random_windows(8, 32, seed=1))
    settings = replace(SETTINGS, passes=2)
    whole = tuned(model, plan, source, tmp_path / "whole", settings)
    modules, ticks = modules_of(model), []

    def count(tick: Progress) -> None:
        ticks.append(tick.phase)

    with pytest.raises(CancelledError):
        tuned(
            model, plan, source, tmp_path / "part", settings,
            on_progress=count, should_stop=lambda: ticks.count(PHASE) >= 7,
        )  # fmt: skip
    assert modules_of(model) == modules
    resumed = tuned(model, plan, source, tmp_path / "part", settings)
    assert resumed.losses == whole.losses
    assert len(whole.losses) == 20
    assert all(
        torch.equal(one, other)
        for name, pair in whole.factors.items()
        for one, other in zip(pair, resumed.factors[name], strict=True)
    )


def test_the_dense_model_is_asked_once_for_all_plans_on_the_same_windows(tmp_path: Path) -> None:
    """Whole batches of training and check windows at first, none afterwards; the factors are the same bit for bit."""
    model = tiny_model("llama")
    source = MemoryFactors(model, random_windows(8, 32, seed=1))
    asked: list[int] = []
    answers: TeacherStates = {}
    norm = model.model.layers[0].input_layernorm
    handle = norm.register_forward_hook(lambda module, args, output: asked.append(len(args[0])))
    found = []
    for number, keep in enumerate((0.6, 0.5, 0.5)):
        plan = a_plan(model, keep=keep)
        asked.clear()
        known: TeacherStates = {} if number == 2 else answers
        found.append((tuned(model, plan, source, tmp_path / str(number), answers=known), len(asked)))
    handle.remove()
    (_, before), (shared, fewer), (alone, again) = found
    assert before == again == fewer + 11  # 10 batches to learn from, 1 to check on
    assert shared.losses == alone.losses
    for name, pair in alone.factors.items():
        assert all(torch.equal(one, other) for one, other in zip(pair, shared.factors[name], strict=True))


def test_no_phase_is_further_than_its_end(tmp_path: Path) -> None:
    model = tiny_model("llama")
    ticks: list[Progress] = []
    source = MemoryFactors(model, random_windows(8, 32, seed=1))
    tuned(model, a_plan(model), source, tmp_path, replace(SETTINGS, check_windows=8), on_progress=ticks.append)
    assert len({tick.phase for tick in ticks}) == 3
    assert all(0 <= tick.step <= (tick.total or 0) for tick in ticks)


def test_factors_that_do_not_help_are_not_taken(tmp_path: Path) -> None:
    model = tiny_model("llama")
    plan, source = a_plan(model), MemoryFactors(model, random_windows(8, 32, seed=1))
    found = tuned(model, plan, source, tmp_path, replace(SETTINGS, rate=1.0))
    assert not found.helped
    for name, (left, right) in found.factors.items():
        theirs = source.factors(name, 0)
        assert torch.equal(left, theirs.left[:, : plan.ranks[name]])
        assert torch.equal(right, theirs.right[: plan.ranks[name]])


def test_without_check_windows_the_tuned_factors_are_taken(tmp_path: Path) -> None:
    model = tiny_model("llama")
    source = MemoryFactors(model, random_windows(8, 32, seed=1))
    found = tuned(model, a_plan(model), source, tmp_path, replace(SETTINGS, check_windows=0))
    assert math.isnan(found.before)
    assert found.helped
    assert len(found.losses) == 11


def test_a_short_text_and_a_large_batch(tmp_path: Path) -> None:
    model = tiny_model("llama")
    source = MemoryFactors(model, random_windows(8, 32, seed=1))
    few = Tuner(model, a_plan(model), source, WINDOWS[:5], replace(SETTINGS, batch=64), TuningCallbacks(tmp_path)).run()
    assert len(few.losses) == 1


def test_a_loss_that_is_not_finite_names_its_step(tmp_path: Path) -> None:
    model = tiny_model("llama")
    source = MemoryFactors(model, random_windows(8, 32, seed=1))
    plan = a_plan(model)
    name = next(iter(plan.ranks))
    broken = WithGains(source, {name: torch.full((plan.ranks[name],), float("nan"))})
    with pytest.raises(NumericalError, match="step 0 "):
        tuned(model, plan, broken, tmp_path)
    assert isinstance(get_module(model, name), torch.nn.Linear)


def test_settings_are_of_the_kind_that_is_asked_for() -> None:
    assert [update_settings({"kind": kind}).kind for kind in KINDS] == list(KINDS)
    assert isinstance(update_settings({"kind": "tuned", "rate": "0.01"}), TuningSettings)
    with pytest.raises(SettingsError, match="no setting 'damping'"):
        update_settings({"kind": "tuned", "damping": 0.1})
    with pytest.raises(SettingsError, match="no setting 'rate'"):
        update_settings({"rate": 0.1})
    with pytest.raises(SettingsError, match="no update 'tunes'"):
        update_settings({"kind": "tunes"})
