"""What the slider is given: plans of every rate, packed, and the figures that follow from each."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from lrc_core import words
from lrc_core.budget import check_target, fit_budget, is_dense, keep_ratio, uniform_ranks
from lrc_core.errors import BudgetError
from lrc_core.results import series as rate_plans
from lrc_core.results.series import LARGEST_RATE
from lrc_core.types import LinearShape
from pages.ui.allocate import slider as ratedrag
from pages.ui.allocate.slider import SliderPanel
from tests.factories import run_factory


def read(text: str, plans: int, layers: int) -> np.ndarray:
    """The inverse of ``packed``, written as the browser's script reads it."""
    rest, numbers = iter(base64.b64decode(text)), []
    for _ in range(plans * layers):
        number, shift = 0, 0
        while (byte := next(rest)) & 128:
            number |= (byte & 127) << shift
            shift += 7
        number |= byte << shift
        numbers.append(-((number + 1) >> 1) if number & 1 else number >> 1)
    assert next(rest, None) is None
    return np.cumsum(np.array(numbers).reshape(plans, layers), axis=0)


@pytest.mark.parametrize("largest", [1, 63, 64, 8191, 8192, 60_000])
def test_packed_ranks_come_back(largest):
    ranks = np.random.default_rng(largest).integers(0, largest + 1, (7, 5))
    assert (read(rate_plans.packed(ranks), 7, 5) == ranks).all()


def test_plans_that_differ_little_take_a_byte_a_layer(card):
    series = rate_plans.uniform(card.layers)
    assert len(base64.b64decode(series.packed)) < 1.3 * series.ranks.size


def test_the_uniform_rule_at_every_rate(card):
    series = rate_plans.uniform(card.layers)
    assert series.rates == tuple(range(1, LARGEST_RATE + 1))
    for rate in (1, 37, 80):
        keep = 1 - rate / 100
        ranks = fit_budget(card.layers, uniform_ranks(card.layers, keep), keep)
        assert series.plan_near(rate, card.layers) == ranks
        assert series.removed[rate - 1] == pytest.approx(1 - keep_ratio(card.layers, ranks), abs=1e-5)
        assert series.dense[rate - 1] == sum(is_dense(layer, ranks[layer.name]) for layer in card.layers)


def test_rates_end_where_every_layer_is_at_rank_one():
    layers = (LinearShape("a", 0, "a", 4, 4), LinearShape("b", 0, "b", 4, 4))
    assert rate_plans.largest_rate(layers) == 50
    check_target(layers, 0.5)
    with pytest.raises(BudgetError):
        check_target(layers, 0.49)
    assert rate_plans.uniform(layers).rates[-1] == 50


def test_nearest_and_where_no_layer_is_dense_any_more(card):
    layers = card.layers
    dense = {layer.name: layer.full_rank for layer in layers}
    low = dict.fromkeys(dense, 1)
    series = rate_plans.series_of(layers, (10, 20, 40), [dense, low, low])
    assert [series.nearest(rate) for rate in (1, 15, 16, 30, 31, 80)] == [0, 0, 1, 1, 2, 2]
    assert series.none_dense_from == 20
    assert rate_plans.series_of(layers, (10, 20), [low, dense]).none_dense_from is None
    assert rate_plans.series_of(layers, (10,), [dense]).none_dense_from is None


def test_figures_are_those_of_the_budget(card):
    figures = ratedrag.figures(card)
    gone = round(0.3 * card.params_linear)
    assert figures["linear"][29] == words.count(card.params_linear - gone)
    assert figures["total"][29] == words.count(card.params_total - gone)
    assert figures["size"][29] == words.data_size(2 * (card.params_total - gone))
    assert figures["shrunk"][29] == words.percent(gone / card.params_total)
    assert {len(figures[key]) for key in ("linear", "total", "size", "shrunk")} == {LARGEST_RATE}


def test_the_largest_recorded_rate_and_the_limit_are_marked(card):
    series = rate_plans.series_of(card.layers, (5, 30), [run_factory.plan_at(card, keep).full_ranks(card.layers)
                                                         for keep in (0.95, 0.7)])  # fmt: skip
    marks = ratedrag.marks_of(card, [SliderPanel("learned", "LLRC", "", "", "recorded at", series)])
    assert [30, "▲", "recorded up to 30 %"] in marks


def test_learned_runs_begin_with_the_users_own(store, samples, card):
    run_factory.allocate_run(samples, card, keep=0.7)
    assert [
        view.sample for view in rate_plans.learned_runs(run_factory.allocate_spec(card).model, "whitened").values()
    ] == [True]
    own = run_factory.allocate_run(store, card, keep=0.9)
    run_factory.allocate_run(store, card, method="uniform", keep=0.6)
    found = list(rate_plans.learned_runs(run_factory.allocate_spec(card).model, "whitened").values())
    assert found[0].id == own.id and found[1].sample
    recorded = rate_plans.recorded_at(found[0])
    assert list(recorded) == sorted(recorded) and recorded[10].final
