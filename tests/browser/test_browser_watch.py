"""A training run in a real browser: drawn in place while it learns, played, scrubbed, and played from disk."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict

import pytest
from playwright.sync_api import expect

from lrc_core.budget import layer_ratio
from lrc_core.runs.spec import AllocateSpec, ModelRef
from tests.browser.conftest import PATIENCE_MS, ROOT
from tests.factories import run_factory

pytestmark = pytest.mark.browser
expect.set_options(timeout=PATIENCE_MS)

CARD = run_factory.make_card()
MIDDLE = run_factory.STEPS // 2


@pytest.fixture
def learning(server):
    """A run under way, as if a worker of this process were half through."""
    run = run_factory.allocate_run(server.store, CARD, keep=0.55, state="running")
    yield run
    run_factory.finish(run, {"warnings": []})


@pytest.fixture
def finished(server):
    spec = AllocateSpec(model=ModelRef("starter"), method="llrc", keep=0.7)
    return server.store.open(spec.run_id)


def drag(page, chart, start: float, end: float) -> None:
    """Draw a band over a chart, from one share of its width to another."""
    box = chart.bounding_box()
    height = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + start * box["width"], height)
    page.mouse.down()
    page.mouse.move(box["x"] + end * box["width"], height, steps=4)
    page.mouse.up()


def color(page, cell: int) -> str:
    return page.locator(f".film [data-cell='{cell}']").evaluate("cell => cell.style.backgroundColor")


def test_ticks_are_drawn_in_place_and_zoom_and_place_are_kept(server, open_tab, learning):
    page = open_tab(f"{server.url}/watch?wa_run={learning.id}")
    film = page.locator(".film")
    expect(film).to_have_attribute("data-step", str(MIDDLE))
    loss = film.locator(".chart-loss svg.plot")
    loss.evaluate("chart => { chart.seen = true; }")  # a chart that is made anew would not remember
    loss.scroll_into_view_if_needed()
    drag(page, loss, 0.3, 0.6)
    expect(film).to_have_attribute("data-zoom", re.compile(r"\d"))
    zoom, line = film.get_attribute("data-zoom"), loss.locator("path").last.get_attribute("d")

    run_factory.train(learning, CARD, 0.55, MIDDLE + 5, first=MIDDLE + 1)
    run_factory.set_state(learning, "running", MIDDLE + 5)
    expect(film).to_have_attribute("data-step", str(MIDDLE + 5))
    assert film.get_attribute("data-zoom") == zoom
    assert loss.evaluate("chart => chart.seen === true")
    assert film.locator(".ranks").get_by_text(f"step {MIDDLE + 5}", exact=True).count() == 1

    drag(page, loss, 0.5, 0.5)  # a click: look at that step, and stay there while more arrive
    stayed = film.get_attribute("data-step")
    assert int(stayed) < MIDDLE
    run_factory.train(learning, CARD, 0.55, MIDDLE + 10, first=MIDDLE + 6)
    run_factory.set_state(learning, "running", MIDDLE + 10)
    expect(film.locator(".scrub")).to_have_attribute("max", str(MIDDLE + 10))
    assert film.get_attribute("data-step") == stayed
    film.get_by_role("button", name="Latest step").click()
    expect(film).to_have_attribute("data-step", str(MIDDLE + 10))
    film.get_by_role("button", name="Show all steps").click()
    expect(film).to_have_attribute("data-zoom", "")
    assert loss.locator("path").last.get_attribute("d") != line


def test_a_finished_run_plays_and_is_scrubbed_without_the_server(server, open_tab, finished):
    page = open_tab(f"{server.url}/watch?wa_run={finished.id}")
    film = page.locator(".film")
    last = str(run_factory.STEPS)
    expect(film).to_have_attribute("data-step", last)
    expect(film.get_by_text("Not recorded by this run.")).to_have_count(0)  # entropy: the records are older
    sent: list[object] = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(frame)))
    page.reload()
    expect(film).to_have_attribute("data-step", last)
    expect(page.get_by_role("button", name="Film as GIF")).to_be_visible()
    page.wait_for_load_state("networkidle")
    assert sent  # the page itself talks to the server
    sent.clear()
    page.on("request", lambda request: sent.append(request.url))
    scrub = film.get_by_role("slider", name="Step")
    scrub.focus()
    page.keyboard.press("Home")
    expect(film).to_have_attribute("data-step", "1")
    first = [color(page, cell) for cell in range(len(CARD.layers))]
    film.get_by_role("combobox", name="Speed").select_option("4 ×")
    film.get_by_role("button", name="Play").click()
    expect(film.get_by_role("button", name="Pause")).to_be_visible()
    expect(film).to_have_attribute("data-step", last)
    expect(film.get_by_role("button", name="Play")).to_be_visible()
    assert [color(page, cell) for cell in range(len(CARD.layers))] != first

    grid = film.locator(".ranks .grid")
    grid.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(film.locator(".ranks .tip")).to_contain_text("Block 1, q_proj: rank")
    film.get_by_text("The figures as tables").click()
    expect(film.locator("table").last.locator("tbody tr")).to_have_count(len(CARD.layers))
    assert not sent


def test_the_exported_film_plays_from_disk_with_no_network(server, open_tab, browser, finished, tmp_path):
    page = open_tab(f"{server.url}/watch?wa_run={finished.id}")
    with page.expect_download() as download:
        page.get_by_role("button", name="Film as HTML").click()
    from_page = tmp_path / "page.html"
    download.value.save_as(from_page)
    from_line = tmp_path / "line.html"
    command = [sys.executable, "-m", "lrc_core.cli", "runs", "film", str(finished.path), "--html", str(from_line)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=PATIENCE_MS / 1000, capture_output=True)
    assert from_page.read_bytes() == from_line.read_bytes()

    context = browser.new_context(offline=True, viewport={"width": 700, "height": 900}, color_scheme="dark")
    context.set_default_timeout(PATIENCE_MS)
    alone = context.new_page()
    wrong, asked = [], []
    alone.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    alone.on("pageerror", lambda error: wrong.append(str(error)))
    alone.on("request", lambda request: asked.append(request.url))
    alone.goto(from_page.as_uri())
    film = alone.locator(".film")
    expect(film).to_have_attribute("data-step", str(run_factory.STEPS))
    expect(alone.get_by_role("heading", level=1)).to_have_text("LLRC to 30 % compression")
    film.get_by_role("slider", name="Step").focus()
    alone.keyboard.press("Home")
    expect(film).to_have_attribute("data-step", "1")
    film.get_by_role("combobox", name="Speed").select_option("4 ×")
    film.get_by_role("button", name="Play").click()
    expect(film).to_have_attribute("data-step", str(run_factory.STEPS))
    overflow = alone.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    context.close()
    assert (wrong, asked, overflow <= 0) == ([], [from_page.as_uri()], True)


def test_the_sentence_weighs_layers_by_their_parameters(server, open_tab, finished):
    page = open_tab(f"{server.url}/watch?wa_run={finished.id}")
    film = page.locator(".film")
    expect(film).to_have_attribute("data-step", str(run_factory.STEPS))
    ranks = json.loads((finished.path / "ranks.jsonl").read_text().splitlines()[-1])["ranks"]
    kept: dict[int, float] = defaultdict(float)
    total: dict[int, int] = defaultdict(int)
    for layer, rank in zip(CARD.layers, ranks, strict=True):
        kept[layer.block] += layer_ratio(layer, rank) * layer.params
        total[layer.block] += layer.params
    shares = {block: kept[block] / total[block] for block in total}
    least, most = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
    percents = {block: f"{round(100 * share, 1):g} %" for block, share in shares.items()}
    expect(film.locator(".ranks .reading")).to_contain_text(
        f"block {most} keeps most ({percents[most]}), block {least} least ({percents[least]})"
    )


def test_a_second_run_is_drawn_over_the_first_map_beside_map(server, open_tab, finished):
    other = run_factory.allocate_run(server.store, CARD, keep=0.5)
    page = open_tab(f"{server.url}/watch?wa_run={finished.id}&wa_over={other.id}")
    film = page.locator(".film")
    expect(film.locator(".ranks:visible")).to_have_count(2)
    expect(film.locator(".runs")).to_be_visible()
    line = film.locator('[data-key="removed"] [data-over="removed"]')
    expect(line).to_have_count(2)  # what is ahead, and what has been
    whole = line.last.get_attribute("d")
    film.locator(".scrub").fill("2")
    expect(line.last).not_to_have_attribute("d", whole or "")
    maps = film.locator(".ranks")
    maps.nth(1).locator("[data-cell]").first.hover()
    assert "rank" in (maps.nth(1).locator(".tip").text_content() or "")
    page.goto(f"{server.url}/watch?wa_run={finished.id}")
    expect(page.locator(".film .ranks:visible")).to_have_count(1)
