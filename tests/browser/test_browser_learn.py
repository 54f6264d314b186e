"""The guided path as a person meets it: the slider under the pointer and the keys, the films, deep links, reloads."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from lrc_core.budget import break_even
from pages.ui.learn import picture, progress
from pages.ui.learn.quiz.questions import questions
from pages.ui.learn.steps import STEPS
from tests.browser.conftest import PATIENCE_MS

pytestmark = pytest.mark.browser
expect.set_options(timeout=PATIENCE_MS)
ALL = len(picture.RANKS)


def sentence(rank: int) -> str:
    return picture.image_sentence(rank, picture.decomposed()[1], break_even(picture.SHAPE))


def test_the_picture_follows_the_slider_and_the_step_is_remembered(start_server, open_tab):
    server = start_server()
    page = open_tab(f"{server.url}/learn")
    expect(page.get_by_role("heading", level=2).first).to_contain_text("A picture and a slider")
    slider, words = page.locator(".flipbook input[type=range]"), page.locator(".flipbook .words")
    expect(words).to_have_text(sentence(3))
    slider.focus()
    page.keyboard.press("ArrowRight")
    expect(words).to_have_text(sentence(4))
    expect(page.locator(".flipbook > svg")).to_have_attribute("aria-label", sentence(4))
    expect(page).to_have_url(re.compile(r"learn_picture=3"))
    page.reload()
    expect(words).to_have_text(sentence(4))

    box = slider.bounding_box()
    page.mouse.move(box["x"] + 4, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + box["height"] / 2, steps=4)
    expect(words).to_have_text(sentence(picture.ROWS))  # before the button is let go: no server is asked
    assert "learn_picture=3" in page.url
    page.mouse.up()
    expect(page).to_have_url(re.compile(rf"learn_picture={ALL - 1}\b"))
    page.keyboard.press("Home")
    expect(words).to_have_text(sentence(1))
    # A screen reader moves it without a pointer.
    slider.evaluate("slider => { slider.stepUp(); slider.dispatchEvent(new Event('input')); }")
    expect(words).to_have_text(sentence(2))

    page.get_by_role("button", name="On: a weight").click()
    expect(page).to_have_url(re.compile(r"learn_step=2"))
    expect(page.get_by_text("energy of W, ").first).to_be_visible()
    again = page.context.new_page()
    again.goto(f"{server.url}/learn")
    expect(again.get_by_role("heading", level=2).first).to_contain_text("real weight matrix")
    expect(again.get_by_role("button", name="1 · A picture").get_by_test_id("stIconMaterial")).to_be_visible()


def test_a_reload_remembers_the_answers_and_another_browser_does_not(server, open_tab):
    page = open_tab(f"{server.url}/learn?learn_step=8")
    page.get_by_test_id("stRadio").first.get_by_text("500", exact=True).click()
    expect(page.get_by_text("1 of 5 answered.")).to_be_visible()
    page.wait_for_function("document.cookie.includes('lrc_learn') && document.cookie.includes('answers')")
    page.reload()
    expect(page.get_by_text("1 of 5 answered.")).to_be_visible()
    expect(page.get_by_role("radio", name="500", exact=True)).to_be_checked()

    other = open_tab(f"{server.url}/learn?learn_step=8")
    expect(other.get_by_text("0 of 5 answered.")).to_be_visible()
    # Those of the quiz: choices of a size are radio buttons too, where the runs of other tests are told of.
    expect(other.get_by_test_id("stRadio").get_by_role("radio", checked=True)).to_have_count(0)
    page.get_by_role("button", name="Start over").click()
    page.get_by_role("button", name="Forget them").click()
    expect(page.get_by_role("heading", level=2).first).to_contain_text("1 ·")
    page.wait_for_function("!document.cookie.includes('answers')")


def test_the_slider_stands_where_the_curve_is_cut(server, open_tab):
    page = open_tab(f"{server.url}/learn?learn_step=1&learn_picture=22")
    slider, curve = page.locator(".flipbook input[type=range]"), page.locator(".flipbook .frame line").last
    panel = picture.SpectrumPanel(picture.decomposed()[1], break_even(picture.SHAPE), 40, 254, 800, 104)
    for at in (22, 23):
        expect(page.locator(".flipbook .words")).to_have_text(sentence(picture.RANKS[at]))
        share = float(slider.input_value()) / float(slider.get_attribute("max"))
        assert share == pytest.approx((float(curve.get_attribute("x1")) - panel.left) / panel.width, abs=0.01)
        slider.press("ArrowRight")


def test_two_buttons_never_have_one_name_and_their_signs_are_drawn(server, open_tab):
    page = open_tab(f"{server.url}/learn?learn_step=2")
    book = page.locator(".flipbook")
    for names in (["Play backwards", "Play"], ["Play backwards", "Pause"]):
        expect(book.get_by_role("button")).to_have_text(names)
        expect(book.locator("button svg")).to_have_count(2)
        book.get_by_role("button").last.click()
    expect(page.get_by_role("button", name=re.compile("Back$"))).to_have_count(1)


def test_every_step_opens_at_its_top(server, open_tab):
    """On a wide and on a narrow screen in turn."""
    page = open_tab(f"{server.url}/learn?learn_step=1", width=1280, height=900)
    main = page.get_by_test_id("stMain")
    for number in range(1, 8):
        button = page.get_by_role("button", name=f"On: {STEPS[number].short.lower()}")
        button.wait_for()  # the end of this step is drawn
        page.set_viewport_size({"width": 600 if number % 2 else 1280, "height": 900})
        main.evaluate("main => main.scrollTo(0, main.scrollHeight)")
        button.press("Enter")  # a chart that comes late may move it away from the pointer
        title = page.get_by_role("heading", level=2).first
        expect(title).to_contain_text(f"{number + 1} · ")
        expect(title).to_be_in_viewport()
        page.wait_for_timeout(600)  # what is drawn late must not push it away
        assert main.evaluate("main => main.scrollTop") == 0


def test_a_step_fills_the_screen_with_its_slider_and_is_turned_by_a_clicker(server, open_tab):
    page = open_tab(f"{server.url}/learn?learn_step=1", width=1280, height=800)
    page.get_by_role("button", name="Present this step").click()
    slider = page.locator(".flipbook input[type=range]")
    expect(page.get_by_role("heading", level=1)).to_have_text("A picture and a slider")
    expect(page.get_by_test_id("stSidebar")).to_be_hidden()
    expect(slider).to_be_in_viewport(ratio=0.99)
    expect(page.locator(".flipbook > svg")).to_be_in_viewport(ratio=0.99)
    page.get_by_role("button", name="Full screen").click(timeout=20_000)
    page.wait_for_function("document.fullscreenElement !== null")
    page.keyboard.press("PageDown")
    expect(page.get_by_role("heading", level=1)).to_contain_text("real weight matrix")
    expect(slider.last).to_be_in_viewport(ratio=0.99)  # for a moment the step before is there as well
    page.locator(".st-key-learn_show_leave button").click(timeout=20_000)
    expect(page.get_by_role("heading", level=1)).to_have_text("Learn")
    expect(page.get_by_test_id("stSidebar")).to_be_visible()


def test_the_mask_is_played_forward_and_back_and_forces_are_switched_off(server, open_tab):
    page = open_tab(f"{server.url}/learn?learn_step=7&learn_mask=170", dark=True, width=600)
    output = page.locator(".flipbook output")
    expect(output).to_have_text("171 of 180")
    page.get_by_role("button", name="Play", exact=True).click()
    expect(output).to_have_text("180 of 180")
    expect(page).to_have_url(re.compile(r"learn_mask=179"))
    page.get_by_role("button", name="Play backwards").click()
    expect(output).to_have_text(re.compile(r"17\d of 180"))
    page.get_by_role("button", name="Pause").click()
    stopped = output.text_content()
    page.get_by_role("button", name="Distillation: like the dense layer").click()
    expect(page.get_by_text("Nothing said which ones matter")).to_be_visible()
    expect(output).to_have_text(stopped)  # another film, the same step
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0


def test_a_click_on_the_map_chooses_the_text(server, open_tab):
    page = open_tab(f"{server.url}/learn?learn_step=5")
    cells = ".st-key-learn_map rect[data-id]"
    expect(page.locator(cells)).to_have_count(210)
    expect(page.get_by_text("Only block 0, mlp.up_proj at rank")).to_be_visible()
    page.locator(f'{cells}[data-id="model.layers.0.mlp.down_proj"]').click()
    expect(page.get_by_text("Only block 0, mlp.down_proj at rank")).to_be_visible()
    page.locator(f'{cells}[data-id="model.layers.20.self_attn.q_proj"]').click()
    expect(page.get_by_text("No text is recorded for")).to_be_visible()


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (600, True)])
def test_checked_answers_are_followed_by_what_was_right(server, open_tab, width, dark):
    """It lies below the button that was pressed, and the button at the fold."""
    page = open_tab(f"{server.url}/learn?learn_step=8", width=width, height=800, dark=dark)
    for number, question in enumerate(questions()):
        options = page.locator(f".st-key-learn_answer_{number} label").filter(has=page.locator("input"))
        options.nth(question.right).click()
        expect(options.nth(question.right).locator("input")).to_be_checked()
    page.locator(".st-key-learn_check button").click()
    verdict = page.locator(f".st-key-{progress.VERDICT}")
    expect(verdict.get_by_test_id("stAlert")).to_be_in_viewport(ratio=1)
    expect(verdict.get_by_text(questions()[0].why[:30])).to_be_in_viewport(ratio=1)
    bar = page.get_by_test_id("stHeader").bounding_box()
    assert verdict.bounding_box()["y"] >= bar["y"] + bar["height"]  # not under the page's own bar
