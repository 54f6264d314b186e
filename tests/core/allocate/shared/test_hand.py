"""Plans by hand: locks hold, the budget is met, the rest goes where it should."""

from __future__ import annotations

import numpy as np
import pytest

from lrc_core.allocate.curves.hand import spend_rest
from lrc_core.allocate.curves.loss_curves import cheapest_ranks, predicted_loss
from lrc_core.budget import dense_ranks, keep_ratio, layer_ratio, plan_params, uniform_ranks
from lrc_core.errors import BudgetError
from tests.factories.run_factory import make_card, sigma_of

CARD = make_card()
LAYERS = CARD.layers
LOSSES = {layer.name: 0.5 * sigma_of(layer, "whitened").astype(np.float64) ** 2 for layer in LAYERS}
LOCKED = {LAYERS[3].name: 5, LAYERS[10].name: LAYERS[10].full_rank, LAYERS[20].name: 1}


def held() -> dict[str, int]:
    return {**uniform_ranks(LAYERS, 0.5), **LOCKED}


@pytest.mark.parametrize("losses", [None, LOSSES])
@pytest.mark.parametrize("keep", [0.9, 0.7, 0.4])
def test_locks_hold_and_the_budget_is_met_and_used(losses, keep) -> None:
    ranks = spend_rest(LAYERS, held(), LOCKED, keep, losses)
    assert {name: ranks[name] for name in LOCKED} == LOCKED
    used = keep_ratio(LAYERS, ranks)
    assert used <= keep
    one = max(layer.out_features + layer.in_features for layer in LAYERS)
    assert used >= min(0.995 * keep, keep - one / CARD.params_linear)


def test_without_locks_and_with_a_curve_it_is_the_allocators_plan() -> None:
    assert spend_rest(LAYERS, dense_ranks(LAYERS), (), 0.7, LOSSES) == cheapest_ranks(LAYERS, LOSSES, 0.7)


def test_the_curve_beats_proportions_in_predicted_loss() -> None:
    with_curve = spend_rest(LAYERS, held(), LOCKED, 0.6, LOSSES)
    without = spend_rest(LAYERS, held(), LOCKED, 0.6)
    assert predicted_loss(LAYERS, with_curve, LOSSES) < predicted_loss(LAYERS, without, LOSSES)


def test_proportions_stay() -> None:
    wanted = {layer.name: max(1, round((0.2 if layer.block else 0.4) * layer.full_rank / 2)) for layer in LAYERS}
    ranks = spend_rest(LAYERS, wanted, (), 0.5)
    first = np.mean([layer_ratio(layer, ranks[layer.name]) for layer in LAYERS if layer.block == 0])
    rest = np.mean([layer_ratio(layer, ranks[layer.name]) for layer in LAYERS if layer.block])
    assert first / rest == pytest.approx(2, rel=0.15)


def test_locks_that_take_all_are_refused_in_words() -> None:
    names = [layer.name for layer in LAYERS if layer.kind.startswith("mlp")]
    with pytest.raises(BudgetError, match=f"{len(names)} locked layers") as caught:
        spend_rest(LAYERS, dense_ranks(LAYERS), names, 0.5)
    assert "Unlock" in caught.value.remedy


def test_a_budget_that_holds_everything_makes_the_rest_dense() -> None:
    small = {LAYERS[0].name: 1}
    ranks = spend_rest(LAYERS, {**dense_ranks(LAYERS), **small}, small, 0.999)
    assert ranks == {**dense_ranks(LAYERS), **small}
    everything = [layer.name for layer in LAYERS]
    assert spend_rest(LAYERS, held(), everything, 0.9) == held()
    assert plan_params(LAYERS, held()) < 0.9 * CARD.params_linear
