"""What only a real browser can show: clicks on the heatmap, the slider, deep links, themes, reloads."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import LEARNS, PATIENCE_MS
from tests.factories import run_factory

pytestmark = pytest.mark.browser
expect.set_options(timeout=PATIENCE_MS)

CARD = run_factory.make_card()
PAGES = {
    "": "Low-rank compression explorer",
    "spectra?sp_layers=2+self_attn.k_proj&sp_measure=Stable+rank": "Spectra",
    f"allocate?rate=31&{LEARNS}": "Allocate",
    "watch?wa_run=allocate-nothing": "Watch it learn",
    "compare?co_view=Zero-shot": "Compare",
    "runs": "Runs",
}
SHOWN = {
    "": "SmolLM2-135M",
    "spectra?sp_layers=2+self_attn.k_proj&sp_measure=Stable+rank": "Block 2, self_attn.k_proj",
    f"allocate?rate=31&{LEARNS}": "nearest recorded rate to 31 %",
    "watch?wa_run=allocate-nothing": "Parameters kept by each layer",
    "compare?co_view=Zero-shot": "items per task",
    "runs": "Starter pack",
}


def job_panel(page):
    """The panel of the job that the page watches."""
    return page.locator("[class*=st-key-job_]").first


def test_click_on_a_cell_selects_the_layer(server, open_tab):
    page = open_tab(f"{server.url}/spectra")
    targets = page.locator(".st-key-sp_heatmap rect[data-id]")
    expect(targets).to_have_count(len(CARD.layers))
    index = next(
        number for number, layer in enumerate(CARD.layers) if (layer.block, layer.kind) == (3, "mlp.down_proj")
    )
    box = targets.nth(index).bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.get_by_text("Block 3, mlp.down_proj")).to_be_visible()
    expect(page).to_have_url(re.compile(r"sp_layers=3\+mlp\.down_proj"))


@pytest.mark.parametrize("path", list(PAGES))
def test_deep_link_on_a_fresh_server(start_server, open_tab, path):
    page = open_tab(f"{start_server().url}/{path}")
    expect(page.get_by_role("heading", level=1)).to_have_text(PAGES[path])
    expect(page.get_by_text(SHOWN[path]).first).to_be_visible()


@pytest.mark.parametrize(("width", "dark"), [(1360, False), (420, True)])
def test_both_themes_and_both_widths(server, open_tab, width, dark):
    page = open_tab(f"{server.url}/spectra", dark=dark, width=width)
    expect(page.locator(".st-key-sp_heatmap rect[data-id]")).to_have_count(len(CARD.layers))
    colour = page.evaluate("getComputedStyle(document.querySelector('[data-testid=\"stApp\"]')).backgroundColor")
    assert colour == ("rgb(18, 24, 26)" if dark else "rgb(252, 252, 250)")
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0


def test_a_job_survives_a_reload_and_its_end_is_seen(server, open_tab):
    page = open_tab(f"{server.url}/allocate?rate=15&{LEARNS}")
    page.get_by_role("button", name="Learn ranks at 15 %").click()
    expect(page.get_by_text("Parameters kept by each layer")).to_be_visible()
    expect(page).to_have_url(re.compile(r"al_run=allocate-"))
    page.reload()
    expect(page.get_by_text("Parameters kept by each layer")).to_be_visible()
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    page.get_by_role("link", name="Runs").click()
    expect(page.get_by_text("1 running")).to_be_visible()
    page.get_by_role("link", name="Allocate", exact=True).click()
    expect(page).to_have_url(re.compile(r"al_run=allocate-"))
    (server.runs / "go").touch()
    expect(job_panel(page)).to_contain_text("Finished")
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    (server.runs / "go").unlink()


def test_cancel_and_resume(server, open_tab):
    page = open_tab(f"{server.url}/allocate?rate=16&{LEARNS}")
    page.get_by_role("button", name="Learn ranks at 16 %").click()
    page.get_by_role("button", name="Cancel").click()
    expect(job_panel(page)).to_contain_text("Cancelled")
    (server.runs / "go").touch()
    page.get_by_role("button", name="Resume").click()
    expect(job_panel(page)).to_contain_text("Finished")
    (server.runs / "go").unlink()


@pytest.mark.parametrize("way", ["Watch", "Compare"])
def test_the_browsers_way_back_finds_the_form_as_it_was(server, open_tab, way):
    """Once back, however much the page that was left and the one that was opened write into their addresses."""
    page = open_tab(f"{server.url}/allocate")
    first = page.locator(".st-key-al_decomposition button").first
    expect(first).to_have_attribute("aria-checked", "false")
    first.click()
    expect(first).to_have_attribute("aria-checked", "true")
    expect(page).to_have_url(re.compile("al_decomposition="))
    set_to = page.url
    page.get_by_test_id("stSidebar").get_by_text(way, exact=True).click()
    expect(page).to_have_url(re.compile(f"/{way.lower()}"))
    expect(page.get_by_role("heading", level=1)).to_contain_text(way)
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
    page.go_back()
    expect(page).to_have_url(set_to)
    expect(first).to_have_attribute("aria-checked", "true")
