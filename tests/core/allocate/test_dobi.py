"""Dobi-SVD's rank learning: the soft step and the loss by hand, k in units, resuming bit for bit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from lrc_core.allocate.dobi.method import ENTRY, DobiSettings, allocate
from lrc_core.allocate.dobi.training import PositionTraining, budget_term, cosine_rate, sloping, soft_step
from lrc_core.budget import break_even, keep_ratio
from lrc_core.lowrank.masked import masked_layers
from lrc_core.models.blocks.linears import block_linears
from lrc_core.settings import build
from tests.factories.tiny_methods import MemoryFactors, context_for, random_windows
from tests.factories.tiny_models import tiny_model
from tests.factories.watched import WatchedRun, check_model_is_left, check_resuming

QUICK: dict[str, Any] = {
    "documents": 5, "window": 12, "batch": 2, "steps": 6, "task": "text", "budget_weight": 30.0, "sharpness": 0.5,
    "unit": "break_even", "learning_rate": 0.02, "lowest_rate": 0.01, "rate_period": 6,
}  # fmt: skip
MODEL = tiny_model("llama")
SOURCE = MemoryFactors(MODEL, random_windows(8, 32, seed=1))
LAYERS = block_linears(MODEL)


def settings(**more: Any) -> DobiSettings:
    return build(DobiSettings, {**QUICK, **more})


class Watched(WatchedRun):
    method, settings_of, model, source = staticmethod(allocate), staticmethod(settings), MODEL, SOURCE


# -- by hand ------------------------------------------------------------------------------------------------------


def test_the_soft_step_and_its_slope() -> None:
    position = torch.tensor(2.5, requires_grad=True)
    mask = soft_step(position, 4, 2.0)
    expected = [0.5 * math.tanh(2 * (2.5 - i)) + 0.5 for i in (1, 2, 3, 4)]
    assert mask.tolist() == pytest.approx(expected, abs=1e-6)
    weights = [1.0, 2.0, 3.0, 4.0]
    (mask * torch.tensor(weights)).sum().backward()
    slopes = [0.5 * 2 * (1 - math.tanh(2 * (2.5 - i)) ** 2) for i in (1, 2, 3, 4)]
    assert position.grad is not None
    assert float(position.grad) == pytest.approx(sum(w * s for w, s in zip(weights, slopes, strict=True)))


def test_a_sharp_step_has_a_slope_at_its_place_only() -> None:
    mask = soft_step(torch.tensor(20.3), 40, 10.0)
    assert sloping(mask).nonzero()[:, 0].tolist() == [19, 20]  # components 20 and 21
    assert mask[:19].tolist() == pytest.approx([1.0] * 19)
    assert mask[21:].tolist() == pytest.approx([0.0] * 19)
    assert 20 < int(sloping(soft_step(torch.tensor(50.3), 100, 0.5)).sum()) < 40


def test_the_budget_is_an_absolute_distance() -> None:
    costs, params = torch.tensor([20.0, 30.0]), torch.tensor([100.0, 200.0])
    positions = torch.tensor([6.0, 4.0], requires_grad=True)  # dense, and 120 of 200
    for target, sign in ((0.6, 1), (0.9, -1)):
        term = budget_term(positions * costs, params, target)
        assert float(term.detach()) == pytest.approx(abs(220 / 300 - target))
        (gradient,) = torch.autograd.grad(term, positions)
        assert gradient.tolist() == pytest.approx([0, sign * 30 / 300])


def test_the_rate_falls_and_rises() -> None:
    assert [cosine_rate(step, 5, 4, 10) for step in (0, 5, 10, 20)] == pytest.approx([5, 4.5, 4, 5])


# -- training -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["ranks", "break_even"])
def test_every_layer_starts_at_the_target(tmp_path: Path, unit: str) -> None:
    training = PositionTraining(context_for(MODEL, tmp_path, source=SOURCE), settings(unit=unit))
    wanted = [0.8 * break_even(layer) for layer in LAYERS]
    assert (training.places * training.unit).tolist() == pytest.approx(wanted, rel=1e-6)
    assert list(training.count().values()) == [round(value) for value in wanted]


def test_a_step_moves_k_by_the_rate_in_its_unit(tmp_path: Path) -> None:
    for unit, rate in (("ranks", 0.5), ("break_even", 0.02)):
        training = PositionTraining(
            context_for(MODEL, tmp_path / unit, source=SOURCE), settings(unit=unit, learning_rate=rate)
        )
        before = training.places.detach().clone()
        with masked_layers(MODEL, training.factors) as masked:
            training._step(masked)
        # Adam's first step is the rate, up or down.
        assert (training.places.detach() - before).abs().tolist() == pytest.approx([rate] * len(LAYERS), rel=1e-2)


def test_k_stays_within_the_spectrum(tmp_path: Path) -> None:
    for keep in (0.07, 0.99):
        watched = Watched(
            tmp_path / str(keep), keep=keep, unit="ranks", learning_rate=50.0, lowest_rate=50.0, steps=3, task="none"
        )
        watched.run()
        places = watched.saved["places"]
        assert (places >= 1).all()
        assert (places <= torch.tensor([layer.full_rank for layer in LAYERS])).all()


def test_the_loss_is_the_weighted_sum_of_its_terms(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.run()
    for loss, task, budget in watched.figures("loss", "task", "budget"):
        assert loss == pytest.approx(task + 30 * budget, abs=1e-4)
    assert not watched.recorded


def test_the_task_loss_can_be_chosen_and_switched_off(tmp_path: Path) -> None:
    found = {}
    for task in ("text", "perplexity", "logits", "none"):
        watched = Watched(tmp_path / task, task=task, steps=1)
        watched.run()
        found[task] = watched.figures("task")[0][0]
    assert found["perplexity"] == pytest.approx(math.exp(found["text"]), rel=1e-4)
    assert found["none"] == 0 < found["logits"]


def test_the_budget_alone_goes_to_the_target(tmp_path: Path) -> None:
    training = PositionTraining(
        context_for(MODEL, tmp_path, keep=0.5, source=SOURCE),
        settings(task="none", steps=80, lowest_rate=0.0005, rate_period=80),
    )
    with torch.no_grad():
        training.places.fill_(0.9)
    training.run()
    assert keep_ratio(LAYERS, training.count()) == pytest.approx(0.5, abs=0.03)


def test_the_dense_switch_runs_layers_as_they_will_be_stored(tmp_path: Path) -> None:
    """Just above break-even nothing is saved: with the switch the model is the dense one, and k still learns."""
    losses = {}
    for switch in (True, False):
        training = PositionTraining(
            context_for(MODEL, tmp_path, source=SOURCE),
            settings(task="logits", dense_switch=switch, budget_weight=0.0),
        )
        with torch.no_grad():
            training.places.fill_(1.1)
        with masked_layers(MODEL, training.factors) as masked:
            losses[switch] = training._step(masked)["task"]
            assert all(module.run_dense == switch for module in masked.values())
        if not switch:
            assert training.places.grad is not None
            assert training.places.grad.all()
    assert losses[True] == pytest.approx(0, abs=1e-6)
    assert losses[False] > 1e-3


def test_training_tells_layers_apart(tmp_path: Path) -> None:
    found = Watched(tmp_path, steps=40, dense_switch=True, rate_period=40, learning_rate=0.05).run()
    assert found.details is not None
    assert abs(found.details["keep_before_fitting"] - 0.8) < 0.1
    assert len({round(found.ranks[layer.name] / break_even(layer), 2) for layer in LAYERS}) > 3


@pytest.mark.parametrize("more", [{"dense_switch": True}, {"task": "logits", "unit": "ranks", "learning_rate": 1.0}])
def test_a_resumed_run_goes_on_bit_for_bit(tmp_path: Path, more: dict[str, Any]) -> None:
    names = ("keep", "loss", "task", "budget")
    check_resuming(Watched, tmp_path, names, stops=(1, 5), **{**more, "steps": 10})


def test_the_model_is_left_as_found(tmp_path: Path) -> None:
    check_model_is_left(Watched, tmp_path, whole={"steps": 2})


def test_half_precision_will_do(tmp_path: Path) -> None:
    model = tiny_model("llama").to(torch.bfloat16)
    source = MemoryFactors(model, random_windows(6, 32), "svd")
    assert keep_ratio(LAYERS, Watched(tmp_path, model=model, source=source).run().ranks) <= 0.8


def test_presets_say_how_long_they_train() -> None:
    quick, paper = ENTRY.settings("quick"), ENTRY.settings("paper")
    assert (quick.batch, quick.window, quick.steps) == (4, 256, 150)
    assert paper == DobiSettings()
    assert paper.steps == 20 * paper.documents
