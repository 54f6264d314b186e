"""ARS: the hypernetwork, its loss terms by hand, what the budget counts, resuming bit for bit."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lrc_core.allocate.ars.method import ENTRY, ArsSettings, allocate
from lrc_core.allocate.ars.network import Hypernetwork, alignment, ratio_penalty
from lrc_core.allocate.ars.training import HypernetworkTraining
from lrc_core.budget import LAWS, keep_ratio, params_per_component, stored
from lrc_core.lowrank.masked import masked_layers
from lrc_core.models.blocks.linears import block_linears
from lrc_core.settings import build
from tests.factories.tiny_methods import MemoryFactors, context_for, random_windows
from tests.factories.tiny_models import tiny_model
from tests.factories.watched import WatchedRun, check_model_is_left, check_resuming

QUICK: dict[str, Any] = {
    "documents": 5, "window": 12, "batch": 2, "max_steps": 6, "settle_steps": 4, "learning_rate": 0.02,
    "counting": "stored", "dense_switch": True,
}  # fmt: skip
MODEL = tiny_model("llama")
SOURCE = MemoryFactors(MODEL, random_windows(8, 32, seed=1))
LAYERS = block_linears(MODEL)


def settings(**more: Any) -> ArsSettings:
    return build(ArsSettings, {**QUICK, **more})


class Watched(WatchedRun):
    method, settings_of, model, source = staticmethod(allocate), staticmethod(settings), MODEL, SOURCE


# -- the network --------------------------------------------------------------------------------------------------


def test_the_network_gives_every_layer_its_logits_around_the_start() -> None:
    state = torch.get_rng_state()
    network = Hypernetwork([5, 9, 3], 3.0, 7)
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's random numbers change
    logits = network()
    assert [len(part) for part in logits] == [5, 9, 3]
    assert all((part - 3).abs().max() < 2 for part in logits)
    same, other = Hypernetwork([5, 9, 3], 3.0, 7)(), Hypernetwork([5, 9, 3], 3.0, 8)()
    assert all(torch.equal(one, two) for one, two in zip(logits, same, strict=True))
    assert not torch.equal(logits[0], other[0])


def test_layers_hear_of_each_other_through_the_network() -> None:
    network = Hypernetwork([4, 4, 4], 3.0, 0)
    network()[0].sum().backward()
    assert network.heads[0].weight.grad is not None  # type: ignore[union-attr]
    assert network.heads[1].weight.grad is None  # type: ignore[union-attr]
    assert network.gru.weight_hh_l0_reverse.grad is not None  # layers behind reach the first one backwards
    assert not network.inputs.requires_grad


# -- terms, by hand -----------------------------------------------------------------------------------------------


def test_alignment_is_the_energy_out_of_order() -> None:
    masks = [
        torch.tensor([1.0, 0.0, 1.0, 0.0], requires_grad=True),  # two kept: the second is missed, the third too many
        torch.tensor([1.0, 1.0, 0.0], requires_grad=True),
    ]
    energies = [torch.tensor([0.4, 0.3, 0.2, 0.1]), torch.tensor([0.5, 0.3, 0.2])]
    term = alignment(masks, energies)
    assert float(term.detach()) == pytest.approx((0.3 + 0.2) / 2)
    term.backward()
    assert masks[0].grad is not None
    assert masks[0].grad.tolist() == pytest.approx([0, -0.3, 0.2, 0])  # 2 (m - wanted) share / 2 layers
    assert masks[1].grad is not None
    assert not masks[1].grad.any()


def test_the_budget_presses_until_the_target() -> None:
    masks = [torch.tensor([1.0, 1.0, 0.0], requires_grad=True), torch.tensor([1.0, 0.0], requires_grad=True)]
    share = (masks[0].sum() * 7 + masks[1].sum() * 9) / 50
    assert float(share.detach()) == pytest.approx((2 * 7 + 9) / 50)
    term = ratio_penalty(share, 0.4)
    assert float(term.detach()) == pytest.approx(math.log(0.46 / 0.4))
    term.backward()
    assert masks[0].grad is not None
    assert masks[0].grad.tolist() == pytest.approx([7 / 23] * 3)
    below = ratio_penalty(share.detach().requires_grad_(), 0.5)
    assert float(below.detach()) == 0


def test_what_the_budget_counts(tmp_path: Path) -> None:
    """At the start all components are on: factors of full rank hold more than the dense layers, a plan does not."""
    full = sum(layer.full_rank * (layer.out_features + layer.in_features) for layer in LAYERS)
    for counting, kept in (("factors", full / sum(layer.params for layer in LAYERS)), ("stored", 1.0)):
        watched = Watched(tmp_path / counting, counting=counting, noise="none", max_steps=1)
        watched.run()
        assert watched.figures("budget")[0][0] == pytest.approx(math.log(kept / 0.8), abs=1e-5)


@pytest.mark.parametrize("law", LAWS)
def test_the_budget_presses_on_every_layer_that_is_whole_yet(tmp_path: Path, law: str) -> None:
    """As counted in plans; each component by its mean price, in pairs what one more costs."""
    context = context_for(MODEL, tmp_path, source=SOURCE)
    context = replace(context, layers=stored(context.layers, law))
    training = HypernetworkTraining(context, settings(counting="stored"))
    masks = [torch.ones(size, requires_grad=True) for size in training.sizes]
    share = training._share(masks)
    assert float(share.detach()) == pytest.approx(keep_ratio(context.layers, training.ranks))
    share.backward()
    pressed = [mask.grad.tolist() for mask in masks if mask.grad is not None]
    total = sum(layer.params for layer in context.layers)
    prices = [params_per_component(layer) / total for layer in context.layers]
    assert pressed == [pytest.approx([price] * len(part)) for price, part in zip(prices, pressed, strict=True)]
    assert len(pressed) == len(masks) and min(prices) > 0


# -- training -----------------------------------------------------------------------------------------------------


def test_the_loss_is_the_weighted_sum_of_its_terms(tmp_path: Path) -> None:
    watched = Watched(tmp_path, align_weight=2.0)
    watched.run()
    for loss, task, budget, align in watched.figures("loss", "task", "budget", "align"):
        assert loss == pytest.approx(task + 16 * budget + 2 * align, abs=1e-4)


def test_training_reaches_the_target_and_settles(tmp_path: Path) -> None:
    watched = Watched(tmp_path, max_steps=80)
    found = watched.run()
    assert found.details is not None
    reached = found.details["reached_at"]
    assert reached is not None
    assert found.details["steps"] == min(80, reached + 4)
    keeps = [keep for (keep,) in watched.figures("keep")]
    assert keeps[reached - 1] <= 0.8 + 1e-6
    assert all(keep > 0.8 for keep in keeps[: reached - 1])
    assert keep_ratio(LAYERS, found.ranks) <= 0.8
    assert found.kept is None


def test_terms_can_be_switched_off(tmp_path: Path) -> None:
    off: dict[str, Any] = {"task": "none", "budget_weight": 0.0, "align_weight": 0.0}
    watched = Watched(tmp_path, **off)
    watched.run()
    assert set(watched.figures("loss")) == {(0.0,)}
    assert set(watched.figures("keep")) == {(1.0,)}


@pytest.mark.parametrize("task", ["text", "logits", "none"])
def test_the_task_loss_can_be_chosen(tmp_path: Path, task: str) -> None:
    watched = Watched(tmp_path, task=task, max_steps=4, dense_switch=False, start=1.0)
    watched.run()
    assert all((value == 0) == (task == "none") for (value,) in watched.figures("task"))


def test_alignment_alone_sorts_the_masks(tmp_path: Path) -> None:
    """From logits around zero the masks become sorted."""
    more: dict[str, Any] = {"task": "none", "budget_weight": 0.0, "start": 0.0, "align_weight": 100.0}
    more = {**more, "noise": "none", "max_steps": 100, "learning_rate": 0.005}
    watched = Watched(tmp_path, **more)
    watched.run()
    aligned = [align for (align,) in watched.figures("align")]
    assert aligned[-1] < 0.2 * aligned[0]


def test_the_dense_switch_runs_layers_as_they_will_be_stored(tmp_path: Path) -> None:
    """Full-rank masks with noise: with the switch the model is the dense one, and the network still learns."""
    losses = {}
    for switch in (True, False):
        training = HypernetworkTraining(
            context_for(MODEL, tmp_path / str(switch), source=SOURCE),
            settings(dense_switch=switch, task="text", budget_weight=0.0, align_weight=0.0, start=1.0),
        )
        with masked_layers(MODEL, training.factors) as masked:
            losses[switch] = training._step(masked)["task"]
            assert all(module.run_dense == switch for module in masked.values())
        assert any(bool(part.grad.any()) for part in training.network.parameters() if part.grad is not None)
    chosen = random_windows(5, 12)[torch.randperm(5, generator=torch.Generator().manual_seed(0))[:2]]
    with torch.no_grad():
        logits = MODEL(input_ids=chosen, use_cache=False).logits[:, :-1]
    dense = torch.nn.functional.cross_entropy(logits.flatten(0, 1), chosen[:, 1:].flatten())
    assert losses[True] == pytest.approx(float(dense), abs=1e-5)
    assert losses[False] != pytest.approx(float(dense), abs=1e-3)


@pytest.mark.parametrize(
    "more", [{}, {"task": "logits", "counting": "factors", "dense_switch": False, "noise": "logistic"}]
)
def test_a_resumed_run_goes_on_bit_for_bit(tmp_path: Path, more: dict[str, Any]) -> None:
    names = ("keep", "loss", "task", "budget", "align")
    check_resuming(Watched, tmp_path, names, stops=(1, 7), **{**more, "max_steps": 14, "settle_steps": 20})


def test_the_model_is_left_as_found(tmp_path: Path) -> None:
    check_model_is_left(Watched, tmp_path, whole={"max_steps": 2}, broken={"dense_switch": False})


def test_half_precision_will_do(tmp_path: Path) -> None:
    model = tiny_model("llama").to(torch.bfloat16)
    source = MemoryFactors(model, random_windows(6, 32), "svd")
    assert keep_ratio(LAYERS, Watched(tmp_path, model=model, source=source).run().ranks) <= 0.8


def test_presets_say_how_long_they_train() -> None:
    quick, paper = ENTRY.settings("quick"), ENTRY.settings("paper")
    assert (quick.batch, quick.window, quick.max_steps) == (4, 256, 150)
    assert paper == ArsSettings()
    assert paper.max_steps * paper.batch == paper.documents
