"""Allocate: budgets of other units, and plans that need no job."""

from __future__ import annotations

import pytest

from lrc_core import words
from lrc_core.budget import is_dense, stored
from lrc_core.registry import ALLOCATORS, DECOMPOSITIONS
from lrc_core.results import series
from lrc_core.runs.spec import AllocateSpec
from pages.ui.allocate import arithmetic
from tests.pages.conftest import text_of


@pytest.mark.parametrize(
    "chosen, value, budget",
    [("Share of the bytes", ("bytes", 40), "bytes:0.4"), ("Megabytes of the model", ("mb", 1), "mb:1"),
     ("Share of the time", ("latency", 70), "latency:0.7")],
)  # fmt: skip
@pytest.mark.parametrize("method", [entry.label for entry in ALLOCATORS if entry.by_bytes])
def test_a_budget_in_bytes_or_time_is_asked_for_where_the_method_can_spend_it(
    open_page, known, method, chosen, value, budget
):
    """What the form says is what the command line beneath it says; the slider's share is no part of it."""
    link = {"al_method": method, "al_decomposition": "K-FAC", "al_budget": chosen}
    app = open_page("allocate", **link, **{f"al_budget_value_{value[0]}": str(value[1])})
    assert not app.exception and f"--budget {budget}" in text_of(app) and "--keep" not in text_of(app)
    assert ("May choose" in {control.label for control in app.get("button_group")}) == (value[0] != "latency")
    assert not any(toggle.key == "al_auto" for toggle in app.toggle), "the slider starts no job of another budget"
    other = open_page("allocate", **{**link, "al_method": "Uniform"})
    assert "--budget" not in text_of(other) and "--keep" in text_of(other)


def test_what_bytes_come_to_is_said_or_why_they_are_too_few(open_page, known, card):
    link = {"al_method": "Lagrangian", "al_decomposition": DECOMPOSITIONS.get("kfac").label}
    app = open_page("allocate", **link, al_budget="Share of the bytes", al_budget_value_bytes="50")
    assert words.data_size(card.params_linear) in text_of(app), "half of the bytes in 16 bits is a byte for each"
    elsewhere = open_page("allocate", **{**link, "al_decomposition": "Plain SVD"}, al_budget="Share of the bytes")
    elsewhere.button(key="al_budget_decompose").click().run()
    assert "--decomposition kfac" in text_of(elsewhere)
    assert not any(button.key == "al_budget_decompose" for button in elsewhere.button)


@pytest.mark.parametrize(
    "unit, key, few, enough", [("Megabytes of the model", "mb", 1, 5), ("Share of the bytes", "bytes", 1, 60)]
)
def test_a_budget_below_every_plan_starts_nothing_and_says_the_least(
    open_page, known, submitted, unit, key, few, enough
):
    form = {"al_method": "Lagrangian", "al_decomposition": DECOMPOSITIONS.get("kfac").label, "al_budget": unit}
    app = open_page("allocate", **form, **{f"al_budget_value_{key}": str(few)})
    assert app.button(key="al_start").disabled and "at least" in text_of(app)
    assert not app.exception and not app.error and not submitted
    possible = open_page("allocate", **form, **{f"al_budget_value_{key}": str(enough)})
    assert not possible.button(key="al_start").disabled


@pytest.mark.parametrize("storage", ["Pairs", "Pivots"])
def test_ranks_that_are_arithmetic_are_there_without_a_job(open_page, known, card, submitted, storage):
    """Uniform's plan can be taken along at once, the very ranks that the slider draws; no minutes are announced."""
    app = open_page("allocate", al_method="Uniform", al_storage=storage, rate="30")
    assert "Uniform plan at 30 %" in {one.proto.label for one in app.get("download_button")} and not submitted
    spec = AllocateSpec(
        method="uniform", decomposition="kfac", keep=0.7, storage="pivoted" if storage == "Pivots" else "pair"
    )
    plan = arithmetic.plan_of(card, spec)
    layers = stored(card.layers, spec.storage)
    drawn = series.uniform(layers).plan_near(30, layers)
    assert plan is not None and plan.full_ranks(layers) == {
        name: rank if not is_dense(layer, rank) else layer.full_rank
        for (name, rank), layer in zip(drawn.items(), layers, strict=True)
    }
    other = open_page("allocate", al_method="STRS")
    assert ":material/bolt:" in text_of(app) and ":material/bolt:" not in text_of(other)
    assert text_of(app).count("schedule") < text_of(other).count("schedule")  # others' prices stand on the page as well
