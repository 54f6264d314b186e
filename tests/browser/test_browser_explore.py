"""Exploring in a real browser: heatmap and spectrum linked both ways, the keyboard, pins, streaming, plans by hand."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from playwright.sync_api import expect

from lrc_core.runs.spec import ModelRef, SpectraSpec
from tests.browser.conftest import PATIENCE_MS
from tests.factories import run_factory

pytestmark = pytest.mark.browser
expect.set_options(timeout=PATIENCE_MS)

CARD = run_factory.make_card()
GRID = ".st-key-sp_heatmap"


def cell_of(page, block, kind, grid=GRID):
    """The rectangle of a layer."""
    return page.locator(f'{grid} rect[data-id="model.layers.{block}.{kind}"]')


def test_heatmap_spectrum_keyboard_and_pin(server, open_tab):
    page = open_tab(f"{server.url}/spectra")
    expect(page.locator(f"{GRID} rect[data-id]")).to_have_count(len(CARD.layers))
    expect(page.get_by_role("grid")).to_have_count(1)

    # A click, then two arrows: the spectrum follows, and the URL says it.
    cell_of(page, 1, "self_attn.q_proj").click()
    expect(page.get_by_text("Block 1, self_attn.q_proj")).to_be_visible()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_text("Block 2, self_attn.k_proj")).to_be_visible()
    expect(cell_of(page, 2, "self_attn.k_proj")).to_have_attribute("aria-selected", "true")
    expect(page).to_have_url(re.compile(r"sp_layers=2\+self_attn\.k_proj"))

    # Shift and Enter lay one more over it; the keyboard is still on the grid after every answer.
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Shift+Enter")
    expect(page.get_by_text("Block 3, self_attn.k_proj")).to_be_visible()
    expect(page.get_by_text("Block 2, self_attn.k_proj")).to_be_visible()

    # From the spectrum back: a click on a curve sets the cut of every layer and brings its layer to the front.
    expect(page.locator(".st-key-sp_spectrum .keys .key")).to_have_count(2)
    x, y = page.locator(".st-key-sp_spectrum path.line").first.evaluate(
        "line => { const at = line.getPointAtLength(line.getTotalLength() / 3).matrixTransform(line.getScreenCTM());"
        " return [at.x, at.y]; }"
    )
    page.mouse.click(x, y)
    expect(page).to_have_url(re.compile(r"rate=(?!20)\d+"))

    # P pins the cell under the cursor: everything is a difference to it, until it is taken back.
    cell_of(page, 0, "mlp.up_proj").click()
    expect(cell_of(page, 0, "mlp.up_proj")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("p")
    expect(page.get_by_text("difference to 0 mlp.up_proj")).to_be_visible()
    expect(page.get_by_text("lie above the reference")).to_be_visible()
    page.get_by_role("button", name="Unpin").click()
    expect(page.get_by_text("lie above the reference")).to_have_count(0)

    # What does not fit the search fades.
    page.get_by_role("textbox", name="Find a layer").fill("down_proj")
    page.keyboard.press("Enter")
    expect(page.get_by_text("4 of 28 layers fit the search")).to_be_visible()
    expect(cell_of(page, 0, "mlp.up_proj")).to_have_attribute("opacity", "0.18")


def test_a_stream_fills_the_heatmap_without_a_reload(server, open_tab):
    card = run_factory.make_card("/models/large")
    run = server.store.create(SpectraSpec(ModelRef("/models/large"), ("svd",), stream=True))
    (run.path / "card.json").write_text(json.dumps(card.to_dict()), encoding="utf-8")
    (run.path / "parts").mkdir()
    run_factory.set_state(run, "running", 1)

    def write(first: int, last: int) -> None:
        for number in range(first, last):
            np.save(run.path / "parts" / f"{number}.npy", run_factory.sigma_of(card.layers[number], "svd"))

    write(0, 3)
    page = open_tab(f"{server.url}/spectra?model=/models/large")
    filled = page.locator('[class*=st-key-sp_live] rect[data-id]:not([fill="none"])')
    expect(filled).to_have_count(3)
    write(3, 11)
    expect(filled).to_have_count(11)
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    write(11, 28)
    sigmas = {f"svd/{layer.name}": run_factory.sigma_of(layer, "svd") for layer in card.layers}
    np.savez(run.path / "spectra.npz", **sigmas)
    memory = {"working_bytes": 210e6, "largest_bytes": 100e6, "process_bytes": 500e6}
    run_factory.finish(run, {"card": card.to_dict(), "decompositions": ["svd"], "stream": memory})
    expect(page.locator(f"{GRID} rect[data-id]")).to_have_count(len(card.layers))
    expect(page.get_by_text("2.1 × the largest matrix")).to_be_visible()


def test_a_plan_by_hand(server, open_tab, tmp_path):
    page = open_tab(f"{server.url}/plans?rate=30")
    cell_of(page, 2, "mlp.down_proj", ".st-key-pl_grid").click()
    expect(page.get_by_role("heading", name="Block 2, mlp.down_proj")).to_be_visible()
    page.get_by_role("button", name="Dense", exact=True).click()
    expect(page.get_by_text("parameters too many")).to_be_visible()
    expect(page.get_by_role("button", name="Measure this plan")).to_be_disabled()
    page.get_by_role("button", name="Let the allocator spend the rest").click()
    expect(page.get_by_text("parameters free")).to_be_visible()
    expect(page.get_by_role("button", name="Measure this plan")).to_be_enabled()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    path = tmp_path / "plan.json"
    download.value.save_as(path)
    plan = json.loads(path.read_text())
    assert "model.layers.2.mlp.down_proj" in plan["dense"] and plan["keep_achieved"] <= 0.7
    assert plan["origin"]["hand"]["locked"] == ["model.layers.2.mlp.down_proj"]

    # A change, then the file comes back in: the plan is as it was, the lock included.
    page.get_by_role("button", name="Half its parameters").click()
    expect(page.get_by_text("1 locked")).to_be_visible()
    page.get_by_role("button", name="Import").click()
    page.locator('input[type="file"]').set_input_files(str(path))
    expect(page.get_by_text("Began as the file plan.json")).to_be_visible()
    page.reload()
    expect(page.get_by_text("Began as the file plan.json")).to_be_visible()
