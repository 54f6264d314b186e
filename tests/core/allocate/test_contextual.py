"""Contextual KL: the best combination of single changes to the uniform plan."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch

from lrc_core.allocate.contextual.method import ContextualSettings, allocate, tried_ranks
from lrc_core.budget import break_even, check_target, dense_ranks, fit_budget, is_dense, plan_params, uniform_ranks
from lrc_core.errors import CancelledError
from lrc_core.lowrank.apply import compressed
from tests.factories.tiny_methods import context_for, grid_of_shapes, random_windows
from tests.factories.tiny_models import tiny_model

SETTINGS = ContextualSettings(windows=2, window=16, lowest=0.3, step=0.3)
LAYERS = grid_of_shapes([(48, 48), (16, 48), (96, 40)], blocks=2)


@pytest.mark.parametrize("keep", [0.4, 0.7, 0.9])
def test_every_layer_may_be_uniform_or_dense(keep: float) -> None:
    base = fit_budget(LAYERS, uniform_ranks(LAYERS, keep), keep)
    found = tried_ranks(LAYERS, ContextualSettings(), base)
    for layer in LAYERS:
        ranks = found[layer.name]
        assert base[layer.name] in ranks and ranks[-1] == layer.full_rank
        assert ranks == sorted(set(ranks)) and not any(is_dense(layer, rank) for rank in ranks[:-1])
        assert {int(ratio / 10 * break_even(layer) + 1e-9) for ratio in range(1, 10)} <= {0, *ranks}


def divergence(dense: torch.Tensor, own: torch.Tensor) -> float:
    target, mine = torch.log_softmax(dense.double(), -1), torch.log_softmax(own.double(), -1)
    return float((target.exp() * (target - mine)).sum(-1).mean())


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_no_combination_of_measured_changes_is_better(family: str, tmp_path: Path) -> None:
    """Five layers only, so that all plans can be tried; every figure measured on the whole model."""
    model = tiny_model(family)
    layers = context_for(model, tmp_path).layers[2:7]
    context = context_for(model, tmp_path, layers=layers, keep=0.7)
    allocated = allocate(context, SETTINGS)
    base = fit_budget(layers, uniform_ranks(layers, 0.7), 0.7)
    tokens = random_windows(2, 16, seed=0)

    def measured(ranks: dict[str, int]) -> float:
        with torch.no_grad(), compressed(model, layers, ranks, context.source):
            own = model(input_ids=tokens, use_cache=False).logits
        with torch.no_grad():
            return divergence(model(input_ids=tokens, use_cache=False).logits, own)

    uniform = measured(base)
    tried = tried_ranks(layers, SETTINGS, base)
    change = {(name, rank): measured({**base, name: rank}) - uniform for name, ranks in tried.items() for rank in ranks}
    allowed = check_target(layers, 0.7)
    plans = (dict(zip(tried, ranks, strict=True)) for ranks in itertools.product(*tried.values()))
    best = min(
        (plan for plan in plans if plan_params(layers, plan) <= allowed),
        key=lambda plan: sum(change[found] for found in plan.items()),
    )
    total = sum(change[found] for found in best.items())
    details = dict(allocated.details or {})
    assert details["uniform_divergence"] == pytest.approx(uniform, rel=1e-4)
    assert details["predicted_divergence"] == pytest.approx(uniform + total, rel=1e-4, abs=1e-6)
    assert details["predicted_divergence"] <= details["uniform_divergence"]
    assert all(allocated.ranks[name] >= rank for name, rank in best.items())  # what is left is spent on top
    assert plan_params(layers, allocated.ranks) <= allowed


def test_probes_belong_to_the_target_and_survive_a_cancel(tmp_path: Path) -> None:
    model = tiny_model("llama")
    whole = allocate(context_for(model, tmp_path / "whole"), SETTINGS)
    ticks: list[int] = []
    stopping = context_for(
        model, tmp_path / "parts", on_progress=lambda tick: ticks.append(tick.step), should_stop=lambda: len(ticks) > 7
    )
    with pytest.raises(CancelledError, match="Resume"):
        allocate(stopping, SETTINGS)
    assert ticks == list(range(1, 9))
    (path,) = (tmp_path / "parts" / "checkpoint").iterdir()
    assert len(path.read_text().splitlines()) == 1 + 8  # the uniform plan, and the probes
    resumed = context_for(model, tmp_path / "parts", on_progress=lambda tick: ticks.append(tick.step))
    assert allocate(resumed, SETTINGS) == whole
    assert ticks == list(range(1, (whole.details or {})["probes"] + 1))
    assert not (tmp_path / "parts" / "common").exists()
    assert {json.loads(line)["layer"] for line in path.read_text().splitlines()} == {
        "",
        *dense_ranks(resumed.layers),
    }
