"""Plans of every rate, packed: the uniform rule, and those that runs recorded."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from lrc_core.budget import check_target, fit_budget, is_dense, keep_ratio, uniform_ranks
from lrc_core.errors import BudgetError
from lrc_core.plan import Plan
from lrc_core.results import series
from lrc_core.results.archive import archive
from lrc_core.results.series import LARGEST_RATE
from lrc_core.runs.spec import CalibrationSpec, SpectraSpec
from lrc_core.runs.store import RunStore
from lrc_core.types import LinearShape, ModelCard
from tests.factories import run_factory


@pytest.fixture
def card() -> ModelCard:
    return run_factory.make_card()


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
    assert (read(series.packed(ranks), 7, 5) == ranks).all()


def test_plans_that_differ_little_take_a_byte_a_layer(card):
    found = series.uniform(card.layers)
    assert len(base64.b64decode(found.packed)) < 1.3 * found.ranks.size


def test_the_uniform_rule_at_every_rate(card):
    found = series.uniform(card.layers)
    assert found.rates == tuple(range(1, LARGEST_RATE + 1))
    for rate in (1, 37, 80):
        keep = 1 - rate / 100
        ranks = fit_budget(card.layers, uniform_ranks(card.layers, keep), keep)
        assert found.plan_near(rate, card.layers) == ranks
        assert found.removed[rate - 1] == pytest.approx(1 - keep_ratio(card.layers, ranks), abs=1e-5)
        assert found.dense[rate - 1] == sum(is_dense(layer, ranks[layer.name]) for layer in card.layers)


def test_rates_end_where_every_layer_is_at_rank_one():
    layers = (LinearShape("a", 0, "a", 4, 4), LinearShape("b", 0, "b", 4, 4))
    assert series.largest_rate(layers) == 50
    check_target(layers, 0.5)
    with pytest.raises(BudgetError):
        check_target(layers, 0.49)
    assert series.uniform(layers).rates[-1] == 50


def test_nearest_and_where_no_layer_is_dense_any_more(card):
    layers = card.layers
    dense = {layer.name: layer.full_rank for layer in layers}
    low = dict.fromkeys(dense, 1)
    found = series.series_of(layers, (10, 20, 40), [dense, low, low])
    assert [found.nearest(rate) for rate in (1, 15, 16, 30, 31, 80)] == [0, 0, 1, 1, 2, 2]
    assert found.none_dense_from == 20
    assert series.series_of(layers, (10, 20), [low, dense]).none_dense_from is None
    assert series.series_of(layers, (10,), [dense]).none_dense_from is None


def test_learned_runs_begin_with_the_users_own(card, tmp_path, monkeypatch):
    store, samples = RunStore(), RunStore(tmp_path / "samples")
    monkeypatch.setenv("LRC_SAMPLES", str(samples.root))
    run_factory.allocate_run(samples, card, keep=0.7)
    assert [
        view.sample for view in series.learned_runs(run_factory.allocate_spec(card).model, "whitened").values()
    ] == [True]
    own = run_factory.allocate_run(store, card, keep=0.9)
    run_factory.allocate_run(store, card, method="uniform", keep=0.6)
    found = list(series.learned_runs(run_factory.allocate_spec(card).model, "whitened").values())
    assert found[0].id == own.id and found[1].sample
    recorded = series.recorded_at(found[0])
    assert list(recorded) == sorted(recorded) and recorded[10].final


@pytest.mark.parametrize("changes", [{}, {"calibration": CalibrationSpec(windows=7)}, {"rank_multiple": 8}])
def test_the_closed_forms_plan_of_a_rate_is_the_one_that_a_run_computed(card, monkeypatch, tmp_path, changes):
    """A measured figure beside a plan is of that plan, although its ranks differ a little from the spectra's own."""
    monkeypatch.setenv("LRC_RUNS", str(tmp_path))
    store = RunStore()
    spectra = run_factory.spectra_run(store, card, decompositions=("svd", "kfac"))
    view = archive().require(spectra.id, SpectraSpec)
    alone = series.from_spectra(view)
    made = run_factory.allocate_run(store, card, method="lagrangian", keep=0.7, decomposition="kfac", **changes)
    recorded = Plan.load(made.path / "plan.json").full_ranks(card.layers)
    assert recorded != alone.plan_near(30, card.layers)
    found = series.estimated(view)
    assert found.plan_near(30, card.layers) == (alone.plan_near(30, card.layers) if changes else recorded)
    assert found.plan_near(31, card.layers) == alone.plan_near(31, card.layers)
