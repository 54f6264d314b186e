"""Loss-curve greedy: steps along convex hulls, against all plans there are."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from lrc_core.allocate.greedy.method import GreedySettings, allocate, choose, hull_steps
from lrc_core.allocate.strs.method import StrsSettings
from lrc_core.allocate.strs.method import allocate as strs
from lrc_core.budget import dense_ranks, keep_ratio, layer_params, plan_params
from tests.factories.tiny_methods import context_for, grid_of_shapes
from tests.factories.tiny_models import tiny_model

LAYERS = grid_of_shapes([(48, 48), (16, 48), (96, 40)], blocks=2)
TOTAL = sum(layer.params for layer in LAYERS)
SMALL = {"windows": 2, "window": 16, "lowest": 0.3, "highest": 0.9, "step": 0.3}


def random_curves(seed: int) -> dict[str, dict[int, float]]:
    """Losses at three ranks of every layer, not always falling with the rank."""
    rng = random.Random(seed)
    return {layer.name: {rank: rng.expovariate(1) / rank for rank in (3, 6, 9)} for layer in LAYERS}


@pytest.mark.parametrize("seed", range(8))
def test_after_every_step_no_plan_of_that_size_is_better(seed: int) -> None:
    curves = random_curves(seed)
    options = {layer.name: {**curves[layer.name], layer.full_rank: 0.0} for layer in LAYERS}
    plans = [
        dict(zip(options, ranks, strict=True)) for ranks in itertools.product(*(options[name] for name in options))
    ]
    figures = [(plan_params(LAYERS, plan), sum(options[name][rank] for name, rank in plan.items())) for plan in plans]
    ranks, loss = dense_ranks(LAYERS), 0.0
    for step in hull_steps(LAYERS, curves):
        name = step.layer.name
        assert ranks[name] == step.start and step.end < step.start
        loss += options[name][step.end] - options[name][step.start]
        saved = layer_params(step.layer, step.start) - layer_params(step.layer, step.end)
        assert step.price * saved == pytest.approx(options[name][step.end] - options[name][step.start])
        ranks[name] = step.end
        cost = plan_params(LAYERS, ranks)
        assert loss == pytest.approx(min(found for size, found in figures if size <= cost))
        # A budget of exactly that size gives exactly that plan.
        if cost / TOTAL < 1:
            assert choose(LAYERS, curves, cost / TOTAL) == ranks


def test_points_above_the_hull_are_passed_by() -> None:
    layer = LAYERS[0]
    curves = {found.name: {3: 1e6, 9: 1e6} for found in LAYERS}
    curves[layer.name] = {3: 1.0, 6: 0.99, 9: 0.98, 12: 0.3}  # 6 and 9 lie above the line from 3 to 12
    mine = [(step.start, step.end) for step in hull_steps(LAYERS, curves) if step.layer == layer]
    assert mine == [(48, 12), (12, 3)]


def test_the_last_step_goes_only_as_far_as_the_budget_asks() -> None:
    cheap = LAYERS[2]
    curves = {layer.name: {3: 100.0} for layer in LAYERS} | {cheap.name: {3: 0.1}}
    keep = 1 - (cheap.params - layer_params(cheap, 20)) / TOTAL
    ranks = choose(LAYERS, curves, keep)
    assert ranks == {**dense_ranks(LAYERS), cheap.name: 20}


def test_a_target_below_the_grid_scales_all_layers_down() -> None:
    ranks = choose(LAYERS, random_curves(0), 0.1)
    assert 0.09 < keep_ratio(LAYERS, ranks) <= 0.1
    assert all(1 <= rank <= 9 for rank in ranks.values())


@pytest.mark.parametrize("measure", ["kl", "loss"])
def test_the_probes_of_strs_serve_every_measure(measure: str, tmp_path: Path) -> None:
    model = tiny_model("llama")
    strs(context_for(model, tmp_path), StrsSettings(**SMALL))
    silent = context_for(model, tmp_path, windows=None)  # no text, so no probe
    shared = allocate(silent, GreedySettings(measure, **SMALL))
    own = allocate(context_for(model, tmp_path / "alone"), GreedySettings(measure, **SMALL))
    assert shared == own
    assert len(list((tmp_path / "common").iterdir())) == 1
    # And the other way round.
    strs(context_for(model, tmp_path / "alone", windows=None), StrsSettings(**SMALL))


def test_the_measures_differ(tmp_path: Path) -> None:
    context = context_for(tiny_model("llama"), tmp_path)
    found = [allocate(context, GreedySettings(measure, **SMALL)).ranks for measure in ("kl", "loss")]
    assert found[0] != found[1]
