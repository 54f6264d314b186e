"""Spectra: states, deep links, figures and what is read out of them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lrc_core.budget import break_even, uniform_ranks
from pages.ui import figures, measures
from tests.pages import run_factory
from tests.pages.conftest import text_of


def specs(app) -> list[dict]:
    return [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]


def test_empty_offers_the_job_that_fills_it(open_page, submitted):
    app = open_page("spectra")
    assert "No spectra of this model yet" in text_of(app)
    app.button(key="start_spectra").click().run()
    assert submitted[0][0].kind == "spectra"


def test_a_job_under_way_is_shown_with_its_progress(open_page, store, card):
    run = run_factory.spectra_run(store, card, done=False)
    run_factory.set_state(run, "running", 12)
    app = open_page("spectra")
    assert "Learning masks · step 12 of 60" in app.get("progress")[0].proto.text
    assert app.button(key=f"cancel_{run.id}").label == "Cancel"


def test_sample_spectra_are_labelled(open_page, samples, card):
    run = run_factory.spectra_run(samples, card)
    assert f"Shipped run `{run.id}`" in text_of(open_page("spectra"))


def test_heatmap_has_a_click_target_on_every_cell(open_page, store, card):
    run_factory.spectra_run(store, card)
    heat, targets = _heatmap(open_page("spectra"))
    assert heat["type"] == "heatmap"
    assert len(targets["customdata"]) == len(card.layers)
    assert targets["marker"]["opacity"] == 0


def _heatmap(app) -> list[dict]:
    return next(spec["data"] for spec in specs(app) if spec["data"][0]["type"] == "heatmap")


def test_deep_link_chooses_measure_layers_rate_and_scale(open_page, store, card):
    run_factory.spectra_run(store, card)
    app = open_page(
        "spectra",
        sp_measure="Stable rank",
        sp_decomposition="Plain SVD",
        sp_layers=["0 mlp.up_proj", "2 self_attn.k_proj"],
        rate="30",
        sp_log="false",
    )
    assert app.selectbox(key="sp_measure").value == "stable"
    assert app.multiselect(key="sp_layers").value == ["model.layers.0.mlp.up_proj", "model.layers.2.self_attn.k_proj"]
    assert app.slider(key="rate").value == 30
    assert "Block 0, `mlp.up_proj`" in text_of(app) and "Block 2, `self_attn.k_proj`" in text_of(app)
    assert app.toggle(key="sp_log").value is False


def test_nonsense_in_the_link_falls_back(open_page, store, card):
    run_factory.spectra_run(store, card)
    app = open_page("spectra", sp_measure="?", sp_decomposition="%", sp_layers="999 nothing", rate="-7", sp_log="maybe")
    assert not app.error
    assert app.selectbox(key="sp_measure").value == "r95"
    assert 1 <= app.slider(key="rate").value <= 80


def test_no_layer_chosen_is_a_state_of_its_own(open_page, store, card):
    run_factory.spectra_run(store, card)
    app = open_page("spectra")
    app.multiselect(key="sp_layers").set_value([]).run()
    assert "No layer chosen" in text_of(app)


def test_the_table_says_what_the_heatmap_shows(open_page, store, card):
    run_factory.spectra_run(store, card)
    table = open_page("spectra").dataframe[0].value.set_index("layer")
    layer = card.layers[6]
    sigma = run_factory.sigma_of(layer, "whitened").astype(float)
    energy = np.cumsum(sigma**2) / np.sum(sigma**2)
    assert table.loc[layer.name, "rank_95"] == np.argmax(energy >= 0.95) + 1
    assert table.loc[layer.name, "stable_rank"] == pytest.approx(np.sum(sigma**2) / sigma[0] ** 2)
    cut = uniform_ranks(card.layers, 0.8)[layer.name]
    assert table.loc[layer.name, "energy_kept"] == pytest.approx(energy[cut - 1])


@pytest.mark.parametrize("damage", ["truncated", "missing", "lacks a layer"])
def test_damaged_files_are_errors_in_words(open_page, store, card, damage):
    run = run_factory.spectra_run(store, card)
    path = run.path / "spectra.npz"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "missing":
        path.unlink()
    else:
        np.savez(path, **{"svd/model.layers.0.mlp.up_proj": np.ones(3)})
    app = open_page("spectra")
    assert len(app.error) == 1
    assert "Delete the run and start it again" in text_of(app)


def test_reading_says_when_factors_do_not_pay(card):
    layer = card.layers[0]
    flat, steep = np.ones(layer.full_rank), np.exp(-np.arange(layer.full_rank, dtype=float))
    assert "beyond the break-even rank" in measures.reading(layer, flat, "Plain SVD")
    sentence = measures.reading(layer, steep, "Plain SVD")
    assert "below the break-even rank" in sentence and "first **2**" in sentence


def test_overlay_of_layers_is_told_apart_by_colour_and_decomposition_by_dash(card):
    values = {
        name: {layer.name: run_factory.sigma_of(layer, name) for layer in card.layers} for name in ("svd", "asvd")
    }
    curves = figures.curves_of(card.layers[:2], values, ["svd", "asvd"])
    assert len({curve.color for curve in curves}) == 2 and len({curve.dash for curve in curves}) == 2
    figure = figures.spectrum_figure(curves, log=True, cut=5, with_layer=True)
    assert figure.layout.yaxis.type == "log"
    assert {annotation.text for annotation in figure.layout.annotations} == {
        "cut 5",
        f"break-even {round(break_even(card.layers[0]))}",
        f"break-even {round(break_even(card.layers[1]))}",
    }


def test_a_zero_matrix_can_be_drawn(card):
    values = {"svd": {layer.name: np.zeros(layer.full_rank) for layer in card.layers}}
    curves = figures.curves_of(card.layers[:1], values, ["svd"])
    assert figures.spectrum_figure(curves, log=True, cut=None, with_layer=False).data
    assert measures.table(card, values["svd"], 0.2)["stable"][card.layers[0].name] == 0
