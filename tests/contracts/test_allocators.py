"""What holds for every registered allocator, on models of several families."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import pytest

import lrc_core.allocate  # noqa: F401  registers them
from lrc_core.allocate.masks.training import load_state, save_state
from lrc_core.allocate.protocol import Allocation, Context, allocated
from lrc_core.budget import dense_ranks, fit_budget, is_dense, keep_ratio, layer_params, plan_params
from lrc_core.errors import BudgetError, CancelledError
from lrc_core.lowrank.coupling import coupled_units
from lrc_core.plan import Plan, make_plan, pruned_plan
from lrc_core.registry import ALLOCATORS, REPORTED, MethodEntry
from lrc_core.settings import fields_of
from lrc_core.types import Progress
from tests.factories.tiny_methods import (
    MemoryFactors,
    card_of,
    context_for,
    modules_of,
    random_windows,
    same_state,
    state_of,
)
from tests.factories.tiny_models import tiny_model

# Grouped-query attention and tied embeddings; biases; Conv1D; fused query, key and value; scaled embeddings.
FAMILIES = ("llama", "opt", "gpt2", "gpt_neox", "gemma")
KEEPS = (0.95, 0.8, 0.55)
EVERY = pytest.mark.parametrize("entry", list(ALLOCATORS), ids=lambda entry: entry.name)


def trained(entry: MethodEntry) -> bool:
    """Whether it trains something: masks, or what is left after pruning."""
    return entry.learns or "epochs" in {field.name for field in fields_of(entry.settings_class)}


TRAINED = [entry.name for entry in ALLOCATORS if trained(entry)]


def cells_of(entry: MethodEntry) -> list[tuple[str, float]]:
    """The families and sizes that a method is tried on: all of them, or, where it trains and so takes long, one with
    grouped-query attention and two others, which go around from method to method."""
    if not trained(entry):
        return [(family, keep) for family in FAMILIES for keep in KEEPS]
    turn = TRAINED.index(entry.name)
    grouped, others = FAMILIES[0], FAMILIES[1:]
    families = (grouped, others[turn % len(others)], others[(turn + 1) % len(others)])
    return [(family, KEEPS[(turn + place) % len(KEEPS)]) for place, family in enumerate(families)]


CELLS = [(entry, *cell) for entry in ALLOCATORS for cell in cells_of(entry)]


def test_trained_methods_cover_every_family_and_size_between_them() -> None:
    cells = [cell for name in TRAINED for cell in cells_of(ALLOCATORS.get(name))]
    assert {family for family, _ in cells} == set(FAMILIES)
    for family in FAMILIES[:1]:
        assert {keep for other, keep in cells if other == family} == set(KEEPS)
    assert {keep for _, keep in cells} == set(KEEPS)


@functools.cache
def model_and_factors(family: str) -> tuple[Any, MemoryFactors]:
    model = tiny_model(family)
    return model, MemoryFactors(model, random_windows(6, 32, seed=1))


def context(family: str, folder: Path, keep: float = 0.8, **more: Any) -> Context:
    model, source = model_and_factors(family)
    return context_for(model, folder, keep=keep, source=source, **more)


def settings_of(entry: MethodEntry) -> Any:
    return entry.settings(next(iter(entry.presets)), entry.tiny)


def run(entry: MethodEntry, given: Context) -> Allocation:
    return allocated(entry, given, settings_of(entry))


@pytest.mark.parametrize(
    ("entry", "family", "keep"), CELLS, ids=[f"{entry.name}-{family}-{keep}" for entry, family, keep in CELLS]
)
def test_an_allocation_meets_its_budget(entry: MethodEntry, family: str, keep: float, tmp_path: Path) -> None:
    given = context(family, tmp_path, keep)
    state, modules = state_of(given.model), modules_of(given.model)
    found = run(entry, given)
    layers = given.layers
    assert set(found.ranks) == {layer.name for layer in layers}
    assert all(1 <= found.ranks[layer.name] <= layer.full_rank for layer in layers)
    allowed = keep * sum(layer.params for layer in layers)
    used = plan_params(layers, found.ranks, shapes_of(found, given))
    assert used <= allowed
    assert used >= 0.995 * allowed or allowed - used < _one_step(entry, given)
    assert (found.structure is not None) == entry.structured
    if found.structure is None:
        assert fit_budget(layers, found.ranks, keep) == dict(found.ranks)
    else:
        assert found.ranks == dense_ranks(layers)  # what is left of a pruned layer has no rank of its own
    _check_kept(found, given)
    _check_round_trip(found, given, entry)
    assert modules_of(given.model) == modules
    assert same_state(given.model, state)


def shapes_of(found: Allocation, given: Context) -> dict[str, tuple[int, int]]:
    return {} if found.structure is None else found.structure.shapes(given.layers)


def _one_step(entry: MethodEntry, given: Context) -> int:
    """What the finest step of a method costs: one rank of the largest layer, or one MLP channel."""
    if entry.structured:
        units = coupled_units(given.model, given.layers)
        return min(unit.params for unit in units if unit.block == units[-1].block)
    return max(layer.out_features + layer.in_features for layer in given.layers)


def _check_kept(found: Allocation, given: Context) -> None:
    for layer in given.layers if found.kept is not None else ():
        kept = (found.kept or {})[layer.name]
        if not is_dense(layer, found.ranks[layer.name]):
            assert len(set(kept)) == len(kept) == found.ranks[layer.name]
            assert all(0 <= index < layer.full_rank for index in kept)


def _check_round_trip(found: Allocation, given: Context, entry: MethodEntry) -> None:
    card = card_of(given.model)
    plan = make_plan(
        card, found.ranks, decomposition="whitened", method=entry.name, keep_target=given.keep, kept=found.kept
    )
    shapes = shapes_of(found, given)
    if entry.structured:
        plan = pruned_plan(plan, card, shapes, "structure.safetensors")
    again = Plan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again == plan
    again.check_model(card)
    used = plan_params(card.layers, again.full_ranks(card.layers), again.pruned)
    assert used == plan_params(card.layers, found.ranks, shapes)
    assert again.keep_achieved == keep_ratio(card.layers, found.ranks, shapes)
    json.dumps(dict(found.details or {}))


@EVERY
def test_keep_one_is_the_dense_model(entry: MethodEntry, tmp_path: Path) -> None:
    given = context("llama", tmp_path, 1.0)
    assert run(entry, given).ranks == dense_ranks(given.layers)


@EVERY
@pytest.mark.parametrize("keep", [0, -0.5, 1.01, 80, float("nan"), float("inf"), 0.001])
def test_an_impossible_target_is_refused_before_any_work(entry: MethodEntry, keep: float, tmp_path: Path) -> None:
    def no_text(*_: Any) -> Any:
        raise AssertionError("text was asked for")

    with pytest.raises(BudgetError):
        run(entry, context("llama", tmp_path, keep, windows=no_text))


@EVERY
def test_the_smallest_target_that_exists_is_met(entry: MethodEntry, tmp_path: Path) -> None:
    layers = context("llama", tmp_path).layers
    smallest = sum(layer_params(layer, 1) for layer in layers) / sum(layer.params for layer in layers)
    if entry.structured:  # rank 1 everywhere is less than a head and a channel a block
        with pytest.raises(BudgetError, match="at least") as refused:
            run(entry, context("llama", tmp_path, smallest))
        least = float(re.findall(r"at least (0\.\d+)", str(refused.value))[0])
        shapes = shapes_of(run(entry, given := context("llama", tmp_path, least)), given)
        assert sorted({min(shape) for shape in shapes.values()}) == [1, 8, 16]  # a channel, a key's head, two queries'
        return
    found = run(entry, context("llama", tmp_path, smallest))
    assert set(found.ranks.values()) == {1}


@EVERY
def test_the_same_seed_gives_the_same_plan(entry: MethodEntry, tmp_path: Path) -> None:
    first, again = (run(entry, context("gpt2", tmp_path / name)) for name in ("first", "again"))
    assert first.ranks == again.ranks
    assert first.kept == again.kept
    assert first.structure == again.structure


@EVERY
def test_a_cancel_leaves_the_model_as_found_and_can_be_resumed(entry: MethodEntry, tmp_path: Path) -> None:
    model, _ = model_and_factors("gpt2")
    state, modules = state_of(model), modules_of(model)
    asked: list[int] = []
    forwards: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 3

    counter = model.register_forward_pre_hook(lambda *_: forwards.append(1))
    try:
        run(entry, context("gpt2", tmp_path / "cancelled", should_stop=stop))
    except CancelledError:
        resumed = run(entry, context("gpt2", tmp_path / "cancelled"))
        whole = run(entry, context("gpt2", tmp_path / "whole"))
        assert (resumed.ranks, resumed.structure) == (whole.ranks, whole.structure)
    else:
        runs = f"{entry.name} runs the model {len(forwards)} times"
        assert not forwards, f"{runs} and is not cancelled: ask context.should_stop before each"
        assert not asked  # too quick to be worth asking
    finally:
        counter.remove()
    assert modules_of(model) == modules
    assert same_state(model, state)


@EVERY
def test_plans_on_the_way_keep_to_their_rates(entry: MethodEntry, tmp_path: Path) -> None:
    passed: list[Any] = []
    given = context("llama", tmp_path, 0.8, on_recorded=passed.append)
    run(entry, given)
    for plan in passed:
        assert 0.8 - 1e-9 <= plan.keep < 1
        assert keep_ratio(given.layers, plan.ranks) <= plan.keep + 1e-9
    assert len({plan.keep for plan in passed}) == len(passed)
    assert not passed or entry.learns


@EVERY
def test_a_method_that_learns_can_be_watched(entry: MethodEntry, tmp_path: Path) -> None:
    told: list[Progress] = []
    snapshots: list[dict[str, int]] = []
    given = context(
        "llama", tmp_path, on_progress=told.append, on_ranks=lambda _, __, ranks: snapshots.append(dict(ranks))
    )
    run(entry, given)
    steps = [tick.values for tick in told if tick.values and "keep" in tick.values]
    assert bool(steps) == entry.learns, f"{entry.name}: `learns` of its MethodEntry and the steps it reports disagree"
    assert bool(snapshots) == entry.learns, f"{entry.name}: a method that learns calls context.on_ranks, no other does"
    for values in steps:
        missing, more = set(REPORTED) - set(values), set(values) - set(REPORTED) - set(entry.reports)
        assert not missing, f"a step of {entry.name} reports no {', '.join(sorted(missing))}: see masks.training.report"
        assert not more, f"{entry.name} reports {', '.join(sorted(more))}: name them in `reports` of its MethodEntry"
        assert set(entry.reports) <= set(values), f"`reports` of {entry.name} names what no step reports"
        assert 0 <= values["entropy"] <= 1 and values["memory_mb"] > 0
    assert all(set(ranks) == {layer.name for layer in given.layers} for ranks in snapshots)


@EVERY
def test_what_an_ablation_and_the_tests_need_is_declared(entry: MethodEntry) -> None:
    for name, given in {"tiny": entry.tiny, **{f"term {name}": term.off for name, term in entry.terms.items()}}.items():
        unknown = set(given) - {field.name for field in fields_of(entry.settings_class)}
        assert not unknown, f"{name} of {entry.name} sets {', '.join(unknown)}, which is no setting of it"
    assert entry.tiny or not trained(entry), f"{entry.name} trains: give its MethodEntry `tiny` settings"


@pytest.mark.parametrize("name", TRAINED)
def test_a_checkpoint_of_something_else_does_not_hold_a_method_up(name: str, tmp_path: Path) -> None:
    """A state that can be read and is not the method's: nothing of it is left in a training that begins anew."""
    entry, given = ALLOCATORS.get(name), functools.partial(context, "gpt2")
    ticks: list[Progress] = []

    def trains(tick: Progress) -> None:
        if "tokens_per_s" in (tick.values or {}):
            ticks.append(tick)

    with pytest.raises(CancelledError):
        run(entry, given(tmp_path / "one", on_progress=trains, should_stop=lambda: bool(ticks)))
    (checkpoint,) = (tmp_path / "one").rglob("*.pt")
    state = load_state(checkpoint)
    assert state is not None
    whole = run(entry, given(tmp_path / "whole"))
    save_state(checkpoint, dict(list(state.items())[:-1]))  # its last part is missing
    resumed = run(entry, given(tmp_path / "one"))
    assert checkpoint.with_name(f"{checkpoint.name}.damaged").exists(), "it went on from half a state"
    assert (resumed.ranks, resumed.structure) == (whole.ranks, whole.structure)
