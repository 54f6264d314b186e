"""Budgets in time: measured times as a law of their own, spent where they save most loss."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lrc_core.allocate.curves.latency import require_time, timed_ways
from lrc_core.allocate.curves.mixtures import best_mixture, on_hull
from lrc_core.budget import layer_params, stored
from lrc_core.errors import BudgetError, LrcError
from lrc_core.formats.budgets import budget_words, latency_share
from lrc_core.kinds import KINDS, command_for
from lrc_core.lowrank import timing
from lrc_core.lowrank.timing import layer_times
from lrc_core.pipeline import allocation
from lrc_core.plan import Plan
from lrc_core.runs.spec import AllocateSpec, CalibrationSpec, ModelRef
from lrc_core.types import LinearShape, ignore_progress, never_stop
from tests.factories.pipeline_helpers import result_of, run
from tests.factories.tiny_models import save_tiny, tiny_text

LAYERS = tuple(LinearShape(f"a.{i}.x", i, "x", 12, 16) for i in range(3))
FLOOR = 2e-6


def as_parameters(layer: LinearShape, floor: float = FLOOR) -> dict[int, float]:
    """A device on which time is a launch for each product and a nanosecond for a parameter."""
    low = {rank: 2 * floor + 1e-9 * layer_params(layer, rank) for rank in range(1, layer.full_rank, 2)}
    return {**low, layer.full_rank: floor + 1e-9 * layer.params}


@pytest.mark.parametrize("storage", ["pair", "pivoted"])
@pytest.mark.parametrize("floor", [0.0, 2e-8])
def test_no_plan_that_is_as_fast_loses_less(storage: Any, floor: float) -> None:
    layers = stored(LAYERS, storage)
    draw = np.random.default_rng(0)
    losses = {layer.name: np.sort(draw.random(12))[::-1] ** 3 for layer in layers}
    ways = {layer.name: timed_ways(layer, losses[layer.name], as_parameters(layer, floor)) for layer in layers}
    hulls = {name: on_hull(found) for name, found in ways.items()}
    dense = sum(as_parameters(layer, floor)[layer.full_rank] for layer in layers)
    for share in (0.5, 0.7, 0.9, 1.0):
        found = best_mixture(layers, hulls, require_time(hulls, share, dense))
        options = [list(zip(w.costs.tolist(), w.losses.tolist(), strict=True)) for w in ways.values()]
        best = min(
            sum(loss for _, loss in mix) for mix in product(*options) if sum(cost for cost, _ in mix) <= found.cost
        )
        gap = max(one.loss - two.loss for hull in hulls.values() for one, two in pairwise(hull))
        assert found.cost <= 1e9 * share * dense + len(layers) and found.loss <= best + gap


def test_measured_noise_never_makes_a_larger_rank_cheaper() -> None:
    layer, losses = LAYERS[0], np.linspace(1, 0.1, 12)
    times = {1: 5e-6, 3: 2e-6, 6: 7e-6, 12: 9e-6}
    ways = timed_ways(layer, losses, times)
    by_rank = dict(zip(ways.ranks.tolist(), ways.costs.tolist(), strict=True))
    ordered = [by_rank[rank] for rank in sorted(by_rank)]
    assert ordered == sorted(ordered) and by_rank[1] == by_rank[3] == pytest.approx(3500, abs=1)
    assert by_rank[6] == pytest.approx(7000, abs=1)
    assert set(timed_ways(replace(layer, rank_multiple=4), losses, times).ranks) == {4, 12}


def test_slower_layers_of_low_rank_are_never_chosen() -> None:
    """Where a second launch costs more than what a rank saves, dense is both faster and better."""
    layer = LAYERS[0]
    hull = on_hull(timed_ways(layer, np.ones(12), as_parameters(layer, 1e-3)))
    assert [option.rank for option in hull] == [layer.full_rank]
    with pytest.raises(BudgetError, match="latency:1"):
        require_time({layer.name: hull}, 0.7, as_parameters(layer, 1e-3)[12])


def test_a_device_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_BYTES", 1)
    folder = tmp_path / "not there yet"
    layers, like = stored(LAYERS, "pivoted"), torch.zeros(1)
    first = layer_times(layers, like, folder, ignore_progress, never_stop)
    assert all(seconds > 0 for seconds in first["a.0.x"].values()) and {1, 11, 12} <= first["a.0.x"].keys()
    again = layer_times(layers, like, folder, ignore_progress, lambda: True)  # would stop if it measured
    assert again == first
    (path,) = folder.glob("*.json")
    path.write_text("{", encoding="utf-8")
    assert layer_times(layers, like, folder, ignore_progress, never_stop).keys() == first.keys()


@pytest.mark.parametrize("words", ["latency:0", "latency:1.5", "latency:x", "latency:", "time:0.7", "latency:nan"])
def test_what_is_no_budget_is_refused(words: str) -> None:
    with pytest.raises(BudgetError):
        budget_words(words)


def test_what_cannot_be_given_a_time_is_refused() -> None:
    spec = AllocateSpec(method="lagrangian", budget="latency:0.7", keep=1.0)
    KINDS["allocate"].check(spec)
    for wrong in (replace(spec, method="uniform"), replace(spec, vary="bits")):
        with pytest.raises(LrcError):
            KINDS["allocate"].check(wrong)
    assert latency_share(spec.budget) == 0.7 and "latency:0.7" in command_for(spec)


def test_a_plan_within_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole road with a made-up device on which MLPs are slow: they are what gets smaller."""
    (tmp_path / "text.txt").write_text(tiny_text(4000))

    def times(layers: Any, *_: Any) -> dict[str, dict[int, float]]:
        slow = {layer.name: 9 if "mlp" in layer.name else 1 for layer in layers}
        return {layer.name: {k: slow[layer.name] * s for k, s in as_parameters(layer, 0).items()} for layer in layers}

    monkeypatch.setattr(allocation, "layer_times", times)
    text = CalibrationSpec(texts=(str(tmp_path / "text.txt"),), windows=8, window=32)
    model = ModelRef(str(save_tiny(tmp_path / "m")))
    spec = AllocateSpec(model, "lagrangian", "kfac", 1.0, calibration=text, budget="latency:0.7", storage="pivoted")
    result = result_of(run(spec))
    plan, details = Plan.from_dict(result["plan"]), result["details"]
    assert details["milliseconds"] <= 0.7 * details["dense_milliseconds"] + 1e-3
    assert plan.origin["budget"] == "latency:0.7" and not plan.formats
    kept = {
        part: [plan.ranks.get(n, 0) or 32 for n in (*plan.ranks, *plan.dense) if part in n] for part in ("mlp", "attn")
    }
    assert np.mean(kept["mlp"]) < np.mean(kept["attn"])
