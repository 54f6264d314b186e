"""Refining a plan block by block: what it lowers, what it leaves alone, what it comes to, and going on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lrc_core.budget import uniform_ranks
from lrc_core.decompose.factorise import Factors
from lrc_core.errors import CancelledError, NumericalError
from lrc_core.lowrank.apply import WithGains, compressed
from lrc_core.models.blocks.linears import block_linears, decoder_blocks, get_module, weight_of
from lrc_core.models.blocks.partial import block_inputs
from lrc_core.plan import Plan, make_plan
from lrc_core.tune import block_training
from lrc_core.tune.block_training import BlockTask, BlockTraining, RefinedBlock, distance
from lrc_core.tune.blockwise import BlockwiseCallbacks, refined_blocks
from lrc_core.types import Progress, ignore_progress, never_stop
from lrc_core.updates import BlockwiseSettings
from tests.factories.tiny_methods import MemoryFactors, card_of, modules_of, random_windows, same_state, state_of
from tests.factories.tiny_models import BLOCKS, FAMILIES, tiny_model

WINDOWS = random_windows(28, 16, seed=2)
SETTINGS = BlockwiseSettings(rate=0.01, batch=4, passes=2, check_windows=4)


def a_plan(model: Any, keep: float = 0.5) -> Plan:
    card = card_of(model)
    ranks = uniform_ranks(card.layers, keep)
    return make_plan(card, ranks, decomposition="whitened", method="uniform", keep_target=keep)


def refined(
    model: Any, plan: Plan, source: Any, folder: Path, settings: BlockwiseSettings = SETTINGS, **watch: Any
) -> dict[int, RefinedBlock]:
    return dict(refined_blocks(model, plan, source, WINDOWS, settings, BlockwiseCallbacks(folder, **watch)))


class OfBlocks:
    """Refined factors as a source."""

    def __init__(self, found: dict[int, RefinedBlock]) -> None:
        self._found = found

    def factors(self, name: str, block: int) -> Factors:
        left, right = self._found[block].factors[name]
        return Factors(left, right, torch.ones(left.shape[1]))

    def sigma(self, name: str, block: int) -> Any:
        raise AssertionError("nobody asks")


def entering(model: Any, plan: Plan, source: Any, windows: Tensor) -> list[Tensor]:
    """What enters each block of the compressed model, from one run of the whole model."""
    with compressed(model, block_linears(model), plan.full_ranks(block_linears(model)), source, plan.kept):
        return block_inputs(model, windows)[0]


@pytest.mark.parametrize("family", [*FAMILIES, "mixtral"])
def test_every_block_comes_nearer_and_the_model_is_left(family: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    plan, source = a_plan(model), MemoryFactors(model, random_windows(8, 32, seed=1))
    modules, state = modules_of(model), state_of(model)
    found = refined(model, plan, source, tmp_path)
    assert modules_of(model) == modules
    assert same_state(model, state)
    assert list(found) == list(range(BLOCKS))
    assert {name for block in found.values() for name in block.factors} == set(plan.ranks)
    assert all(block.after <= block.before for block in found.values())
    assert any(block.helped for block in found.values())
    assert not list(tmp_path.iterdir())
    check = WINDOWS[24:]
    dense = block_inputs(model, check)[0]
    mine, plans = (entering(model, plan, given, check) for given in (OfBlocks(found), source))
    # The same states from runs of the whole model: what enters a block is what the one before put out.
    for index in range(1, BLOCKS):
        assert found[index - 1].after == pytest.approx(float(distance(mine[index], dense[index])), rel=1e-3)
    assert found[0].before == pytest.approx(float(distance(plans[1], dense[1])), rel=1e-3)


def test_exact_factors_on_dense_inputs_stay_bit_for_bit(tmp_path: Path) -> None:
    """At full rank the product is the weight: there is nothing to bring nearer, and nothing is taken."""
    model = tiny_model("llama").double()
    for layer in block_linears(model):  # weights that have a low rank to begin with
        weight = weight_of(get_module(model, layer.name))
        left, values, right = torch.linalg.svd(weight.detach(), full_matrices=False)
        weight.data.copy_(left[:, :6] * values[:6] @ right[:6])
    card = card_of(model)
    plan = make_plan(
        card, {layer.name: 6 for layer in card.layers}, decomposition="whitened", method="uniform", keep_target=0.5
    )

    class Exact:
        def factors(self, name: str, block: int) -> Factors:
            left, values, right = torch.linalg.svd(weight_of(get_module(model, name)).detach(), full_matrices=False)
            return Factors(left * values, right, values)

        def sigma(self, name: str, block: int) -> Tensor:
            raise AssertionError("nobody asks")

    found = refined(model, plan, Exact(), tmp_path, replace(SETTINGS, passes=1))
    for block, one in found.items():
        assert one.before < 1e-10
        assert one.after <= one.before
        if not one.helped:
            for name, (left, right) in one.factors.items():
                theirs = Exact().factors(name, block)
                assert torch.equal(left, theirs.left[:, :6])
                assert torch.equal(right, theirs.right[:6])


def test_steps_that_do_not_help_are_not_taken(tmp_path: Path) -> None:
    model = tiny_model("llama")
    plan, source = a_plan(model), MemoryFactors(model, random_windows(8, 32, seed=1))
    found = refined(model, plan, source, tmp_path, replace(SETTINGS, rate=1.0, passes=1))
    for block, one in found.items():
        assert one.after == one.before
        for name, (left, right) in one.factors.items():
            theirs, rank = source.factors(name, block), plan.ranks[name]
            assert torch.equal(left, theirs.left[:, :rank])
            assert torch.equal(right, theirs.right[:rank])


def test_one_linear_layer_comes_to_the_least_squares_solution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block of one layer with other inputs than the dense one's: reduced-rank regression knows the optimum."""
    from lrc_core.lowrank.linear import LowRankLinear

    torch.manual_seed(0)
    weight, inputs = torch.randn(7, 5), torch.randn(60, 8, 5)
    small = inputs + 0.3 * torch.randn_like(inputs)
    target = torch.nn.functional.normalize(inputs @ weight.T, dim=-1)  # every token counts alike, in the loss and here
    model = nn.ModuleDict({"layer": nn.Linear(5, 7, bias=False)})
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    low = LowRankLinear(left[:, :2] * values[:2] / 3, right[:2])
    monkeypatch.setattr(block_training, "block_output", lambda model, _, __, hidden: model["layer"](hidden))
    task = BlockTask(model, 0, {"layer": low}, torch.zeros(60, 8, dtype=torch.long), small, target, 0)
    settings = BlockwiseSettings(rate=0.02, batch=60, passes=300, check_windows=0)
    found = BlockTraining(task, settings, tmp_path / "state.pt", ignore_progress, never_stop, (0, 300)).run()
    rows, wanted = small.flatten(0, 1).double(), target.flatten(0, 1).double()
    free = torch.linalg.lstsq(rows, wanted).solution
    directions = torch.linalg.svd(rows @ free, full_matrices=False)[2][:2]
    least = (wanted - rows @ free @ directions.T @ directions).square().sum(-1).mean()
    assert found.after == pytest.approx(float(least), rel=1e-3)
    assert found.after >= float(least) - 1e-6


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    model = tiny_model("llama")
    plan, source = a_plan(model), MemoryFactors(model, random_windows(8, 32, seed=1))
    whole = refined(model, plan, source, tmp_path / "whole")
    modules, done, ticks = modules_of(model), {}, []
    watch = BlockwiseCallbacks(
        tmp_path / "part", on_progress=lambda tick: ticks.append(tick), should_stop=lambda: len(ticks) >= 17
    )
    with pytest.raises(CancelledError):
        for block, found in refined_blocks(model, plan, source, WINDOWS, SETTINGS, watch):
            done[block] = found
    assert modules_of(model) == modules
    assert list(done) == [0]  # stopped inside the second block, behind steps that its checkpoint has
    later: list[Progress] = []
    rest = refined(
        model, plan, source, tmp_path / "part",
        finished=done, known=lambda name, block: done[block].factors[name], on_progress=later.append,
    )  # fmt: skip
    assert (later[0].step, later[-1].step, later[-1].total) == (18, 12 * BLOCKS, 12 * BLOCKS)
    for block, one in {**done, **rest}.items():
        assert (one.losses, one.before, one.after) == (whole[block].losses, whole[block].before, whole[block].after)
        for name, pair in one.factors.items():
            assert all(torch.equal(mine, other) for mine, other in zip(pair, whole[block].factors[name], strict=True))


