"""LEMS: its error model by hand, its plan against all plans, its tuning against whole models."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from lrc_core.allocate.lems.errors import allowed_ranks, biased_choices, depth_bias, error_curve
from lrc_core.allocate.lems.method import LemsSettings, Trial, allocate, next_point
from lrc_core.allocate.probing import probes
from lrc_core.allocate.probing.grid import ProbeText
from lrc_core.allocate.probing.probes import PlanProber, probe_layers
from lrc_core.budget import break_even, check_target, is_dense, plan_params, whole_rank_of_share
from lrc_core.errors import CancelledError
from lrc_core.types import Progress
from tests.factories.tiny_methods import context_for, grid_of_shapes
from tests.factories.tiny_models import tiny_model

SETTINGS = LemsSettings(windows=2, window=16, offset=2, trials=4)
LAYERS = grid_of_shapes([(48, 48), (16, 48), (96, 40)], blocks=3)


def test_the_depth_bias_falls_from_one_plus_gamma_to_one() -> None:
    for alpha, gamma in itertools.product((0.0, 0.5, 1.0, 3.0), (0.0, 2.0, 7.0)):
        biases = [depth_bias(block, 6, alpha, gamma) for block in range(6)]
        assert biases[0] == pytest.approx(1 + gamma) and biases[-1] == pytest.approx(1)
        assert biases == sorted(biases, reverse=True)
    assert [depth_bias(block, 5, 0.0, 4.0) for block in range(5)] == pytest.approx([5, 4, 3, 2, 1])
    # Three blocks, alpha 1: tails 11/6, 5/6, 1/3.
    assert depth_bias(1, 3, 1.0, 2.0) == pytest.approx(1 + 2 * (5 / 6 - 1 / 3) / (11 / 6 - 1 / 3))
    assert depth_bias(0, 1, 1.0, 7.0) == 1.0


def test_the_error_curve_goes_through_the_probe_and_ends_at_zero() -> None:
    sigma = np.array([3.0, 2.0, 1.0, 1.0])
    curve = error_curve(sigma, 1, 0.5)
    assert curve == pytest.approx([0.5 * 15 / 6, 0.5, 0.5 * 2 / 6, 0.5 * 1 / 6, 0])
    assert error_curve(sigma, 1, -1e-9) == pytest.approx([0] * 5)  # rounding of a layer that does nothing
    assert np.isfinite(error_curve(np.array([1.0, 0.0]), 1, 0.5)).all()  # nothing left to drop where it was probed


@pytest.mark.parametrize(
    ("keep", "floor", "expected"),
    [
        (0.8, 0.3, {"linear_0": [8, 16], "linear_1": [8], "linear_2": [16, 24]}),
        (0.45, 0.1, {"linear_0": [8, 16], "linear_1": [4, 8], "linear_2": [8, 16, 24]}),
    ],
)
def test_ranks_are_multiples_above_the_floor(keep: float, floor: float, expected: dict[str, list[int]]) -> None:
    found = allowed_ranks(LAYERS, check_target(LAYERS, keep), floor, 8)
    for layer in LAYERS:
        ranks = found[layer.name]
        assert ranks and all(rank >= floor * break_even(layer) and not is_dense(layer, rank) for rank in ranks)
    if keep > 0.5:
        assert {name.split(".")[-1]: ranks for name, ranks in found.items()} == expected


@pytest.mark.parametrize("keep", [0.05, 0.1, 0.2, 0.3, 0.45, 0.55])
def test_some_plan_of_the_allowed_ranks_meets_any_target(keep: float) -> None:
    allowed = check_target(LAYERS, keep)
    found = allowed_ranks(LAYERS, allowed, 0.1 if keep < 0.5 else 0.3, 8)
    smallest = {layer.name: min(found[layer.name], default=layer.full_rank) for layer in LAYERS}
    assert plan_params(LAYERS, smallest) <= allowed


def test_no_plan_has_a_smaller_predicted_error(tmp_path: Path) -> None:
    """Four layers only, so that all plans can be tried; probed by hand."""
    model = tiny_model("llama")
    layers = context_for(model, tmp_path).layers[5:9]  # of two blocks
    context = context_for(model, tmp_path, layers=layers, keep=0.7)
    settings = LemsSettings(windows=2, window=16, offset=2, multiple=2, trials=0, alpha=0.5, gamma=3.0)
    found = allocate(context, settings)
    text = ProbeText(2, 16, 0.6, 2)
    wanted = [(layer, whole_rank_of_share(layer, 0.1)) for layer in layers]
    effects = probe_layers(context, text, wanted)
    curves = {
        layer.name: error_curve(
            context.source.sigma(layer.name, layer.block).numpy(), rank, effects[layer.name, rank].divergence
        )
        for layer, rank in wanted
    }
    ranks = {layer.name: [r for r in range(2, 40, 2) if 0.3 * break_even(layer) <= r] for layer in layers}
    low = {layer.name: [r for r in ranks[layer.name] if not is_dense(layer, r)] for layer in layers}
    choices = biased_choices(layers, curves, low, 0.5, 3.0)
    allowed = check_target(layers, 0.7)
    plans = (dict(zip(choices, picked, strict=True)) for picked in itertools.product(*choices.values()))
    best = min(
        (plan for plan in plans if plan_params(layers, plan) <= allowed),
        key=lambda plan: sum(choices[name][rank] for name, rank in plan.items()),
    )
    assert all(0 <= found.ranks[name] - rank <= 2 for name, rank in best.items())  # the remainder is spent on top
    assert (found.details or {}) == {"alpha": 0.5, "gamma": 3.0, "proven": True, "trials": []}


def test_tuning_measures_whole_plans_and_takes_the_best(tmp_path: Path) -> None:
    ticks: list[Progress] = []
    context = context_for(tiny_model("llama"), tmp_path, keep=0.7, on_progress=ticks.append)
    found = allocate(context, SETTINGS)
    details = dict(found.details or {})
    trials = details["trials"]
    assert len(trials) == 4 and (trials[0]["alpha"], trials[0]["gamma"]) == (0.0, 0.0)
    best = min(trials, key=lambda trial: trial["divergence"])
    assert (details["alpha"], details["gamma"]) == (best["alpha"], best["gamma"])
    measured = PlanProber(context, ProbeText(2, 16, 0.6, 2)).effect(found.ranks).divergence
    assert measured == pytest.approx(best["divergence"], rel=1e-6)
    assert [tick.step for tick in ticks if "depth bias" in tick.phase] == [1, 2, 3, 4]
    untuned = allocate(context, LemsSettings(windows=2, window=16, offset=2, trials=0))
    assert measured <= PlanProber(context, ProbeText(2, 16, 0.6, 2)).effect(untuned.ranks).divergence


def test_points_stay_in_range_and_close_in_on_the_best() -> None:
    settings = LemsSettings(trials=21)
    trials: list[Trial] = []
    for _ in range(21):
        alpha, gamma = next_point(trials, settings, 3)
        assert 0 <= alpha <= 3 and 0 <= gamma <= 7
        trials.append(Trial(alpha, gamma, (alpha - 1) ** 2 + (gamma / 7 - 0.6) ** 2))
    assert len(set(trials)) == len(trials)
    first, last = trials[1:11], trials[11:]
    assert min(t.divergence for t in last) < min(t.divergence for t in first)
    assert np.mean([t.divergence for t in last]) < np.mean([t.divergence for t in first])
    assert next_point(trials[:5], settings, 3) == (trials[5].alpha, trials[5].gamma)
    assert next_point(trials[:5], settings, 4) != (trials[5].alpha, trials[5].gamma)


def test_finished_trials_survive_a_cancel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    whole = allocate(context_for(model, tmp_path / "whole", keep=0.7), SETTINGS)
    ticks: list[Progress] = []
    stopping = context_for(
        model,
        tmp_path / "parts",
        keep=0.7,
        on_progress=ticks.append,
        should_stop=lambda: sum(tick.phase == "tuning the depth bias" for tick in ticks) == 2,
    )
    with pytest.raises(CancelledError, match="Resume"):
        allocate(stopping, SETTINGS)
    calls: list[int] = []
    real = probes.PlanProber.effect
    monkeypatch.setattr(probes.PlanProber, "effect", lambda self, ranks: calls.append(1) or real(self, ranks))
    assert allocate(context_for(model, tmp_path / "parts", keep=0.7), SETTINGS) == whole
    assert len(calls) <= 2
    # Everything is known by now: neither text nor model is needed again.
    assert allocate(context_for(model, tmp_path / "parts", keep=0.7, windows=None), SETTINGS) == whole


def test_bfloat16_models_are_planned(tmp_path: Path) -> None:
    model = tiny_model("llama").to(torch.bfloat16)
    source = context_for(tiny_model("llama"), tmp_path).source
    context = context_for(model, tmp_path, source=source)
    found = allocate(context, LemsSettings(windows=2, window=16, trials=1))
    assert plan_params(context.layers, found.ranks) <= check_target(context.layers, 0.8)
