"""LLM-Pruner: importance, choice under a budget, outer blocks, and LoRA recovery."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lrc_core.allocate.llm_pruner.choice import choose_units, whole_blocks
from lrc_core.allocate.llm_pruner.importance import salience_of, unit_scores
from lrc_core.allocate.llm_pruner.lora import allocate as allocate_lora
from lrc_core.allocate.llm_pruner.method import LlmPrunerSettings, prune
from lrc_core.allocate.llm_pruner.recovery import adapted, merged_weight, next_token_loss
from lrc_core.allocate.llm_pruner.settings import LlmPrunerLoraSettings
from lrc_core.budget import keep_ratio, plan_params
from lrc_core.errors import BudgetError, CancelledError
from lrc_core.lowrank.coupling import CoupledUnits, coupled_units
from lrc_core.lowrank.structure import restructured
from lrc_core.models.blocks.linears import block_linears, get_module, weight_of
from lrc_core.types import Structure
from tests.factories.tiny_methods import context_for, modules_of, random_windows, same_state, shape, state_of
from tests.factories.tiny_models import tiny_model

SMALL: dict[str, Any] = {"windows": 4, "window": 16}
TOKENS = random_windows(2, 24, seed=5)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=TOKENS, use_cache=False).logits
        return found


# -- importance ---------------------------------------------------------------------------------------------------


def test_salience_of_a_hand_made_case() -> None:
    weight = torch.tensor([[2.0, -1.0], [3.0, 0.5]])
    first = torch.tensor([[0.5, 4.0], [-1.0, 2.0]])
    second = torch.tensor([[1.0, 2.0], [0.0, 8.0]])
    assert salience_of(weight, first, None, "param_first").tolist() == [[1.0, -4.0], [-3.0, 1.0]]
    assert salience_of(weight, first, second, "param_second").tolist() == [[4.0, 2.0], [0.0, 2.0]]
    assert salience_of(weight, first, second, "param_mix").tolist() == [[-1.0, -5.0], [-3.0, 0.0]]


@pytest.mark.parametrize("importance", ["param_first", "vectorize", "param_second", "param_mix"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_scores_are_those_of_plain_autograd(importance: str, family: str, tmp_path: Path) -> None:
    """Weights' own gradients, window by window, and sums over every row and column of a unit, one by one."""
    model = tiny_model(family)
    state = state_of(model)
    context = context_for(model, tmp_path)
    sets = coupled_units(model, context.layers)
    scores = unit_scores(context, LlmPrunerSettings(importance=importance, **SMALL), sets)
    assert same_state(model, state)
    twin = copy.deepcopy(model).requires_grad_(True)
    per_window = []
    for window in random_windows(4, 16):
        twin.zero_grad()
        next_token_loss(twin, window[None]).backward()
        grads = {layer.name: get_module(twin, layer.name).weight.grad for layer in context.layers}
        is_conv = {name: isinstance(get_module(twin, name), Conv1D) for name in grads}
        per_window.append({name: (g.T if is_conv[name] else g).clone() for name, g in grads.items()})
    for units in (sets[0], sets[-1]):
        expected = np.zeros(units.count)
        for side, members in (("rows", units.rows), ("columns", units.columns)):
            for layer, index in members.items():
                gradients = torch.stack([found[layer.name] for found in per_window])
                first, second = gradients.mean(0), gradients.square().mean(0)
                salience = salience_of(weight_of(get_module(model, layer.name)), first, second, importance)
                lines = salience if side == "rows" else salience.T
                for unit, line in itertools.product(range(units.count), range(index.shape[1])):
                    values = lines[index[unit, line]]
                    expected[unit] += float(values.sum().abs() if importance == "vectorize" else values.abs().sum())
        np.testing.assert_allclose(scores[units.name], expected, rtol=2e-3, atol=1e-7)


def test_scores_are_measured_once_for_all_targets(tmp_path: Path) -> None:
    model = tiny_model("llama")
    settings = LlmPrunerSettings(**SMALL)
    first, _ = prune(context_for(model, tmp_path, keep=0.8), settings)

    def no_text(*_: Any) -> Any:
        raise AssertionError("text was asked for again")

    again, _ = prune(context_for(model, tmp_path, keep=0.8, windows=no_text), settings)
    assert again == first
    (tmp_path / "shared" / "importance.npz").write_bytes(b"broken")
    assert prune(context_for(model, tmp_path, keep=0.8), settings)[0] == first


def test_a_channel_that_does_nothing_goes_first(tmp_path: Path) -> None:
    model = tiny_model("llama")
    idle = [3, 11, 12, 30]
    with torch.no_grad():
        for block in range(3):
            get_module(model, f"model.layers.{block}.mlp.down_proj").weight[:, idle] = 0
    before = logits(model)
    given = context_for(model, tmp_path, keep=1 - 3 * 4 * 96 / 23040)
    structure, _ = prune(given, LlmPrunerSettings(**SMALL))
    for block in range(3):
        kept = structure.rows[f"model.layers.{block}.mlp.up_proj"]
        assert sorted(set(range(48)) - set(kept)) == idle
        assert structure.columns[f"model.layers.{block}.mlp.down_proj"] == kept
    with restructured(model, structure):
        torch.testing.assert_close(logits(model), before, rtol=1e-4, atol=1e-4)