def test_only_the_factors_of_one_block_move_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("qwen2").requires_grad_(False)
    plan, source = a_plan(model), MemoryFactors(model, random_windows(8, 32, seed=1))
    seen: list[tuple[int, set[str]]] = []

    def look(tick: Progress) -> None:
        inside = decoder_blocks(model)[tick.values["block"]]
        mine = {id(one) for one in inside.parameters()}
        moving = [name for name, one in model.named_parameters() if one.requires_grad]
        assert all(id(model.get_parameter(name)) in mine for name in moving)
        seen.append((tick.values["block"], {name.rpartition(".")[0] for name in moving}))

    refined(model, plan, source, tmp_path, on_progress=look)
    for layer in block_linears(model):
        assert all((layer.name in names) == (block == layer.block) for block, names in seen)


def test_a_loss_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    model = tiny_model("llama")
    plan, source = a_plan(model), MemoryFactors(model, random_windows(8, 32, seed=1))
    name = next(iter(plan.ranks))
    broken = WithGains(source, {name: torch.full((plan.ranks[name],), float("nan"))})
    with pytest.raises(NumericalError, match="step 0 "):
        refined(model, plan, broken, tmp_path)
    assert isinstance(get_module(model, name), nn.Linear)


def test_a_plan_without_low_rank_layers_has_nothing_to_refine(tmp_path: Path) -> None:
    model = tiny_model("llama")
    dense = a_plan(model, 1.0)
    assert not refined(model, dense, MemoryFactors(model, random_windows(8, 32, seed=1)), tmp_path)
