"""The slider says of a recorded plan's quality what was measured or forecast, and nothing where neither holds."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import pytest

from lrc_core.allocate.curves.loss_curves import predicted_loss
from lrc_core.plan import make_plan
from lrc_core.results import series
from lrc_core.results.archive import archive
from lrc_core.results.plan_quality import closed_form_quality, loss_forecast, measured_at
from lrc_core.results.spectra import losses_of
from lrc_core.runs.spec import EvaluateSpec, ModelRef, SpectraSpec
from tests.factories import run_factory, table_factory
from tests.pages.test_page_watch import DENSE, EVALUATION, measured, measured_on_the_way, trained

PAIRS = {"al_decomposition": "Whitened (SVD-LLM)", "al_storage": "Pairs"}


def learned(app):
    """The panel of recorded plans, and what is said by rate."""
    panels = json.loads(app.get("bidi_component")[0].proto.json)["panels"]
    panel = next(panel for panel in panels if panel["key"] == "learned")
    return panel, dict(zip(panel["rates"], panel["said"], strict=True))


def record(run, card, keep):
    """Plans at 10, 15, 20 and 30 %, as training recorded them."""
    (run.path / "plans").mkdir()
    for rate in (10, 15, 20):
        plan = replace(run_factory.plan_at(card, 1 - rate / 100), origin={"recorded_at_step": round(rate / 30 * 100)})
        plan.save(run.path / "plans" / f"{rate}.json")
    run_factory.plan_at(card, keep).save(run.path / "plan.json")


@pytest.fixture
def measured_run(store, card):
    run = measured_on_the_way(store, card)
    record(run, card, 0.7)
    return run


def test_measured_where_it_was_measured_and_forecast_between(open_page, measured_run):
    panel, said = learned(open_page("allocate", **PAIRS))
    kind, text = said[20]
    assert kind == "measured" and f"gensim {DENSE * math.exp(1.5 * 6 * 0.2**2):.2f} ± 0.50" in text
    kind, text = said[15]
    found = re.search(r"gensim about ([\d.]+) \(([\d.]+) to ([\d.]+)\), dense 20\.0", text)
    assert kind == "forecast" and found is not None
    assert float(found[1]) == pytest.approx(DENSE * math.exp(1.5 * 6 * 0.15**2), rel=0.05)
    assert float(found[2]) <= float(found[1]) <= float(found[3])
    assert "3 measured plans" in panel["note"] and "left out" in panel["note"]


def test_no_forecast_where_the_trials_miss(open_page, store, card):
    record(measured_on_the_way(store, card, off=0.8), card, 0.7)
    panel, said = learned(open_page("allocate", **PAIRS))
    assert said[15] is None and said[20][0] == "measured"
    assert "No quality forecast" in panel["note"] and "misses" in panel["note"]


def test_no_forecast_without_measured_plans_or_with_another_loss(open_page, store, card):
    record(trained(store, card, 0.7, 1.0), card, 0.7)
    panel, said = learned(open_page("allocate", **PAIRS))
    assert not any(said.values()) and "3 measured plans" in panel["note"]
    run_factory.allocate_run(store, card, keep=0.6)  # recorded with no settings, so with no divergence
    panel, said = learned(open_page("allocate", **PAIRS))
    assert len(said) == 40 and not any(said.values()) and "does not use" in panel["note"]


def test_the_uniform_panel_says_what_comparisons_measured_of_it(open_page, store, card):
    """It said "quality not measured" beside a comparison that had measured it."""
    run_factory.spectra_run(store, card)
    app = open_page("allocate", **PAIRS)
    assert "not measured" in panel_of(app)["badge"] and not any(panel_of(app)["said"])
    table_factory.compare_run(store, card, keeps=(0.9, 0.8))
    panel = panel_of(open_page("allocate", **PAIRS))
    by_rate = dict(zip(panel["rates"], panel["said"], strict=True))
    value = table_factory.row("uniform", 0.8)["perplexity"]["gensim"]["value"]
    assert by_rate[20][0] == "measured" and f"gensim {value:.1f}" in by_rate[20][1] and by_rate[19] is None
    assert "not measured" not in panel["badge"]


@pytest.mark.parametrize("storage", ["pair", "pivoted"])
def test_what_was_measured_of_a_rule_is_found_under_its_own_law_and_as_allocated(store, card, storage):
    """Rows name their law and update with their method, so that nothing was found under pivots."""
    table_factory.compare_run(store, card, keeps=(0.8,), storage=storage)
    table_factory.compare_run(store, card, keeps=(0.7,), storage=storage, update="left")
    other = {"pair": "pivoted", "pivoted": "pair"}[storage]
    assert list(measured_at(ModelRef(), "uniform", "whitened", storage)) == [20]
    assert not measured_at(ModelRef(), "uniform", "whitened", other)


def test_the_closed_forms_panel_forecasts_between_measured_plans_with_its_record(open_page, store, card):
    """Measured at a multiple of what its spectra predict: so it says at the rates between."""
    spectra = run_factory.spectra_run(store, card, decompositions=("svd", "kfac"))
    view = archive().require(spectra.id, SpectraSpec)
    plans, losses = series.estimated(view), losses_of(view)
    predicted = [predicted_loss(card.layers, plans.plan_near(rate, card.layers), losses) for rate in plans.rates]
    measured(store, card, None, 1.0, DENSE)
    scale = 1 / predicted[plans.nearest(40)]
    for number, rate in enumerate((20, 30, 40)):
        ranks = plans.plan_near(rate, card.layers)
        plan = make_plan(card, ranks, decomposition="kfac", method="lagrangian", keep_target=1 - rate / 100,
                         origin={"run_id": f"allocate-{number}"})  # fmt: skip
        run = store.create(EvaluateSpec(model=ModelRef("starter"), plan=plan.to_dict(), evaluation=EVALUATION))
        value = DENSE * math.exp(predicted[plans.nearest(rate)] * scale)
        run_factory.finish(run, {"perplexity": {"gensim": {"value": value, "stderr": 0.5}}})
    quality = closed_form_quality(view, "pair")
    kind, text = quality.said[25]
    expected = DENSE * math.exp(predicted[plans.nearest(25)] * scale)
    shown = float(re.search(r"about ([\d.,]+)", text)[1].replace(",", ""))
    assert kind == "forecast" and shown == pytest.approx(expected, rel=0.01)
    assert "3 of 3" in quality.basis
    assert loss_forecast(view, predicted[plans.nearest(25)]) == (text, quality.basis)
    assert not loss_forecast(view, 100.0)[0], "far from everything that was measured"
    app = open_page("allocate", rate="25", al_storage="Pairs")
    assert "3 of 3" in panel_of(app, "estimate")["note"]


def panel_of(app, key="uniform"):
    """The panel of the uniform rule, or another."""
    for part in app.get("bidi_component"):
        for panel in json.loads(part.proto.json).get("panels", []) if part.proto.json else []:
            if panel["key"] == key:
                return panel
    raise AssertionError("no panel of the uniform rule")