def test_bfloat16(tmp_path: Path) -> None:
    model = tiny_model("llama").to(torch.bfloat16)
    structure, _ = prune(context_for(model, tmp_path, keep=0.7), LlmPrunerSettings(**SMALL))
    exact, _ = prune(context_for(tiny_model("llama"), tmp_path / "exact", keep=0.7), LlmPrunerSettings(**SMALL))
    same = sum(len(set(kept) & set(exact.rows[name])) for name, kept in structure.rows.items() if name in exact.rows)
    assert same > 0.85 * sum(map(len, exact.rows.values()))


# -- choice -------------------------------------------------------------------------------------------------------


def a_set(name: str, block: int, kind: str, count: int, width: int, hidden: int) -> CoupledUnits:
    """An MLP of one writer and one reader, or heads of that width."""
    writer = shape(f"{name}.in", count * width, hidden, block)
    reader = shape(f"{name}.out", hidden, count * width, block)
    index = np.arange(count * width).reshape(count, width)
    return CoupledUnits(name, kind, block, count, {writer: index}, {reader: index})


SETS = [a_set("a.heads", 0, "heads", 4, 3, 5), a_set("a.mlp", 0, "channels", 12, 1, 5)]
SETS += [a_set("b.heads", 1, "heads", 4, 3, 5), a_set("b.mlp", 1, "channels", 12, 1, 5)]
LAYERS = tuple(layer for units in SETS for layer in (*units.rows, *units.columns))
SCORES = {units.name: np.random.default_rng(n).random(units.count) for n, units in enumerate(SETS)}


def params_of(kept: dict[str, list[int]]) -> int:
    return sum(len(kept[units.name]) * units.params for units in SETS)


@pytest.mark.parametrize("ranking", ["uniform", "global"])
@pytest.mark.parametrize("keep", [0.29, 0.3, 0.5, 0.66, 0.75, 0.8, 0.95, 0.999])
def test_no_dropped_unit_would_still_fit_and_the_best_of_a_set_stay(ranking: str, keep: float) -> None:
    kept = choose_units(SETS, SCORES, LAYERS, keep, ranking=ranking)
    left = keep * sum(layer.params for layer in LAYERS) - params_of(kept)
    assert left >= 0
    for units in SETS:
        chosen = kept[units.name]
        assert chosen == sorted(set(chosen))
        assert len(chosen) >= 1
        assert len(chosen) == units.count or units.params > left
        others = set(range(units.count)) - set(chosen)
        assert all(SCORES[units.name][one] < SCORES[units.name][chosen].min() for one in others)


@pytest.mark.parametrize("keep", [0.5, 0.75])
def test_uniform_is_the_same_share_everywhere(keep: float) -> None:
    kept = choose_units(SETS, SCORES, LAYERS, keep, ranking="uniform")
    assert {len(kept[units.name]) / units.count for units in SETS} == {keep}


def test_the_global_ranking_loses_least_per_parameter() -> None:
    """Against brute force over all plans of that many parameters, for importances per parameter that add up."""
    keep = 0.6
    kept = choose_units(SETS, SCORES, LAYERS, keep, ranking="global")
    found = sum(SCORES[name][units].sum() for name, units in kept.items())
    allowed = keep * sum(layer.params for layer in LAYERS)
    best = max(
        sum(np.sort(SCORES[units.name])[::-1][:count].sum() for units, count in zip(SETS, counts, strict=True))
        for counts in itertools.product(*(range(1, units.count + 1) for units in SETS))
        if sum(count * units.params for units, count in zip(SETS, counts, strict=True)) <= allowed
    )
    assert best * 0.98 <= found <= best + 1e-9  # greedy: at most one unit's worth from the optimum


def test_a_target_that_is_too_small_names_the_smallest(tmp_path: Path) -> None:
    model = tiny_model("llama")
    settings = LlmPrunerSettings(first_whole=0.34, last_whole=0.34, **SMALL)
    with pytest.raises(BudgetError, match=r"at least 0\.7\d+"):
        prune(context_for(model, tmp_path, keep=0.5), settings)
    nothing = LlmPrunerSettings(first_whole=0.9, last_whole=0.9, **SMALL)
    with pytest.raises(BudgetError, match="head or channel"):
        prune(context_for(model, tmp_path, keep=0.9), nothing)


@pytest.mark.parametrize(
    ("blocks", "whole"), [(32, [0, 1, 2, 3, 30, 31]), (30, [0, 1, 2, 3, 28, 29]), (12, [0, 1, 11]), (3, [])]
)
def test_the_outer_blocks_scale_with_the_depth(blocks: int, whole: list[int]) -> None:
    settings = LlmPrunerSettings()
    assert sorted(whole_blocks(blocks, settings.first_whole, settings.last_whole)) == whole


