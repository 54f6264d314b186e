"""Zero Sum SVD: scores are true derivatives; the rule is the naive one; its running sum stays near zero."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lrc_core.allocate.curves.sensitivity import component_slopes
from lrc_core.allocate.zerosum.method import Drop, ZeroSumSettings, allocate, choose_drops, ranks_after
from lrc_core.budget import break_even, is_dense, layer_params, plan_params
from lrc_core.errors import NumericalError
from lrc_core.models.blocks.linears import block_linears, get_module
from tests.factories.tiny_methods import (
    MemoryFactors,
    context_for,
    grid_of_shapes,
    random_windows,
    same_state,
    shape,
    state_of,
)
from tests.factories.tiny_models import FAMILIES, tiny_model

BATCHES = [random_windows(2, 12, seed=1), random_windows(3, 10, seed=2)]
LAYERS = grid_of_shapes([(24, 24), (8, 24), (40, 16)], blocks=2)
CHOICES = pytest.mark.parametrize("candidates", ["sigma", "score"])


def slopes_of(model: nn.Module, pairs: Any) -> dict[str, np.ndarray]:
    return component_slopes(context_for(model, Path(), source=object()), pairs, BATCHES)


def pairs_of(model: nn.Module) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    source = MemoryFactors(model, random_windows(6, 32))
    found = {layer.name: source.factors(layer.name, layer.block) for layer in block_linears(model)}
    return {name: (factors.left, factors.right) for name, factors in found.items()}


def mean_loss(model: Any) -> torch.Tensor:
    logits = [model(input_ids=batch, use_cache=False).logits[:, :-1].flatten(0, 1) for batch in BATCHES]
    return nn.functional.cross_entropy(torch.cat(logits), torch.cat([batch[:, 1:].flatten() for batch in BATCHES]))


@pytest.mark.parametrize("family", FAMILIES)
def test_slopes_are_those_of_the_weight_gradient(family: str) -> None:
    model = tiny_model(family)
    pairs, state = pairs_of(model), state_of(model)
    found = slopes_of(model, pairs)
    assert same_state(model, state)
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())
    weights = {layer.name: get_module(model, layer.name).weight for layer in block_linears(model)}
    for weight in weights.values():
        weight.requires_grad_()
    gradients = torch.autograd.grad(mean_loss(model), list(weights.values()))
    for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
        rows = gradient.T if type(get_module(model, name)).__name__ == "Conv1D" else gradient  # [out, in]
        left, right = pairs[name]
        expected = torch.einsum("mi,mn,in->i", left, rows, right).numpy()
        np.testing.assert_allclose(found[name], expected, rtol=2e-3, atol=1e-4 * np.abs(expected).max())
        assert weight.grad is None


def test_a_score_predicts_what_a_little_less_of_a_component_does() -> None:
    model = tiny_model("llama").double()
    layer = block_linears(model)[4]
    pairs = {name: (left.double(), right.double()) for name, (left, right) in pairs_of(model.float()).items()}
    model = model.double()
    slopes = slopes_of(model, pairs)[layer.name]
    left, right = pairs[layer.name]
    weight = get_module(model, layer.name).weight
    for index in (0, 3, layer.full_rank - 1):
        changes = []
        for step in (1e-2, -1e-2):
            component = step * torch.outer(left[:, index], right[index])
            with torch.no_grad():
                weight -= component
                changes.append(float(mean_loss(model)))
                weight += component
        # Norms compute in float32 whatever the model's type.
        assert (changes[0] - changes[1]) / 2e-2 == pytest.approx(-slopes[index], rel=1e-2, abs=1e-5)


def test_a_gradient_that_is_not_finite_names_the_layer() -> None:
    model = tiny_model("llama")
    pairs = pairs_of(model)
    name = next(iter(pairs))
    pairs[name][0].fill_(float("inf"))
    with pytest.raises(NumericalError, match=name):
        slopes_of(model, pairs)


def random_scores(seed: int, shift: float = 0.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {layer.name: rng.normal(shift, 1, layer.full_rank) * rng.exponential() for layer in LAYERS}


def naive(scores: dict[str, np.ndarray], keep: float, candidates: str) -> list[Drop]:
    """The rule in plain words: look at every candidate at every step."""
    left = {layer.name: list(range(layer.full_rank)) for layer in LAYERS}
    drops: list[Drop] = []
    allowed = keep * sum(layer.params for layer in LAYERS)
    while plan_params(LAYERS, {name: len(indices) for name, indices in left.items()}) > allowed:
        offered = []
        for layer in LAYERS:
            indices = left[layer.name]
            if len(indices) > 1:
                values = scores[layer.name]
                index = max(indices) if candidates == "sigma" else min(indices, key=lambda i: abs(values[i]))
                offered.append(Drop(layer.name, index, float(values[index])))
        positive = sum(drop.score for drop in drops) <= 0
        wanted = [drop for drop in offered if (drop.score >= 0) == positive] or offered
        chosen = min(wanted, key=lambda drop: abs(drop.score))
        drops.append(chosen)
        left[chosen.layer].remove(chosen.index)
    return drops


@CHOICES
@pytest.mark.parametrize("keep", [0.95, 0.8, 0.5, 0.2])
@pytest.mark.parametrize("seed", range(4))
def test_the_rule_is_the_naive_one(seed: int, keep: float, candidates: str) -> None:
    scores = random_scores(seed, shift=0.2 * (seed - 1))
    assert choose_drops(LAYERS, scores, keep, candidates=candidates) == naive(scores, keep, candidates)


def test_a_case_by_hand() -> None:
    layers = (shape("a", 6, 6), shape("b", 6, 6))  # break-even 3: the first three drops of a layer save nothing
    scores = {"a": np.array([9, 9, 4, -1, 2, 3.0]), "b": np.array([9, 9, -8, -7, -5, 6.0])}
    drops = choose_drops(layers, scores, 0.7, candidates="sigma")
    # Sum 0: a's 3 is smaller than b's 6. 3: no negative is on offer, so a's 2. 5: a's -1. 4: no negative, a's 4 is
    # smaller than b's 6. 8: none, so b's 6 rather than a's 9. 14, 9 and 2: b's -5, -7 and -8.
    assert [(drop.layer, drop.score) for drop in drops] == [
        ("a", 3), ("a", 2), ("a", -1), ("a", 4), ("b", 6), ("b", -5), ("b", -7), ("b", -8)
    ]  # fmt: skip
    # Each ends at rank 2, one below break-even, and saves 12 of 36.
    assert ranks_after(layers, drops, 0.7) == {"a": 2, "b": 2}


@CHOICES
@pytest.mark.parametrize("seed", range(5))
def test_the_running_sum_stays_within_the_largest_score(seed: int, candidates: str) -> None:
    scores = random_scores(seed)
    drops = choose_drops(LAYERS, scores, 0.5, candidates=candidates)
    total, bound = 0.0, 0.0
    for drop in drops:
        if (drop.score < 0) != (total > 0):  # the wanted sign was not on offer: the bound grows
            bound += abs(drop.score)
        total += drop.score
        bound = max(bound, abs(drop.score))
        assert abs(total) <= bound + 1e-9
    if candidates == "score":  # enough of both signs on offer throughout: a far smaller sum than of any other order
        assert abs(total) <= max(abs(drop.score) for drop in drops)


def test_where_all_signs_are_equal_the_smallest_go() -> None:
    scores = {name: np.abs(values) for name, values in random_scores(3).items()}
    drops = choose_drops(LAYERS, scores, 0.9, candidates="score")
    sizes = [drop.score for drop in drops]
    assert sizes == sorted(sizes)
    mirrored = choose_drops(LAYERS, {n: -v for n, v in scores.items()}, 0.9, candidates="score")
    assert [(drop.layer, drop.index) for drop in mirrored] == [(drop.layer, drop.index) for drop in drops]


@CHOICES
def test_the_floor_holds_as_far_as_the_target_allows(candidates: str) -> None:
    scores = random_scores(1)
    for keep in (0.7, 0.5):
        drops = choose_drops(LAYERS, scores, keep, candidates=candidates, floor=0.4)
        for layer in LAYERS:
            gone = sum(drop.layer == layer.name for drop in drops)
            assert layer.full_rank - gone >= 0.4 * break_even(layer)
    drops = choose_drops(LAYERS, scores, 0.2, candidates=candidates, floor=0.4)
    assert plan_params(LAYERS, ranks_after(LAYERS, drops, 0.2)) <= 0.2 * sum(layer.params for layer in LAYERS)


@CHOICES
@pytest.mark.parametrize("keep", [0.9, 0.6])
def test_what_is_kept_is_what_was_not_dropped(candidates: str, keep: float, tmp_path: Path) -> None:
    given = context_for(tiny_model("llama"), tmp_path, keep=keep)
    found = allocate(given, ZeroSumSettings(windows=3, window=16, candidates=candidates))
    scores = np.load(tmp_path / "shared" / "scores.npz")
    drops = choose_drops(given.layers, {n: scores[n] for n in scores.files}, keep, candidates=candidates)
    if candidates == "sigma":
        assert found.kept is None
    for layer in given.layers:
        gone = [drop.index for drop in drops if drop.layer == layer.name]
        rank = found.ranks[layer.name]
        if is_dense(layer, rank):
            continue
        assert layer.full_rank - len(gone) <= rank  # the overshoot of the last drop is given back
        if found.kept is not None:
            back = gone[len(gone) - (rank - layer.full_rank + len(gone)) :]
            assert set(found.kept[layer.name]) == set(range(layer.full_rank)) - set(gone) | set(back)
            assert list(found.kept[layer.name]) == sorted(found.kept[layer.name])


def test_details_say_what_is_void(tmp_path: Path) -> None:
    given = context_for(tiny_model("llama"), tmp_path, keep=0.9)
    found = allocate(given, ZeroSumSettings(windows=3, window=16))
    details = dict(found.details or {})
    scores = np.load(tmp_path / "shared" / "scores.npz")
    drops = choose_drops(given.layers, {n: scores[n] for n in scores.files}, 0.9, candidates="sigma")
    dense = {layer.name for layer in given.layers if is_dense(layer, found.ranks[layer.name])}
    assert details["running_sum"] == pytest.approx(sum(drop.score for drop in drops))
    assert details["void_sum"] == pytest.approx(sum(drop.score for drop in drops if drop.layer in dense))
    assert details["void_drops"] > 0
    low = [layer for layer in given.layers if layer.name not in dense]
    expected = sum(scores[layer.name][found.ranks[layer.name] :].sum() for layer in low)
    assert details["predicted_change"] == pytest.approx(expected)
    saved = sum(layer.params - layer_params(layer, found.ranks[layer.name]) for layer in low)
    assert 1 - saved / sum(layer.params for layer in given.layers) <= 0.9


def test_scores_serve_every_target_and_a_broken_file_is_made_anew(tmp_path: Path) -> None:
    model, settings = tiny_model("llama"), ZeroSumSettings(windows=2, window=16)
    first = allocate(context_for(model, tmp_path, keep=0.8), settings)

    def no_text(*_: Any) -> Any:
        raise AssertionError("text was asked for")

    other = allocate(context_for(model, tmp_path, keep=0.6, windows=no_text), settings)
    assert other.ranks != first.ranks
    (tmp_path / "shared" / "scores.npz").write_bytes(b"PK\x03\x04 half a file")
    assert allocate(context_for(model, tmp_path, keep=0.8), settings).ranks == first.ranks
    assert {path.name for path in (tmp_path / "shared").iterdir()} == {"scores.npz", "scores.npz.damaged"}


def test_a_model_in_bfloat16(tmp_path: Path) -> None:
    model = tiny_model("llama")
    source = MemoryFactors(model, random_windows(6, 32))
    found = allocate(
        context_for(model.bfloat16(), tmp_path, source=source),
        ZeroSumSettings(windows=2, window=16, candidates="score"),
    )
    assert found.kept is not None
