"""Spectra: states, deep links, figures and what is read out of them."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from lrc_core.budget import break_even, uniform_ranks
from lrc_core.figures import common as figures
from pages.ui.spectra import chart as spectrum_chart
from pages.ui.spectra import measures, sides
from tests.factories import run_factory
from tests.pages.conftest import text_of


def components(app) -> list[dict]:
    """What the browser's components were given, in the order of the page."""
    return [json.loads(element.proto.json) for element in app.get("bidi_component")]


def spectrum(app) -> dict:
    """What the chart of spectra was given."""
    return next(found for found in components(app) if "curves" in found)


def test_empty_offers_the_job_that_fills_it(open_page, submitted):
    app = open_page("spectra")
    assert "No spectra" in text_of(app)
    app.button(key="start_spectra").click().run()
    assert submitted[0][0].kind == "spectra"


def test_a_job_under_way_is_shown_with_its_progress(open_page, store, card):
    run = run_factory.spectra_run(store, card, done=False)
    run_factory.set_state(run, "running", 12)
    app = open_page("spectra")
    assert "step 12 of 60" in app.get("progress")[0].proto.text
    assert app.button(key=f"cancel_{run.id}").label == "Cancel"


def test_sample_spectra_are_labelled(open_page, samples, card):
    run = run_factory.spectra_run(samples, card)
    text = text_of(open_page("spectra"))
    assert "Shipped run" in text and run.id in text


def heatmaps(app) -> list[dict]:
    """What the heatmaps draw, in the order of the page."""
    return [found for found in components(app) if "cells" in found]


def cell(grid: dict, name: str) -> list:
    return next(cell for cell in grid["cells"] if cell[2] == name)


def test_a_sample_that_was_made_again_is_the_users_run(open_page, store, samples, card):
    """The same job has the same id in both folders."""
    run_factory.spectra_run(samples, run_factory.make_card(blocks=2))
    run = run_factory.spectra_run(store, card)
    app = open_page("spectra")
    assert len(heatmaps(app)[0]["cells"]) == len(card.layers)
    assert run.id in text_of(app) and "Shipped run" not in text_of(app)


def test_heatmap_has_a_cell_for_every_layer_with_its_words(open_page, store, card):
    run_factory.spectra_run(store, card)
    (grid,) = heatmaps(open_page("spectra", sp_measure="Stable rank"))
    assert [cell[2] for cell in grid["cells"]] == [layer.name for layer in card.layers]
    assert grid["columns"] == ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    layer = card.layers[9]
    sigma = run_factory.sigma_of(layer, "whitened").astype(float)
    row, column, _, value, words, _ = cell(grid, layer.name)
    assert (row, column, value) == (1, 2, pytest.approx((sigma**2).sum() / sigma[0] ** 2))
    assert words.startswith("Block 1 self_attn.v_proj\nstable rank")
    assert grid["low"] == min(cell[3] for cell in grid["cells"])


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
    assert not open_page("spectra").dataframe  # a closed table costs nothing
    table = open_page("spectra", sp_table="true").dataframe[0].value.set_index("layer")
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
    assert "Delete the run" in text_of(app)


def test_reading_says_when_factors_do_not_pay(card):
    layer = card.layers[0]
    flat, steep = np.ones(layer.full_rank), np.exp(-np.arange(layer.full_rank, dtype=float))
    assert "beyond the break-even" in measures.spectrum_sentence(layer, flat, "Plain SVD")
    sentence = measures.spectrum_sentence(layer, steep, "Plain SVD")
    assert "below the break-even" in sentence and "first **2**" in sentence


def chart_of(curves, cut=None) -> dict:
    """What the browser would get of some curves."""
    shown = spectrum_chart.Spectrum(curves, log=True, cut=cut, with_layer=True, label="", file="")
    return spectrum_chart.payload(shown)


