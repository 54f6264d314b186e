"""ARA: masks, terms, start and finish by hand; the latch; resuming bit for bit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lrc_core.allocate.ara.method import ENTRY, AraSettings, allocate
from lrc_core.allocate.ara.terms import (
    budget_term,
    counted_shares,
    cut_rank,
    final_ranks,
    guidance_errors,
    guidance_term,
    running_ranks,
    staircase_levels,
    stairs_above,
    starting_theta,
    straight_through,
)
from lrc_core.allocate.ara.training import StaircaseTraining
from lrc_core.budget import break_even, fit_budget, is_dense, keep_ratio, largest_low_rank
from lrc_core.lowrank.masked import masked_layers
from lrc_core.models.blocks.linears import block_linears
from lrc_core.settings import build
from tests.factories.tiny_methods import MemoryFactors, context_for, random_windows, shape
from tests.factories.tiny_models import tiny_model
from tests.factories.watched import WatchedRun, check_model_is_left, check_resuming

QUICK: dict[str, Any] = {"documents": 5, "window": 12, "batch": 2, "steps": 6, "learning_rate": 0.02}
MODEL = tiny_model("llama")
SOURCE = MemoryFactors(MODEL, random_windows(8, 32, seed=1))
LAYERS = block_linears(MODEL)


def settings(**more: Any) -> AraSettings:
    return build(AraSettings, {**QUICK, **more})


class Watched(WatchedRun):
    method, settings_of, model, source = staticmethod(allocate), staticmethod(settings), MODEL, SOURCE


# -- masks, by hand -----------------------------------------------------------------------------------------------


def soft_mask(shares: Tensor, components: int) -> Tensor:
    return shares.cumsum(0)[stairs_above(components, len(shares))]


def test_a_staircase_is_the_probability_of_reaching_a_component() -> None:
    """c = (1, .5, 0) over four components: the rows of M are 1111, 1100, 0000."""
    shares = torch.tensor([0.2, 0.5, 0.3])
    assert soft_mask(shares, 4).tolist() == pytest.approx([0.7, 0.7, 0.2, 0.2])


@pytest.mark.parametrize(("components", "count"), [(1, 2), (7, 101), (100, 101), (345, 101), (13, 4)])
def test_a_staircase_is_p_times_m(components: int, count: int) -> None:
    shares = torch.randn(count, generator=torch.Generator().manual_seed(0)).softmax(0)
    levels = [(count - 1 - i) / (count - 1) for i in range(count)]
    assert staircase_levels(count).tolist() == pytest.approx(levels)
    matrix = torch.tensor(
        [[float(j <= math.floor(components * c + 1e-9)) for j in range(1, components + 1)] for c in levels]
    )
    found = soft_mask(shares, components)
    torch.testing.assert_close(found, shares @ matrix)
    assert (found.diff() <= 1e-7).all()


def test_the_mask_is_hard_forward_and_soft_backward() -> None:
    theta = torch.tensor([0.3, -0.2, 0.1], requires_grad=True)
    shares = theta.softmax(0)
    mask = straight_through(soft_mask(shares, 4), 3)
    assert mask.tolist() == [1.0, 1.0, 1.0, 0.0]
    slopes = torch.tensor([1.0, 2.0, 3.0, 4.0])
    (mask * slopes).sum().backward()
    # d m_j / d theta_i = p_i (M_ij - m_j)
    matrix = torch.tensor([[1.0, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]])
    p = theta.detach().softmax(0)
    expected = [float(p[i] * ((matrix[i] - p @ matrix) * slopes).sum()) for i in range(3)]
    assert theta.grad is not None
    assert theta.grad.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("share", [0.003, 0.01, 0.25, 0.5, 2 / 3, 0.8, 0.99, 0.9999])
@pytest.mark.parametrize("count", [3, 101])
def test_the_start_has_two_heights_and_the_wanted_mean(share: float, count: int) -> None:
    theta = starting_theta(share, count)
    assert len(set(theta.tolist())) <= 2
    assert float(theta.softmax(0) @ staircase_levels(count)) == pytest.approx(share, abs=2e-6)
    levels = staircase_levels(count)
    assert len(set(theta[levels >= share].tolist())) == len(set(theta[levels < share].tolist())) == 1


def test_factors_are_cut_above_break_even() -> None:
    assert cut_rank(shape("a", 100, 100), 1.2) == 60
    assert cut_rank(shape("a", 10, 1000), 1.2) == 10  # no more than there are: R ends at 1.01
    assert cut_rank(shape("a", 30, 20), 1.2) == 15  # 14.4


# -- terms, by hand -----------------------------------------------------------------------------------------------


def test_the_budget_counts_a_dense_layer_once() -> None:
    ratios = torch.tensor([1.1, 0.5, 0.2], requires_grad=True)
    params = torch.tensor([100.0, 200.0, 100.0])
    for latch in (True, False):
        term = budget_term(counted_shares(ratios, latch), params, 0.5)
        assert float(term.detach()) == pytest.approx((220 / 400 - 0.5) ** 2)
        (gradient,) = torch.autograd.grad(term, ratios)
        slopes = [2 * 0.05 * share for share in (0.25, 0.5, 0.25)]
        assert gradient.tolist() == pytest.approx([0.0 if latch else slopes[0], *slopes[1:]], abs=1e-7)


def test_guidance_pushes_where_the_error_exceeds_the_saving() -> None:
    ratios = torch.tensor([1.05, 0.9, 0.9, 0.4], requires_grad=True)
    errors = torch.tensor([0.5, 0.2, 0.05, 0.7])  # saved: 0, .1, .1, .6
    term = guidance_term(ratios, errors)
    assert float(term.detach()) == pytest.approx((0.1 + 0.6) / 4)
    (gradient,) = torch.autograd.grad(term, ratios)
    assert gradient.tolist() == pytest.approx([0, -0.25, 0, -0.25])


def test_truncation_errors_are_roots_of_discarded_energy() -> None:
    assert guidance_errors(torch.tensor([2.0, 1.0, 1.0, 0.0])).tolist() == pytest.approx(
        [1, math.sqrt(2 / 6), math.sqrt(1 / 6), 0, 0]
    )
    assert guidance_errors(torch.zeros(2)).tolist() == [0, 0, 0]


def test_ranks_on_the_way() -> None:
    layers = (shape("a", 20, 20), shape("b", 20, 20), shape("c", 20, 20), shape("d", 20, 20))
    found = running_ranks(layers, {"a": 1.0, "b": 0.999, "c": 0.54, "d": 0.001})
    assert found == {"a": 20, "b": 9, "c": 5, "d": 1}


# -- the finish, by hand ------------------------------------------------------------------------------------------


def test_compressed_layers_are_scaled_by_one_factor() -> None:
    """R = .995, .8, .5 with 4, 2 and 2 parts of eight: f = 1 - ((4 + 1.6 + 1) - 6) / 2.6 for a target of 6/8."""
    layers = (shape("a", 400, 200), shape("b", 200, 200), shape("c", 200, 200))
    ratios = {"a": 0.995, "b": 0.8, "c": 0.5}
    ranks, factor = final_ranks(layers, ratios, 0.75, 0.99)
    assert factor == pytest.approx(1 - 0.6 / 2.6)
    assert ranks == {"a": 200, "b": math.floor(factor * 80), "c": math.floor(factor * 50)}
    kept = keep_ratio(layers, ranks)
    assert 0.745 < kept <= 0.75
    higher, factor = final_ranks(layers, ratios, 0.9, 0.99)
    assert factor > 1
    assert keep_ratio(layers, higher) == pytest.approx(0.9, abs=0.005)
    assert not is_dense(layers[1], final_ranks(layers, ratios, 0.99, 0.99)[0]["b"])


def test_dense_layers_beyond_the_target_leave_rank_one() -> None:
    layers = (shape("a", 400, 200), shape("b", 200, 200))
    ranks, factor = final_ranks(layers, {"a": 1.0, "b": 0.5}, 0.5, 0.99)
    assert factor < 0
    assert ranks == {"a": 200, "b": 1}
    assert keep_ratio(layers, fit_budget(layers, ranks, 0.5)) <= 0.5
    assert final_ranks(layers, {"a": 1.0, "b": 1.1}, 0.5, 0.99) == ({"a": 200, "b": 200}, 1.0)


# -- training -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0.07, 0.5, 0.8, 0.97])
def test_every_layer_starts_at_the_target(tmp_path: Path, keep: float) -> None:
    training = StaircaseTraining(context_for(MODEL, tmp_path, keep=keep, source=SOURCE), settings())
    ratios = training.ratios()
    assert list(ratios.values()) == pytest.approx([keep] * len(LAYERS), abs=3e-6)
    watched = Watched(tmp_path, keep=keep, steps=1)
    watched.run()
    assert watched.figures("budget") == [(0.0,)]


def test_the_loss_is_the_weighted_sum_of_its_terms(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.run()
    assert len(watched.ticks) == 6
    for loss, task, budget, guidance in watched.figures("loss", "task", "budget", "guidance"):
        assert loss == pytest.approx(task + 100 * budget + 50 * guidance, abs=1e-4)
        assert task > 0
    assert not watched.recorded


def test_the_first_step_is_the_model_at_uniform_ranks(tmp_path: Path) -> None:
    from lrc_core.allocate.masks.training import batch_of
    from lrc_core.lowrank.apply import compressed

    watched = Watched(tmp_path, steps=1)
    watched.run()
    ranks = {layer.name: round(0.8 * break_even(layer)) for layer in LAYERS}
    _, tokens = batch_of(random_windows(5, 12), 2, 0, 0)
    with torch.no_grad(), compressed(MODEL, LAYERS, ranks, SOURCE):
        logits = MODEL(input_ids=tokens, use_cache=False).logits[:, :-1]
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    assert watched.figures("task")[0][0] == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize("task", ["text", "logits", "none"])
def test_the_task_loss_can_be_chosen_and_switched_off(tmp_path: Path, task: str) -> None:
    watched = Watched(tmp_path, task=task, steps=2)
    watched.run()
    assert all((value == 0) == (task == "none") for (value,) in watched.figures("task"))


def test_terms_can_be_switched_off(tmp_path: Path) -> None:
    """Without any term nothing moves; guidance alone moves layers up, the budget alone stays at the target."""
    off: dict[str, Any] = {"task": "none", "budget_weight": 0.0, "guidance_weight": 0.0, "steps": 30}
    Watched(tmp_path / "none", **off).run()
    still = torch.load(tmp_path / "none/checkpoint/masks.pt")["theta"]
    first = StaircaseTraining(context_for(MODEL, tmp_path / "x", source=SOURCE), settings()).theta.detach()
    assert torch.equal(still, first)
    guided = Watched(tmp_path / "guided", **{**off, "guidance_weight": 50.0})
    guided.run()
    assert guided.figures("keep")[-1][0] > 0.9
    budget = Watched(tmp_path / "budget", **{**off, "budget_weight": 100.0})
    budget.run()
    assert budget.figures("budget")[-1][0] < 1e-4


def test_training_stays_around_the_target_and_tells_layers_apart(tmp_path: Path) -> None:
    watched = Watched(tmp_path, steps=40, learning_rate=0.05, guidance_weight=5.0)
    found = watched.run()
    assert found.details is not None
    assert abs(found.details["keep_before_fitting"] - 0.8) < 0.1
    shares = {round(found.ranks[layer.name] / break_even(layer), 2) for layer in LAYERS}
    assert len(shares) > 3
    assert watched.figures("dense")[-1][0] == sum(
        is_dense(layer, rank)
        for layer, rank in zip(LAYERS, running_ranks(LAYERS, ratios_of(watched)).values(), strict=True)
    )


def ratios_of(watched: Watched) -> dict[str, float]:
    return StaircaseTraining(watched.context, watched.settings).ratios()


# -- the latch ----------------------------------------------------------------------------------------------------


def reaches(training: StaircaseTraining) -> list[float]:
    """What all components that are kept for training cost over the dense layers."""
    return [training.cuts[layer.name] / break_even(layer) for layer in training.layers]


def gradients_with_one_dense_layer(folder: Path, keep: float, **more: Any) -> tuple[StaircaseTraining, Tensor, float]:
    """Gradients of a step in which the first layer stands above break-even."""
    training = StaircaseTraining(context_for(MODEL, folder, keep=keep, source=SOURCE), settings(**more))
    with torch.no_grad():
        training.theta[0] = starting_theta(1.05 / reaches(training)[0], training.settings.levels)
    with masked_layers(MODEL, training.factors) as masked:
        values = training._step(masked)
        layer = masked[LAYERS[0].name]
        assert layer.run_dense
        assert (layer.mask is None) == training.settings.latch
        assert not masked[LAYERS[1].name].run_dense
    assert training.theta.grad is not None
    return training, training.theta.grad, values["task"]


def test_the_latch_holds_a_dense_layer(tmp_path: Path) -> None:
    _, gradient, _ = gradients_with_one_dense_layer(tmp_path, 0.6)
    assert not gradient[0].any()
    assert gradient[1:].any(-1).all()


@pytest.mark.parametrize("task", ["text", "logits"])
def test_without_the_latch_a_dense_layer_hears_task_and_budget(tmp_path: Path, task: str) -> None:
    more: dict[str, Any] = {"latch": False, "task": task, "guidance_weight": 0.0}
    _, with_both, dense_loss = gradients_with_one_dense_layer(tmp_path, 0.6, **more)
    training, of_task, _ = gradients_with_one_dense_layer(tmp_path, 0.6, **more, budget_weight=0.0)
    assert with_both[0].any()
    assert of_task[0].any()
    assert not torch.equal(with_both[0], of_task[0])
    *_, latched_loss = gradients_with_one_dense_layer(tmp_path, 0.6, task=task)
    assert dense_loss == latched_loss  # the same model runs
    assert training.count()[LAYERS[0].name] == LAYERS[0].full_rank


def test_without_the_latch_layers_come_back(tmp_path: Path) -> None:
    """From a start far above the target, with the budget alone: only what is not latched can fall."""
    more: dict[str, Any] = {"task": "none", "guidance_weight": 0.0, "steps": 60, "learning_rate": 0.05}
    kept = {}
    for latch in (True, False):
        training = StaircaseTraining(
            context_for(MODEL, tmp_path / str(latch), keep=0.5, source=SOURCE), settings(latch=latch, **more)
        )
        with torch.no_grad():
            for i, reach in enumerate(reaches(training)):
                training.theta[i] = starting_theta(1.02 / reach, 101)
        training.run()
        kept[latch] = keep_ratio(LAYERS, training.count())
    assert kept[True] == 1.0
    assert kept[False] == pytest.approx(0.5, abs=0.05)


# -- the run ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"task": "logits", "latch": False, "learning_rate": 0.2}], ids=["paper", "free"])
def test_a_resumed_run_goes_on_bit_for_bit(tmp_path: Path, more: dict[str, Any]) -> None:
    names = ("keep", "loss", "task", "budget", "guidance", "dense")
    check_resuming(Watched, tmp_path, names, stops=(1, 6), **{**more, "steps": 12})


def test_the_model_is_left_as_found(tmp_path: Path) -> None:
    check_model_is_left(Watched, tmp_path, whole={"steps": 2})


@pytest.mark.parametrize("decomposition", ["svd", "asvd"])
def test_any_decomposition_and_half_precision_will_do(tmp_path: Path, decomposition: str) -> None:
    model = tiny_model("llama").to(torch.bfloat16)
    source = MemoryFactors(model, random_windows(6, 32), decomposition)
    found = Watched(tmp_path, model=model, source=source, latch=False).run()
    assert keep_ratio(LAYERS, found.ranks) <= 0.8
    assert all(
        found.ranks[layer.name] <= largest_low_rank(layer) or found.ranks[layer.name] == layer.full_rank
        for layer in LAYERS
    )


def test_presets_say_how_long_they_train() -> None:
    quick, paper = ENTRY.settings("quick"), ENTRY.settings("paper")
    assert (quick.batch, quick.window, quick.steps) == (4, 256, 150)
    assert paper == AraSettings()
    assert paper.steps == 10 * paper.documents