@pytest.mark.parametrize("ranking", ["uniform", "global"])
def test_the_outer_blocks_are_whole_and_the_budget_is_met_by_the_others(ranking: str, tmp_path: Path) -> None:
    model = tiny_model("llama")
    given = context_for(model, tmp_path, keep=0.8)
    settings = LlmPrunerSettings(first_whole=0.34, last_whole=0.34, ranking=ranking, **SMALL)
    structure, details = prune(given, settings)
    assert details["blocks_whole"] == [0, 2]
    shapes = structure.shapes(given.layers)
    assert shapes
    assert all(name.startswith("model.layers.1.") for name in shapes)
    dense = {layer.name: layer.full_rank for layer in given.layers}
    assert 0.8 - 96 / 23040 < keep_ratio(given.layers, dense, shapes) <= 0.8
    assert plan_params(given.layers, dense, shapes) < plan_params(given.layers, dense)


# -- recovery -----------------------------------------------------------------------------------------------------

LORA = LlmPrunerLoraSettings(
    documents=8, training_window=24, batch=4, at_once=2, epochs=10, learning_rate=1e-2, lora_dropout=0.0, **SMALL
)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_lora_lowers_the_training_loss(family: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    state, modules, random = state_of(model), modules_of(model), torch.get_rng_state()
    given = context_for(model, tmp_path, keep=0.7)
    found = allocate_lora(given, LORA)
    assert found.structure is not None
    assert found.weights is not None
    assert modules_of(model) == modules
    assert same_state(model, state)
    assert not hasattr(model, "peft_config")
    assert torch.equal(torch.get_rng_state(), random)
    assert set(found.weights) == {layer.name for layer in given.layers}
    windows = random_windows(8, 24)
    with restructured(model, found.structure):
        before = float(next_token_loss(model, windows))
    with restructured(model, found.structure, found.weights):
        after = float(next_token_loss(model, windows))
    assert after < before - 0.2
    assert found.details is not None
    assert found.details["lora_steps"] == 20


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_merged_weights_are_the_adapted_model(family: str) -> None:
    model = tiny_model(family)
    names = [layer.name for layer in block_linears(model)]
    with adapted(model, names, LORA) as trained:
        with torch.no_grad():
            for parameter in trained:
                parameter.add_(0.05 * torch.randn_like(parameter))
        expected = logits(model)
        merged = {name: merged_weight(get_module(model, name)) for name in names}
    assert not torch.allclose(logits(model), expected, atol=1e-2)
    with restructured(model, Structure(), merged):
        torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("conv", [False, True])
def test_a_merge_by_hand(conv: bool) -> None:
    model = nn.Module()
    linear: nn.Module = Conv1D(3, 4) if conv else nn.Linear(4, 3)
    model.add_module("part", linear.requires_grad_(False))
    settings = LlmPrunerLoraSettings(lora_rank=2, lora_alpha=6.0)
    with adapted(model, ["part"], settings) as (down, up):
        assert {down.shape, up.shape} == {(2, 4), (3, 2)}
        assert not up.any()  # training starts at the pruned model
        up.data.normal_()
        expected = weight_of(linear) + 3.0 * up.detach() @ down.detach()
        torch.testing.assert_close(merged_weight(get_module(model, "part")), expected)
    assert get_module(model, "part") is linear


def test_a_low_precision_model_trains_in_full_precision(tmp_path: Path) -> None:
    model = tiny_model("llama").to(torch.bfloat16)
    names = [layer.name for layer in block_linears(model)]
    with adapted(model, names, LORA) as trained:
        assert {parameter.dtype for parameter in trained} == {torch.float32}
    found = allocate_lora(context_for(model, tmp_path, keep=0.7), LORA)
    assert found.weights is not None
    assert {weight.dtype for weight in found.weights.values()} == {torch.bfloat16}


def test_a_cancelled_training_goes_on_where_it_stopped(tmp_path: Path) -> None:
    model = tiny_model("llama")
    settings = LlmPrunerLoraSettings(**{**vars(LORA), "lora_dropout": 0.1})
    whole = allocate_lora(context_for(model, tmp_path / "whole", keep=0.7), settings)
    steps: list[int] = []

    def seen(tick: Any) -> None:
        if tick.phase == "training LoRA":
            steps.append(tick.step)

    context = context_for(model, tmp_path / "cut", keep=0.7, on_progress=seen, should_stop=lambda: len(steps) >= 7)
    with pytest.raises(CancelledError):
        allocate_lora(context, settings)
    resumed = allocate_lora(context_for(model, tmp_path / "cut", keep=0.7, on_progress=seen), settings)
    assert steps == list(range(1, 21))
    assert resumed.structure == whole.structure
    assert whole.weights is not None
    assert resumed.weights is not None
    assert all(torch.equal(resumed.weights[name], weight) for name, weight in whole.weights.items())
    assert resumed.details == whole.details


def test_modules_are_put_back_after_a_failure() -> None:
    model = tiny_model("llama")
    modules = modules_of(model)
    names = [layer.name for layer in block_linears(model)]
    with pytest.raises(RuntimeError, match="inside"), adapted(model, names, LORA):
        raise RuntimeError("inside")
    with pytest.raises(ValueError, match="Norm"), adapted(model, [*names, "model.norm"], LORA):
        pass
    assert modules_of(model) == modules
