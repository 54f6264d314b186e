"""LLRC: how it starts and trains, its schedules, its plans on the way, and resuming bit for bit."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lrc_core.allocate.llrc.method import ENTRY, LlrcSettings
from lrc_core.allocate.llrc.start import starting_logits
from lrc_core.allocate.llrc.training import MaskTraining
from lrc_core.allocate.protocol import Allocation, allocated
from lrc_core.budget import LAWS, dense_ranks, keep_ratio, largest_low_rank, params_per_component, stored
from lrc_core.models.blocks.linears import block_linears
from lrc_core.plan import make_plan
from lrc_core.settings import build
from tests.factories.tiny_methods import MemoryFactors, card_of, context_for, random_windows, same_state, state_of
from tests.factories.tiny_models import tiny_model
from tests.factories.watched import WatchedRun, check_model_is_left, check_resuming

QUICK: dict[str, Any] = {
    "documents": 5,
    "window": 12,
    "batch": 2,
    "ramp_high": 2.0,
    "ramp_low": 0.2,
    "ramp_batches": 2,
    "learning_rate": 0.15,
    "alpha_low": 5.0,
    "alpha_high": 10.0,
    "alpha_period": 7,
    "settle_steps": 5,
    "max_steps": 60,
}
MODEL = tiny_model("llama")
SOURCE = MemoryFactors(MODEL, random_windows(8, 32, seed=1))
LAYERS = block_linears(MODEL)


def settings(**more: Any) -> LlrcSettings:
    return build(LlrcSettings, {**QUICK, **more})


class Watched(WatchedRun):
    method = staticmethod(partial(allocated, ENTRY))
    settings_of, model, source = staticmethod(settings), MODEL, SOURCE
    phase = "training masks"

    def figures(self, *names: str) -> list[tuple[Any, ...]]:
        return [(tick.step, *(tick.values[name] for name in names)) for tick in self.steps if tick.values]


# -- the start ----------------------------------------------------------------------------------------------------


def pairs() -> dict[str, tuple[Tensor, Tensor]]:
    found = {layer.name: SOURCE.factors(layer.name, layer.block) for layer in LAYERS}
    return {name: (factors.left, factors.right) for name, factors in found.items()}


def test_the_linear_ramp_falls_along_every_spectrum(tmp_path: Path) -> None:
    start = starting_logits(context_for(MODEL, tmp_path, source=SOURCE), build(LlrcSettings, {}), pairs(), [])
    for layer, logits in zip(LAYERS, start, strict=True):
        assert logits.tolist() == pytest.approx(torch.linspace(6.0, 3.0, layer.full_rank).tolist())


def test_the_sensitivity_ramp_frees_parameters_at_a_steady_pace(tmp_path: Path) -> None:
    chosen = settings(ramp="sensitivity", ramp_high=30.0, ramp_low=0.5)
    state = state_of(MODEL)
    start = starting_logits(context_for(MODEL, tmp_path, source=SOURCE), chosen, pairs(), [random_windows(2, 16)])
    assert same_state(MODEL, state)
    for logits in start:
        assert (logits.diff() <= 1e-6).all()
        assert 0.5 <= float(logits.min()) <= float(logits.max()) <= 30.0 + 1e-4
    # What is left when everything below a logit has gone is the share that the logit stands for.
    for rate in (0.1, 0.3, 0.6):
        ranks = {
            layer.name: int((logits > 0.5 + 29.5 * rate).sum()) for layer, logits in zip(LAYERS, start, strict=True)
        }
        kept = keep_ratio(LAYERS, ranks)
        assert 1 - kept <= rate + 1e-6
        assert 1 - kept >= rate - 0.03


# -- training -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Watched, Allocation]:
    watched = Watched(tmp_path_factory.mktemp("trained"))
    return watched, watched.run()


def test_training_reaches_the_target_and_stops_after_settling(trained: tuple[Watched, Allocation]) -> None:
    watched, found = trained
    assert found.details is not None
    reached = found.details["reached_at"]
    assert reached is not None
    assert found.details["steps"] == reached + QUICK["settle_steps"]
    keeps = dict(watched.figures("keep"))
    assert keeps[reached] <= 0.8 + 1e-6
    assert all(keep > 0.8 for step, keep in keeps.items() if step < reached)
    assert keep_ratio(LAYERS, found.ranks) <= 0.8
    assert keep_ratio(LAYERS, found.ranks) >= 0.8 * 0.98


def test_progress_counts_the_noise_free_mask(trained: tuple[Watched, Allocation]) -> None:
    watched, _ = trained
    for _, keep, ranks in watched.ranks:
        assert keep == pytest.approx(keep_ratio(LAYERS, ranks))
    logits = watched.saved["logits"].split([layer.full_rank for layer in LAYERS])
    expected = {layer.name: max(1, int((part > 0).sum())) for layer, part in zip(LAYERS, logits, strict=True)}
    assert watched.ranks[-1][2] == expected
    assert watched.steps[-1].values is not None
    assert watched.steps[-1].values["keep"] == pytest.approx(keep_ratio(LAYERS, expected), abs=1e-6)
    steps = [step for step, *_ in watched.figures()]
    assert steps == list(range(1, len(steps) + 1))
    assert watched.steps[-1].step == watched.steps[-1].total


def test_the_loss_is_the_weighted_sum_of_its_terms(trained: tuple[Watched, Allocation]) -> None:
    watched, _ = trained
    for _, loss, distill, compression, tv, alpha in watched.figures("loss", "distill", "compression", "tv", "alpha"):
        assert loss == pytest.approx(alpha * compression + distill + 0.01 * tv, abs=2e-5)
        assert distill > 0
        assert tv > 0


def test_a_plan_is_recorded_at_every_whole_percent(trained: tuple[Watched, Allocation]) -> None:
    watched, _ = trained
    assert [round(100 * (1 - plan.keep)) for plan in watched.recorded] == list(range(1, 21))
    card = card_of(MODEL)
    for passed in watched.recorded:
        percent = round(100 * (1 - passed.keep))
        assert passed.keep == (100 - percent) / 100  # the very number that a user types
        achieved = keep_ratio(LAYERS, passed.ranks)
        assert achieved <= passed.keep + 1e-9
        assert achieved >= 0.98 * passed.keep
        plan = make_plan(card, passed.ranks, decomposition="whitened", method="llrc", keep_target=passed.keep)
        assert json.loads(json.dumps(plan.to_dict()))["keep_achieved"] == achieved
    steps = [plan.step for plan in watched.recorded]
    assert steps == sorted(steps)
    # A plan of a rate is made when the training passes it, from the ranks of that moment.
    keeps = {0: 1.0, **dict(watched.figures("keep"))}
    for passed in watched.recorded:
        assert keeps[passed.step] <= passed.keep + 1e-6 < keeps[max(passed.step - 1, 0)] + 1e-6


def test_layers_above_break_even_are_stored_dense(trained: tuple[Watched, Allocation]) -> None:
    watched, found = trained
    for ranks in (found.ranks, *(plan.ranks for plan in watched.recorded)):
        for layer in LAYERS:
            assert ranks[layer.name] <= largest_low_rank(layer) or ranks[layer.name] == layer.full_rank
    early = watched.recorded[0].ranks
    plan = make_plan(card_of(MODEL), early, decomposition="whitened", method="llrc", keep_target=0.99)
    assert plan.dense
    assert set(plan.dense) == {layer.name for layer in LAYERS if early[layer.name] > largest_low_rank(layer)}


def test_the_model_is_left_as_found(tmp_path: Path) -> None:
    check_model_is_left(Watched, tmp_path, whole={"max_steps": 4})


def test_keep_one_trains_nothing(tmp_path: Path) -> None:
    watched = Watched(tmp_path, keep=1.0)
    assert watched.run().ranks == dense_ranks(LAYERS)
    assert not watched.ticks


def test_a_run_that_never_arrives_still_meets_the_budget(tmp_path: Path) -> None:
    found = Watched(tmp_path, keep=0.5, max_steps=3, learning_rate=1e-4).run()
    assert found.details is not None
    assert found.details["reached_at"] is None
    assert 0.5 * 0.98 <= keep_ratio(LAYERS, found.ranks) <= 0.5


# -- what can be switched -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["hidden", "logits", "text", "none"])
def test_distillation_can_be_chosen_and_switched_off(tmp_path: Path, kind: str) -> None:
    watched = Watched(tmp_path, distillation=kind, max_steps=3)
    watched.run()
    for _, distill in watched.figures("distill"):
        assert (distill == 0) == (kind == "none")


@pytest.mark.parametrize("kind", ["mean_logit", "weighted_logit", "log_ratio", "none"])
def test_compression_can_be_chosen_and_switched_off(tmp_path: Path, kind: str) -> None:
    watched = Watched(tmp_path, compression=kind, max_steps=8, noise="none", distillation="none", tv_weight=0.0)
    watched.run()
    last = watched.figures("keep", "compression", "alpha")[-1]
    if kind == "none":  # nothing at all is left to learn from
        assert last[1:] == (1.0, 0.0, 0.0)
    else:
        assert last[1] < 1.0
    if kind == "log_ratio":  # factors of full rank hold more parameters than the dense matrices
        full = sum(layer.full_rank * (layer.out_features + layer.in_features) for layer in LAYERS)
        ratio = full / sum(layer.params for layer in LAYERS)
        assert watched.figures("compression")[0][1] == pytest.approx(math.log(ratio / (0.4 * 0.8)), abs=1e-4)


def test_total_variation_can_be_switched_off(tmp_path: Path) -> None:
    watched = Watched(tmp_path, tv_weight=0.0, max_steps=3)
    watched.run()
    assert {tv for _, tv in watched.figures("tv")} == {0.0}


def test_the_weights_of_the_losses_count(tmp_path: Path) -> None:
    plain, heavy = Watched(tmp_path / "1", max_steps=1), Watched(tmp_path / "2", max_steps=1, distill_weight=3.0)
    plain.run()
    heavy.run()
    (_, loss, distill), (_, heavy_loss, heavy_distill) = plain.figures("loss", "distill") + heavy.figures(
        "loss", "distill"
    )
    assert heavy_distill == distill
    assert heavy_loss - loss == pytest.approx(2 * distill, abs=1e-5)


def test_the_dense_switch_runs_layers_as_they_will_be_stored(tmp_path: Path) -> None:
    """At the start every layer is above break-even: with the switch the model is the dense one, without it is not."""
    start = {"noise": "gumbel", "max_steps": 1, "distillation": "logits", "compression": "none", "tv_weight": 0.0}
    with_switch = Watched(tmp_path / "1", dense_switch=True, **start)
    without = Watched(tmp_path / "2", dense_switch=False, **start)
    with_switch.run()
    without.run()
    assert with_switch.figures("distill")[0][1] == pytest.approx(0, abs=1e-6)
    assert without.figures("distill")[0][1] > 1e-3


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("kind", ["mean_logit", "weighted_logit"])
def test_compression_presses_on_every_layer_that_is_whole_yet(tmp_path: Path, kind: str, law: str) -> None:
    """One more pivot costs m + n - 2k, nothing in a square layer that is whole, which therefore stayed so for ever."""
    context = context_for(MODEL, tmp_path, source=SOURCE)
    context = replace(context, layers=stored(context.layers, law))
    assert any(layer.out_features == layer.in_features for layer in context.layers)
    training = MaskTraining(context, settings(compression=kind))
    training._compression([]).backward()
    pressed = [float(part.abs().min()) for part in training.logits.grad.split(training.sizes)]
    assert min(pressed) > 0
    if kind == "weighted_logit":
        prices = [params_per_component(layer) for layer in context.layers]
        assert pressed == pytest.approx([min(pressed) * price / min(prices) for price in prices])


def test_compression_presses_only_above_its_pace(tmp_path: Path) -> None:
    watched = Watched(tmp_path, pace_steps=30, alpha_low=5.0, alpha_high=5.0, max_steps=80, tolerance=0.01)
    found = watched.run()
    assert found.details is not None
    reached = found.details["reached_at"]
    assert reached is not None
    before = 1.0
    for step, keep, alpha in watched.figures("keep", "alpha"):
        goal = 1 - 0.2 * min(1.0, step / 30)
        slack = 0.01 if goal <= 0.8 and reached < step else 0.0
        if abs(before - goal - slack) > 1e-5:
            assert alpha == (0.0 if before <= goal + slack else 5.0), step
        before = keep


def test_a_held_target_pushes_back(tmp_path: Path) -> None:
    """Below the line by more than the tolerance the compression loss turns around; it does not without ``hold``."""
    rush = {"learning_rate": 0.6, "alpha_low": 5.0, "alpha_high": 5.0, "tolerance": 0.01, "max_steps": 30}
    held, free = (Watched(tmp_path / str(hold), hold=hold, settle_steps=25, **rush) for hold in (True, False))
    for watched in (held, free):
        watched.run()
    before = 1.0
    for _, keep, alpha in held.figures("keep", "alpha"):
        if before < 0.8 - 0.0101:
            assert alpha == -5.0
        before = keep
    assert min(alpha for _, alpha in held.figures("alpha")) == -5.0
    assert min(alpha for _, alpha in free.figures("alpha")) == 0.0
    assert held.figures("keep")[-1][1] > free.figures("keep")[-1][1]


def test_near_the_target_compression_is_off(trained: tuple[Watched, Allocation]) -> None:
    watched, found = trained
    assert found.details is not None
    before = 1.0
    for step, keep, alpha in watched.figures("keep", "alpha"):
        slack = 0.002 if step > found.details["reached_at"] else 0.0
        assert (alpha == 0) == (before <= 0.8 + slack + 1e-7)
        before = keep


def test_any_k_keeps_the_components_with_the_largest_logits(tmp_path: Path) -> None:
    watched = Watched(tmp_path, export="any_k", learning_rate=0.4, noise="gumbel")
    found = watched.run()
    assert found.kept is not None
    logits = watched.saved["logits"].split([layer.full_rank for layer in LAYERS])
    for layer, part in zip(LAYERS, logits, strict=True):
        kept, rank = list(found.kept[layer.name]), found.ranks[layer.name]
        assert kept == sorted(set(kept))
        assert len(kept) == rank
        if rank < layer.full_rank:
            left = [i for i in range(layer.full_rank) if i not in set(kept)]
            assert float(part[kept].min()) >= float(part[left].max())
    for passed in watched.recorded:
        assert passed.kept is not None
        assert {name: len(kept) for name, kept in passed.kept.items()} == dict(passed.ranks)
    plan = make_plan(
        card_of(MODEL), found.ranks, decomposition="whitened", method="llrc", keep_target=0.8, kept=found.kept
    )
    assert set(plan.kept or {}) == set(plan.ranks)
    top_k = Watched(tmp_path / "top", export="top_k", max_steps=2).run()
    assert top_k.kept is None


# -- resuming -----------------------------------------------------------------------------------------------------

FIGURES = ("keep", "loss", "distill", "compression", "tv", "alpha", "target")


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"distillation": "logits", "ramp": "sensitivity", "dense_switch": True, "pace_steps": 12, "noise": "logistic"},
        {"distillation": "text", "compression": "log_ratio", "export": "any_k"},
    ],
    ids=["paper-like", "small-machine-like", "text"],
)
def test_a_resumed_run_goes_on_bit_for_bit(tmp_path: Path, more: dict[str, Any]) -> None:
    """Several passes over an odd number of windows, cancelled in the first and in a later one."""
    more = {**more, "max_steps": 20, "settle_steps": 30}
    whole = check_resuming(Watched, tmp_path, FIGURES, stops=(1, 6), **more)
    assert len(whole.steps) == 20


def test_windows_first_seen_beside_others_do_not_change_a_resumed_run(tmp_path: Path) -> None:
    """In bfloat16 the last bits of a product depend on the size of the batch."""
    model = tiny_model("llama").to(torch.bfloat16)
    more: dict[str, Any] = {"model": model, "documents": 7, "batch": 4, "window": 48, "max_steps": 9}
    check_resuming(Watched, tmp_path, FIGURES, stops=(2,), **more)


def test_one_seed_one_plan(tmp_path: Path) -> None:
    first, again = (Watched(tmp_path / name, max_steps=8) for name in ("1", "2"))
    assert first.run() == again.run()
    other = Watched(tmp_path / "3", max_steps=8)
    other.context = context_for(MODEL, tmp_path / "3", source=SOURCE, seed=1, on_progress=other.ticks.append)
    other.run()
    assert other.figures("loss") != first.figures("loss")


def test_every_window_is_seen_once_before_any_is_seen_twice(tmp_path: Path) -> None:
    training = MaskTraining(context_for(MODEL, tmp_path, source=SOURCE), settings(documents=6))
    for epoch in range(3):
        seen = [index for step in range(3) for index in training._batch(3 * epoch + step)[0].tolist()]
        assert sorted(seen) == list(range(6))
    chosen, tokens = training._batch(4)
    assert torch.equal(tokens, random_windows(6, 12)[chosen])


def test_fewer_windows_than_a_batch_are_enough(tmp_path: Path) -> None:
    assert Watched(tmp_path, documents=1, batch=4, max_steps=2).run().ranks