def unpacked(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4")


def test_overlay_of_layers_is_told_apart_by_colour_and_decomposition_by_dash(card):
    values = {
        name: {layer.name: run_factory.sigma_of(layer, name) for layer in card.layers} for name in ("svd", "asvd")
    }
    curves = figures.curves_of(card.layers[:2], values, ["svd", "asvd"])
    assert len({curve.color for curve in curves}) == 2 and len({curve.dash for curve in curves}) == 2
    found = chart_of(curves, cut=5)
    assert found["above"]["log"] and len({curve["name"] for curve in found["curves"]}) == 4
    assert {(rank, word) for rank, word, _ in found["marks"]} == {
        (5, "cut"),
        (round(break_even(card.layers[0])), "break-even"),
        (round(break_even(card.layers[1])), "break-even"),
    }


def test_a_zero_matrix_can_be_drawn(card):
    values = {"svd": {layer.name: np.zeros(layer.full_rank) for layer in card.layers}}
    curves = figures.curves_of(card.layers[:1], values, ["svd"])
    (line,) = chart_of(curves)["curves"]
    assert not unpacked(line["above"]).any() and len(unpacked(line["x"])) == card.layers[0].full_rank
    facts = measures.facts_of(card, values["svd"], uniform_ranks(card.layers, 0.8))
    for key, measure in measures.MEASURES.items():
        if not measure.subspaces and not measure.decompositions:
            assert measures.values_of(key, facts).keys() == facts.keys()
    assert measures.values_of("stable", facts)[card.layers[0].name] == 0


def test_a_pinned_cell_turns_everything_into_differences(open_page, store, card):
    run_factory.spectra_run(store, card)
    name = card.layers[5].name
    plain = heatmaps(open_page("spectra", sp_measure="Stable rank"))[0]
    app = open_page("spectra", sp_measure="Stable rank", sp_table="true")
    app.session_state["sp_ref"] = name
    app.run()
    (grid,) = heatmaps(app)
    assert grid["diverging"] and grid["low"] == -grid["high"] and grid["pinned"] == name
    for before, after in zip(plain["cells"], grid["cells"], strict=True):
        assert after[3] == pytest.approx(before[3] - cell(plain, name)[3])
    assert cell(grid, name)[3] == 0
    assert spectrum(app)["below"]["title"] == "Energy − reference"
    assert any(curve["reference"] for curve in spectrum(app)["curves"])
    table = app.dataframe[0].value.set_index("layer")
    assert table.loc[name, "difference of stable"] == 0
    assert "above the reference" in text_of(app)
    app.button(key="sp_unpin").click().run()
    assert not heatmaps(app)[0]["diverging"]


def test_a_whole_run_can_be_the_reference(open_page, store, card):
    run = run_factory.spectra_run(store, card)
    app = open_page("spectra", sp_measure="Stable rank")
    app.session_state["sp_ref"] = f"{run.id}/svd"
    app.run()
    (grid,) = heatmaps(app)
    layer = card.layers[3]
    stable = {
        name: float((sigma**2).sum() / sigma[0] ** 2)
        for name in ("svd", "whitened")
        if (sigma := run_factory.sigma_of(layer, name).astype(float)) is not None
    }
    assert cell(grid, layer.name)[3] == pytest.approx(stable["whitened"] - stable["svd"])


def test_two_models_stand_on_one_scale(open_page, store, card):
    run_factory.spectra_run(store, card)
    other = run_factory.make_card("/models/other", blocks=3, width=24)
    run = run_factory.spectra_run(store, other)
    app = open_page("spectra", sp_measure="Stable rank")
    app.session_state["sp_beside"] = f"{run.id}/svd"
    app.run()
    left, right = heatmaps(app)
    assert (left["low"], left["high"], left["ticks"]) == (right["low"], right["high"], right["ticks"])
    values = [cell[3] for grid in (left, right) for cell in grid["cells"]]
    assert (left["low"], left["high"]) == (min(values), max(values))
    assert (left["rows"], right["rows"]) == (4, 3)
    assert len({curve["dash"] for curve in spectrum(app)["curves"]}) == 2


def test_search_fades_what_does_not_fit(open_page, store, card):
    run_factory.spectra_run(store, card)
    app = open_page("spectra", sp_find="down 2")
    (grid,) = heatmaps(app)
    assert grid["found"] == ["model.layers.2.mlp.down_proj"]
    assert "1 of 28 layers" in text_of(app)


def test_a_plan_can_be_the_cut(open_page, store, card):
    run_factory.spectra_run(store, card)
    run_factory.allocate_run(store, card, keep=0.7)
    app = open_page("spectra", sp_measure="Energy kept at this compression", sp_table="true")
    app.selectbox(key="sp_cut").set_value("llrc").run()
    ranks = run_factory.plan_at(card, 0.8).full_ranks(card.layers)
    table = app.dataframe[0].value.set_index("layer")
    assert all(table.loc[layer.name, "cut_rank"] == ranks[layer.name] for layer in card.layers)


def test_measures_that_a_run_lacks_are_offered(open_page, store, card, submitted):
    run_factory.spectra_run(store, card)
    app = open_page("spectra", sp_measure="Overlap with neighbours, inputs")
    assert "overlaps of neighbouring" in text_of(app)
    app.button(key="sp_more").click().run()
    spec = submitted[0][0]
    assert spec.subspaces and "kfac" in spec.decompositions and not spec.stream


def test_stored_overlaps_are_shown(open_page, store, card):
    run = run_factory.spectra_run(store, card)
    found = {"directions": 6, "inputs": 0.4, "outputs": 0.2, "chance_inputs": 0.1, "chance_outputs": 0.1}
    content = {"layers": {layer.name: found for layer in card.layers[1:]}}
    (run.path / "subspaces.json").write_text(json.dumps(content), encoding="utf-8")
    (grid,) = heatmaps(open_page("spectra", sp_measure="Overlap with neighbours, inputs"))
    assert cell(grid, card.layers[4].name)[3] == 0.4 and cell(grid, card.layers[0].name)[3] is None
    assert "by chance 10 %" in cell(grid, card.layers[4].name)[4]


def test_power_law_marks_poor_fits_and_says_how_many(open_page, store, card):
    run_factory.spectra_run(store, card)
    app = open_page("spectra", sp_measure="Power-law exponent")
    (grid,) = heatmaps(app)
    poor = sum(cell[5] == "?" for cell in grid["cells"])
    assert poor and f"{poor} of {len(card.layers)} layers" in text_of(app)
    assert all(("Poor fit" in cell[4] or "no power law" in cell[4]) == (cell[5] == "?") for cell in grid["cells"])


def test_shares_of_the_predicted_loss_add_up(card):
    sigmas = {layer.name: run_factory.sigma_of(layer, "svd") for layer in card.layers}
    ranks = uniform_ranks(card.layers, 0.7)
    facts = measures.facts_of(card, sigmas, ranks)
    assert sum(measures.values_of("loss_share", facts).values()) == pytest.approx(1)
    name = card.layers[2].name
    kept, gone = measures.values_of("kept", facts)[name], measures.values_of("discarded", facts)[name]
    assert kept + gone == pytest.approx(1)


def test_a_click_on_a_curve_cuts_there(card):
    layer = card.layers[0]
    rank = round(0.6 * break_even(layer))
    compression = sides.cut_at(layer, rank) / 100
    assert uniform_ranks(card.layers, 1 - compression)[layer.name] == pytest.approx(rank, abs=1)
    assert sides.cut_at(layer, layer.full_rank) == 1


def test_long_spectra_are_drawn_with_few_points_and_both_ends(card):
    sigma = np.linspace(5, 1, 4000)
    (line,) = chart_of([figures.SpectrumCurve(card.layers[0], "svd", sigma, "#000", "solid")])["curves"]
    x, y = unpacked(line["x"]), unpacked(line["above"])
    assert len(x) <= spectrum_chart.MOST_POINTS and (x[0], x[-1]) == (1, 4000)
    assert y[-1] == pytest.approx(0.2) and unpacked(line["below"])[-1] == pytest.approx(1)
