"""The successive Lagrangian: slopes against differences, measured losses by hand, the way down, resuming."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lrc_core.allocate.curves.loss_curves import cheapest_ranks
from lrc_core.allocate.masks.training import load_factors
from lrc_core.allocate.protocol import Allocation, Bytes, Latency, PassedPlan
from lrc_core.allocate.successive.gains import Gains
from lrc_core.allocate.successive.losses import measured_losses
from lrc_core.allocate.successive.method import SuccessiveSettings, allocate
from lrc_core.allocate.successive.training import SuccessiveTraining
from lrc_core.budget import break_even, is_dense, keep_ratio, layer_params, plan_params
from lrc_core.decompose.factorise import Factors, Transform
from lrc_core.errors import CancelledError, NumericalError
from lrc_core.formats.sizes import layer_states, whole_bytes
from lrc_core.lowrank.masked import masked_layers, without_masks
from lrc_core.models.blocks.linears import block_linears
from lrc_core.registry import DECOMPOSITIONS
from lrc_core.settings import build
from tests.factories.tiny_methods import MemoryFactors, modules_of, random_windows, same_state, state_of
from tests.factories.tiny_models import tiny_model
from tests.factories.watched import WatchedRun

QUICK: dict[str, Any] = {
    "pace": 0.05, "settle_rounds": 2, "batches": 2, "documents": 8, "check_windows": 4, "window": 16, "batch": 2,
    "groups": 4, "gain_rate": 0.01,
}  # fmt: skip
MODEL = tiny_model("llama")
SOURCE = MemoryFactors(MODEL, random_windows(8, 32, seed=1), "kfac")
LAYERS = block_linears(MODEL)


class Misled:
    """Factors whose spectra are scaled, so that the predicted losses of some layers are far off."""

    def __init__(self, scales: dict[str, float]) -> None:
        self._scales = scales

    def factors(self, name: str, block: int) -> Factors:
        return SOURCE.factors(name, block)

    def sigma(self, name: str, block: int) -> Tensor:
        return SOURCE.sigma(name, block) * self._scales.get(name, 1.0)


def settings(**more: Any) -> SuccessiveSettings:
    return build(SuccessiveSettings, {**QUICK, **more})


class Watched(WatchedRun):
    method, settings_of, model, source = staticmethod(allocate), staticmethod(settings), MODEL, SOURCE
    decomposition, keep = "kfac", 0.7


def same_plan(one: Allocation | PassedPlan, other: Allocation | PassedPlan) -> bool:
    """Equal ranks and, bit for bit, gains."""
    mine, theirs = one.gains or {}, other.gains or {}
    return (
        one.ranks == other.ranks
        and mine.keys() == theirs.keys()
        and all(torch.equal(gain, theirs[name]) for name, gain in mine.items())
    )


# -- measured losses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0, 3, 8])
def test_a_quadratic_loss_is_measured_as_it_is_wherever_one_stands(kept: int) -> None:
    """sum p_i (1 - m_i)^2 has the slope 0 at kept components and -2 p_i at dropped ones."""
    predicted = np.array([8.0, 5.0, 3.0, 2.0, 1.0, 0.5, 0.25, 0.0])
    slopes = np.where(np.arange(8) < kept, 0.0, -2 * predicted)
    np.testing.assert_allclose(measured_losses(predicted, slopes, kept, 4), predicted)


def test_groups_share_their_sum_and_never_straddle_the_cut() -> None:
    generator = np.random.default_rng(0)
    predicted = np.sort(generator.random(12))[::-1].copy()
    slopes = -generator.random(12)
    found = measured_losses(predicted, slopes, 5, 3)  # groups of 4: five kept make one, seven dropped make one
    for part in (slice(0, 5), slice(5, 12)):
        sign = 1 if part.start == 0 else -1
        single = sign * predicted[part] - slopes[part]
        ratio = max(0.0, single.sum()) / predicted[part].sum()
        np.testing.assert_allclose(found[part], ratio * predicted[part])


def test_a_group_that_helps_when_it_goes_costs_nothing() -> None:
    found = measured_losses(np.ones(4), np.full(4, 3.0), 2, 2)
    assert not found.any()
    assert not measured_losses(np.zeros(4), -np.ones(4), 2, 2).any()  # a prediction of nothing has nothing to spread


# -- slopes -------------------------------------------------------------------------------------------------------


def test_slopes_are_those_of_the_divergence_on_both_sides_of_the_cut_and_of_the_dense_switch(tmp_path: Path) -> None:
    """Against central differences of the KL in single masks, at a plan that has dense and low-rank layers."""
    training = SuccessiveTraining(Watched(tmp_path, batches=1).context, build(SuccessiveSettings, QUICK))
    ranks = training.ranks = cheapest_ranks(LAYERS, training.predicted, 0.7)
    dense = next(layer for layer in LAYERS if is_dense(layer, ranks[layer.name]))
    low = next(layer for layer in LAYERS if not is_dense(layer, ranks[layer.name]))
    starts = dict(zip((layer.name for layer in LAYERS), itertools.accumulate([0, *training.sizes]), strict=False))
    with masked_layers(MODEL, load_factors(training.context)) as masked:
        training._step(masked)
        chosen = torch.randperm(len(training.windows), generator=torch.Generator().manual_seed(0))[:2]
        tokens = training.windows[chosen]
        with without_masks(masked):
            teacher = training.distiller.teacher(chosen, tokens)

        def divergence(name: str, component: int, change: float) -> float:
            module = masked[name]
            assert module.mask is not None
            before = module.mask
            module.mask = before.detach().clone()
            module.mask[component] += change
            module.run_dense = False
            with torch.no_grad():
                value = float(training.distiller.loss(tokens, teacher))
            module.mask = before
            return value

        for name, component in ((low.name, 0), (low.name, ranks[low.name]), (dense.name, 0), (dense.name, 3)):
            step = 0.05
            difference = (divergence(name, component, step) - divergence(name, component, -step)) / (2 * step)
            slope = float(training.state.slopes[starts[name] + component])
            assert slope == pytest.approx(difference, rel=0.05, abs=2e-6), (name, component)


# -- the way down -------------------------------------------------------------------------------------------------


def test_the_budget_holds_at_every_step_and_the_rate_rises_evenly(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    found = watched.run()
    assert keep_ratio(LAYERS, found.ranks) <= 0.7
    steps = 2 * (6 - 1 + 2)  # six rounds to 30 % at 5 % each, the sixth being the first of two at the target
    assert [tick.step for tick in watched.ticks if tick.phase == "training masks"] == list(range(1, steps + 1))
    for step, share, _ in watched.ranks:
        assert share <= max(0.7, 1 - 0.05 * (step // 2 + 1)) + 1e-9
    assert [entry.keep for entry in watched.recorded] == [(100 - percent) / 100 for percent in range(1, 31)]
    for entry in watched.recorded:
        assert entry.keep - 0.05 < keep_ratio(LAYERS, entry.ranks) <= entry.keep


def test_the_plan_of_least_divergence_on_held_back_text_is_taken(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    found = watched.run()
    assert found.details is not None
    training = SuccessiveTraining(watched.context, watched.settings)  # reads the finished checkpoint
    predicted = Allocation(cheapest_ranks(LAYERS, training.predicted, 0.7))
    plans = [predicted, *(Allocation(**candidate) for candidate in training.state.candidates)]
    assert len(plans) == 1 + watched.settings.settle_rounds
    measured = [training._divergence(0, 1, plan) for plan in plans]
    assert same_plan(found, plans[int(np.argmin(measured))])
    assert found.details["check_kl"] == pytest.approx(min(measured), abs=1e-6)
    assert not {tuple(row) for row in training.check.tolist()} & {tuple(row) for row in training.windows.tolist()}


def test_without_windows_to_check_the_last_plan_is_taken(tmp_path: Path) -> None:
    watched = Watched(tmp_path, check_windows=0)
    found = watched.run()
    last = SuccessiveTraining(watched.context, watched.settings).state.candidates[-1]
    assert same_plan(found, Allocation(**last))


def test_layers_cross_the_dense_switch_both_ways_when_the_prediction_was_wrong(tmp_path: Path) -> None:
    """A layer that is predicted to cost a thousandth of what it does gets its rank back, and others pay for it."""
    first = next(layer for layer in LAYERS if layer.kind == "mlp.up_proj")
    source = Misled({first.name: 0.03})
    watched = Watched(tmp_path, source=source, settle_rounds=12, mixing=0.5, gain_rate=0.0)
    found = watched.run()
    wrong = cheapest_ranks(LAYERS, SuccessiveTraining(watched.context, watched.settings).predicted, 0.7)
    assert wrong[first.name] == 1
    assert found.ranks[first.name] > break_even(first) / 2
    given_up = [
        layer for layer in LAYERS if is_dense(layer, wrong[layer.name]) and not is_dense(layer, found.ranks[layer.name])
    ]
    assert given_up
    assert found.details is not None
    assert found.details["check_kl"] < 0.8 * found.details["check_kl_predicted_plan"]


# -- gains --------------------------------------------------------------------------------------------------------


def test_only_kept_components_of_low_rank_layers_have_their_gains_moved() -> None:
    gains = Gains(4, 0.1)
    moving = torch.tensor([True, False, True, False])
    for _ in range(12):
        gains.step(torch.tensor([1.0, 1.0, -1.0, 0.0]), moving, 1.0)
    assert gains.now[0] < 1 < gains.now[2]
    assert gains.now[0] < gains.average[0] < 1
    assert gains.now[[1, 3]].tolist() == [1, 1]
    stopped = gains.now.clone()
    gains.step(torch.ones(4), torch.zeros(4, dtype=torch.bool), 1.0)  # momentum must not carry them on
    assert torch.equal(gains.now, stopped)


def test_gains_lower_the_divergence_and_without_them_a_plan_is_ranks_alone(tmp_path: Path) -> None:
    more: dict[str, Any] = {"settle_rounds": 12, "gain_rate": 0.02, "check_windows": 0}
    watched, plain = Watched(tmp_path / "with", **more), Watched(tmp_path / "without", **{**more, "gain_rate": 0.0})
    found, without = watched.run(), plain.run()
    assert without.gains is None
    assert found.gains is not None
    low = [layer.name for layer in LAYERS if not is_dense(layer, found.ranks[layer.name])]
    assert {name: len(gain) for name, gain in found.gains.items()} == {name: found.ranks[name] for name in low}
    last, last_plain = (np.mean([tick.values["loss"] for tick in one.ticks[-8:]]) for one in (watched, plain))
    assert last < 0.95 * last_plain


# -- cancelling, resuming, failing --------------------------------------------------------------------------------


@pytest.mark.parametrize("stop_after", [1, 5, 13])
def test_a_cancelled_run_goes_on_bit_for_bit(tmp_path: Path, stop_after: int) -> None:
    whole = Watched(tmp_path / "whole")
    expected = whole.run()
    first = Watched(tmp_path / "parts", stop_after=stop_after)
    weights, modules = state_of(MODEL), modules_of(MODEL)
    with pytest.raises(CancelledError):
        first.run()
    assert same_state(MODEL, weights)
    assert modules_of(MODEL) == modules
    second = Watched(tmp_path / "parts")
    assert same_plan(second.run(), expected)
    for one, other in zip([*first.recorded, *second.recorded], whole.recorded, strict=True):
        assert (one.keep, one.step) == (other.keep, other.step)
        assert same_plan(one, other)
    losses = [tick.values["loss"] for tick in whole.ticks if tick.phase == "training masks"]
    parts = [tick.values["loss"] for tick in (*first.ticks, *second.ticks) if tick.phase == "training masks"]
    assert parts == losses


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    training = SuccessiveTraining(watched.context, watched.settings)
    broken = {name: (left * float("nan"), right) for name, (left, right) in load_factors(training.context).items()}
    training.ranks = dict.fromkeys((layer.name for layer in LAYERS), 1)
    with masked_layers(MODEL, broken) as masked, pytest.raises(NumericalError, match="step 0"):
        training._step(masked)


# -- budgets in bytes and in time ---------------------------------------------------------------------------------


def weighing() -> Iterator[tuple[int, dict[str, Transform]]]:
    """How the two-sided decomposition of the tests weighs errors, as a session would read it block by block."""
    make = DECOMPOSITIONS.get("kfac").load()
    for block in sorted({layer.block for layer in LAYERS}):
        names = [layer.name for layer in LAYERS if layer.block == block]
        yield block, {name: make(SOURCE.statistics[name], DECOMPOSITIONS.get("kfac").settings()) for name in names}


class Budgeted(Watched):
    """Runs to a share of the bytes, or of a time in which a rank takes what its parameters do."""

    phase = "training masks"

    def __init__(self, folder: Path, budget: str, share: float, *, vary: str = "both", **more: Any) -> None:
        super().__init__(folder, keep=1.0, **more)
        if budget == "bytes":
            given = {"bytes": Bytes(math.floor(share * whole_bytes(LAYERS)), vary), "weighing": weighing}
        else:
            times = {
                layer.name: {rank: 1e-6 * layer_params(layer, rank) for rank in range(1, layer.full_rank + 1)}
                for layer in LAYERS
            }
            given = {"latency": Latency(share, times)}
        self.context = replace(self.context, **given)


@pytest.mark.parametrize("budget", ["bytes", "time"])
def test_other_budgets_hold_and_what_is_cut_is_measured(budget: str, tmp_path: Path) -> None:
    watched = Budgeted(tmp_path, budget, 0.4, settle_rounds=12, gain_rate=0.02)
    found = watched.run()
    assert not watched.recorded, "plans on the way are of shares of parameters"
    assert found.details is not None and found.details["check_kl"] <= found.details["check_kl_predicted_plan"]
    cut = {layer.name for layer in LAYERS if not is_dense(layer, found.ranks[layer.name])}
    assert cut
    if budget == "bytes":
        assert sum(one.bytes for one in layer_states(LAYERS, found.ranks, found.formats)) <= 0.4 * whole_bytes(LAYERS)
        assert found.formats
    else:
        assert plan_params(LAYERS, found.ranks) <= 0.4 * sum(layer.params for layer in LAYERS) + len(LAYERS)
        assert not found.formats
    if found.gains:
        assert set(found.gains) == cut


def test_a_time_that_parameters_take_is_a_budget_of_parameters(tmp_path: Path) -> None:
    """The same path, the same slopes: only what a hull leaves over is spent otherwise."""
    of_time = Budgeted(tmp_path / "time", "time", 0.7)
    of_parameters = Watched(tmp_path / "parameters", keep=0.7)
    for one in (of_time, of_parameters):
        one.run()
    shares = [[share for _, share, _ in one.ranks] for one in (of_time, of_parameters)]
    assert len(shares[0]) == len(shares[1])
    assert np.abs(np.subtract(*shares)).max() < 0.05


def test_bytes_are_followed_from_where_the_first_rank_is_cut(tmp_path: Path) -> None:
    training = SuccessiveTraining(Budgeted(tmp_path, "bytes", 0.3).context, settings())
    first = training.budget.first_cut(training.predicted)
    assert 0.3 <= first < 1

    def cuts(share: float) -> bool:
        ranks = training.budget.solve(training.predicted, share).ranks
        return any(not is_dense(layer, ranks[layer.name]) for layer in LAYERS)

    assert not cuts(first) and cuts(first - 0.01)
    assert training.rounds == math.ceil((first - 0.3) / QUICK["pace"] - 1e-9) - 1 + QUICK["settle_rounds"]


@pytest.mark.parametrize(("share", "vary"), [(0.9, "both"), (0.6, "bits"), (1.0, "both")])
def test_where_no_rank_is_cut_there_is_nothing_to_measure(share: float, vary: str, tmp_path: Path) -> None:
    watched = Budgeted(tmp_path, "bytes", share, vary=vary)
    found = watched.run()
    assert all(is_dense(layer, found.ranks[layer.name]) for layer in LAYERS)
    assert not watched.steps and not found.gains
    assert bool(found.formats) == (share < 1)


@pytest.mark.parametrize("budget", ["bytes", "time"])
def test_a_run_to_another_budget_goes_on_bit_for_bit(budget: str, tmp_path: Path) -> None:
    expected = Budgeted(tmp_path / "whole", budget, 0.4).run()
    with pytest.raises(CancelledError):
        Budgeted(tmp_path / "parts", budget, 0.4, stop_after=3).run()
    found = Budgeted(tmp_path / "parts", budget, 0.4).run()
    assert same_plan(found, expected) and found.formats == expected.formats
