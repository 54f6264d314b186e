"""The compression slider under the pointer, the keys and a finger: it draws alone, and tells the server at the end."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from lrc_core.budget import layer_ratio
from lrc_core.words import count, data_size
from tests.browser import timings
from tests.browser.conftest import LEARNS, PATIENCE_MS
from tests.factories import run_factory

pytestmark = pytest.mark.browser
expect.set_options(timeout=PATIENCE_MS)

CARD = run_factory.make_card()
LEARNED = ".panel.learned [data-cell]"


def spot(slider, rate: int) -> tuple[float, float]:
    """Where the middle of the thumb is at a rate."""
    box, thumb = slider.bounding_box(), 22
    return box["x"] + thumb / 2 + (rate - 1) / 79 * (box["width"] - thumb), box["y"] + box["height"] / 2


def total(rate: int) -> int:
    return CARD.params_total - round(rate / 100 * CARD.params_linear)


def colors(page, panel: str) -> list[str]:
    cells = page.locator(f".panel.{panel} [data-cell]")
    return cells.evaluate_all("cells => cells.map((cell) => cell.style.backgroundColor)")


def never_start(page) -> None:
    """That a job starts by itself is off until it is switched on."""
    expect(page.get_by_role("switch", name="Start when the slider stops")).not_to_be_checked()
    page.wait_for_function("document.querySelector('[data-testid=stApp]').dataset.testScriptState === 'notRunning'")


def test_the_slider_draws_while_it_is_dragged_and_tells_the_server_when_it_is_let_go(server, browser):
    context = browser.new_context(viewport={"width": 1280, "height": 1900})  # all of the page, so that nothing scrolls
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    sent: list[object] = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(frame)))
    page.goto(f"{server.url}/allocate?{LEARNS}")
    slider = page.get_by_role("slider", name="Compression")
    expect(slider).to_have_value("20")
    expect(page.locator(LEARNED)).to_have_count(len(CARD.layers))
    never_start(page)
    before, messages = colors(page, "learned"), len(sent)

    page.mouse.move(*spot(slider, 20))
    page.mouse.down()
    for rate in (22, 25, 28):
        page.mouse.move(*spot(slider, rate))
        drag = page.locator(".ratedrag")
        expect(drag.get_by_role("spinbutton")).to_have_value(str(rate))
        expect(drag.get_by_text(count(total(rate)), exact=True)).to_be_visible()
        expect(drag.get_by_text(data_size(2 * total(rate)), exact=True)).to_be_visible()
        expect(drag.locator(".learned").get_by_text(f"recorded at {rate} %")).to_be_visible()
    assert colors(page, "learned") != before
    assert len(sent) == messages and "rate=" not in page.url, "nothing is asked while it is dragged"
    said = slider.get_attribute("aria-valuetext")
    assert "28 % removed" in said and f"{count(total(28))} parameters" in said and "layers dense" in said

    # The colour of a cell is that of its share in the plan that is named: two of the same share look the same.
    ranks = run_factory.plan_at(CARD, 0.72).full_ranks(CARD.layers)
    shares = [round(layer_ratio(layer, ranks[layer.name]), 9) for layer in CARD.layers]
    by_color = dict(zip(colors(page, "learned"), shares, strict=True))
    assert all(
        abs(by_color[color] - share) < 0.01 for color, share in zip(colors(page, "learned"), shares, strict=True)
    )

    page.mouse.up()
    expect(page).to_have_url(re.compile(r"rate=28"))
    expect(page.get_by_role("button", name="Learn ranks at 28 %")).to_be_visible()
    expect(page.get_by_role("button", name="Plan at 28 %")).to_be_visible()
    expect(slider).to_have_value("28")
    context.close()


def test_keys_and_a_typed_number_move_it_and_other_pages_know_it(server, open_tab):
    page = open_tab(f"{server.url}/allocate?rate=28&{LEARNS}", height=1900)
    slider = page.get_by_role("slider", name="Compression")
    expect(slider).to_have_value("28")
    never_start(page)
    # Keys draw at once and tell the server once they rest; a typed number moves the slider.
    slider.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    exact = page.get_by_role("spinbutton", name="Compression, %")
    expect(exact).to_have_value("30")
    expect(page).to_have_url(re.compile(r"rate=30"))
    page.keyboard.press("End")
    expect(page).to_have_url(re.compile(r"rate=80"))
    expect(page.get_by_text("The nearest recorded rate to 80 %.")).to_be_visible()
    expect(page.get_by_text(re.compile(r"^layers of LLRC in its nearest plan, at \d+ %$"))).to_be_visible()
    page.keyboard.press("Home")
    expect(page).to_have_url(re.compile(r"rate=1\b"))
    page.keyboard.press("PageUp")
    expect(exact).not_to_have_value("1")
    exact.fill("17")  # while the server is still being told what the keys came to: what is typed last holds
    exact.press("Enter")
    expect(slider).to_have_value("17")
    expect(page).to_have_url(re.compile(r"rate=17\b"))
    expect(page.get_by_role("button", name="Learn ranks at 17 %")).to_be_visible()

    # The other pages' sliders and the link know it.
    page.locator('[data-testid="stSidebar"]').get_by_role("link", name="Plans", exact=True).click()
    expect(exact).to_have_count(0)  # Allocate's own slider, of the same name, is gone
    expect(page.get_by_role("slider", name="Compression")).to_have_value("17")
    page.get_by_role("slider", name="Compression").press("ArrowRight")
    expect(page).to_have_url(re.compile(r"rate=18\b"))
    page.locator('[data-testid="stSidebar"]').get_by_role("link", name="Allocate", exact=True).click()
    expect(exact).to_have_value("18")
    expect(page).to_have_url(re.compile(r"rate=18\b"))
    page.reload()
    expect(exact).to_have_value("18")


def test_what_is_typed_and_is_no_rate_is_set_right(server, open_tab):
    page = open_tab(f"{server.url}/allocate?rate=28&{LEARNS}", height=1900)
    exact, slider = (
        page.get_by_role("spinbutton", name="Compression, %"),
        page.get_by_role("slider", name="Compression"),
    )
    expect(exact).to_have_value("28")
    never_start(page)
    for typed, meant in (("", "28"), ("400", "80"), ("0", "80"), ("12.4", "12")):
        exact.fill(typed)
        exact.press("Enter")
        expect(exact).to_have_value(meant)
        expect(slider).to_have_value(meant)
        expect(page).to_have_url(re.compile(rf"rate={meant}\b"))


def test_an_answer_to_what_came_before_does_not_undo_what_is_typed(server, browser):
    """A server that is slow answers the keys when a number is already typed."""
    context = browser.new_context(viewport={"width": 1280, "height": 1900})
    context.set_default_timeout(PATIENCE_MS)
    page, answers, slow = context.new_page(), [], []

    def between(socket):
        behind = socket.connect_to_server()
        behind.on_message(lambda message: answers.append((socket, message)) if slow else socket.send(message))

    page.route_web_socket("**/_stcore/stream", between)
    page.goto(f"{server.url}/allocate?rate=28&{LEARNS}")
    slider, exact = (
        page.get_by_role("slider", name="Compression"),
        page.get_by_role("spinbutton", name="Compression, %"),
    )
    expect(slider).to_have_value("28")
    never_start(page)
    slow.append(True)
    slider.press("Home")
    expect(exact).to_have_value("1")
    exact.fill("1")  # leaving the slider tells the server where it stands
    while not answers:
        page.wait_for_timeout(50)
    exact.press("End")
    exact.press("7")
    page.wait_for_timeout(500)
    slow.clear()
    for socket, message in answers:
        socket.send(message)
    expect(page).to_have_url(re.compile(r"rate=1\b"))
    expect(exact).to_have_value("17")
    exact.press("Enter")
    expect(slider).to_have_value("17")
    expect(page).to_have_url(re.compile(r"rate=17\b"))
    context.close()


def test_a_finger_moves_it_on_a_narrow_screen(server, browser):
    context = browser.new_context(viewport={"width": 420, "height": 900}, has_touch=True, color_scheme="dark")
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto(f"{server.url}/allocate?rate=12&{LEARNS}")
    slider = page.get_by_role("slider", name="Compression")
    expect(slider).to_have_value("12")
    never_start(page)
    slider.evaluate("slider => slider.scrollIntoView({ block: 'center' })")
    page.touchscreen.tap(*spot(slider, 40))
    expect(page).to_have_url(re.compile(r"rate=(39|40|41)\b"))
    expect(page.get_by_text("nearest recorded rate to").first).to_be_visible()
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0
    context.close()


def test_the_measuring_script_measures(server, browser):
    page = timings.prepared(browser, server.url)
    timings.switch(page, "allocate")
    never_start(page)  # holds for the tab
    timings.switch(page, "home")
    assert len(timings.drag(page, 25)) > 10
    assert {name for name, taken in timings.switches(page, 1, warm_up=False).items() if taken} == set(timings.PAGES)
    (clicked,) = timings.clicks(page, 1)
    assert 0 < clicked["drawn"] <= clicked["idle"]
    page.context.close()


def test_the_report_says_which_promise_is_kept():
    measures = {"drag to drawn": timings.summary([10.0] * 99 + [400.0], 150), "slow": timings.summary([600.0], 500)}
    text = timings.report({"measures": measures, "load_before": 0.1, "load_after": 0.2, "cores": 2})
    assert "150 ms: kept" in text and "500 ms: NOT KEPT" in text and "0.2 after" in text
