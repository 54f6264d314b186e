"""The presenter in a real browser: keys, touch, deep links, full screen, leaving."""

from __future__ import annotations

import re
import tomllib

import pytest
from playwright.sync_api import expect

from lrc_core.paths import app_home
from tests.browser.conftest import PATIENCE_MS
from tests.browser.views import shipped

pytestmark = pytest.mark.browser
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def samples():
    """The app on the shipped runs, whose slides are the longest there are."""
    with shipped() as server:
        yield server


def slide(page) -> int:
    return int(page.locator(".deck").get_attribute("data-slide"))


def test_keys_turn_the_pages_and_the_url_follows(server, open_tab):
    page = open_tab(f"{server.url}/compare")
    expect(page.get_by_role("button", name="Present")).to_be_visible()
    page.keyboard.press("Alt+p")  # from any page
    deck = page.locator(".deck")
    expect(deck).to_have_attribute("data-slide", "1")
    expect(page.locator("[data-testid=stSidebar]")).to_be_hidden()
    expect(page.locator("[data-testid=stSidebar] :is(a, p)")).to_have_count(0)
    last = page.locator(".deck .slide").count()
    steps = [
        ("ArrowRight", 2),
        ("Space", 3),
        ("PageDown", 4),
        ("ArrowLeft", 3),
        ("PageUp", 2),
        ("End", last),
        ("Home", 1),
    ]
    for key, number in steps:
        page.keyboard.press(key)
        expect(deck).to_have_attribute("data-slide", str(number))
        expect(page).to_have_url(re.compile(rf"pr_slide={number}\b"))
    page.keyboard.press("ArrowLeft")
    assert slide(page) == 1
    notes = page.locator(".deck > .notes")
    expect(notes).to_be_hidden()
    page.keyboard.press("n")
    expect(notes).to_be_visible()
    page.keyboard.press("n")
    printed = page.pdf(prefer_css_page_size=True, print_background=True)
    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", printed)) == last, "a page for every slide"
    expect(page.locator(".deck .slide:not([hidden])")).to_have_count(1)
    page.keyboard.press("f")
    page.wait_for_function("document.fullscreenElement !== null")
    page.keyboard.press("f")
    page.wait_for_function("document.fullscreenElement === null")
    page.keyboard.press("Escape")
    expect(page.get_by_role("heading", level=1)).to_have_text("Compare")
    expect(page).not_to_have_url(re.compile("pr_"))


@pytest.mark.parametrize(("width", "height", "dark"), [(1280, 720, False), (600, 900, True)])
def test_a_link_opens_its_slide_and_everything_fits(server, open_tab, width, height, dark):
    page = open_tab(f"{server.url}/present?pr_slide=3", dark=dark, width=width, height=height)
    deck = page.locator(".deck")
    expect(deck).to_have_attribute("data-slide", "3")
    box = deck.bounding_box()
    assert (box["x"], box["y"], box["width"], box["height"]) == (0, 0, width, height)
    covered = f"document.elementFromPoint({width - 30}, 20).closest('[data-testid=stHeader]') === null"
    assert page.evaluate(covered), "Streamlit's toolbar lies above the slides"
    for _ in range(page.locator(".deck .slide").count()):
        shown = page.locator(".deck .slide:not([hidden])")
        wide = shown.evaluate("section => section.scrollWidth - section.clientWidth")
        assert wide <= 0, shown.get_attribute("aria-label")
        size = shown.locator("h1").evaluate("title => parseFloat(getComputedStyle(title).fontSize)")
        assert size >= (40 if width > 1000 else 26)
        page.keyboard.press("ArrowRight")


def test_the_film_plays_and_touch_turns_the_page(server, browser):
    context = browser.new_context(viewport={"width": 600, "height": 900}, has_touch=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(f"{server.url}/present")
    deck = page.locator(".deck")
    expect(deck).to_have_attribute("data-slide", "1")
    swipe = """(deck) => {
      const touch = (x) => new Touch({ identifier: 1, target: deck, clientX: x, clientY: 300 });
      const stage = deck.querySelector('.stage-of-slides');
      stage.dispatchEvent(new TouchEvent('touchstart', { touches: [touch(400)], bubbles: true, composed: true }));
      stage.dispatchEvent(new TouchEvent('touchend', { changedTouches: [touch(200)], bubbles: true, composed: true }));
    }"""
    deck.evaluate(swipe)
    expect(deck).to_have_attribute("data-slide", "2")
    while page.locator(".deck .slide-film[hidden]").count():
        page.keyboard.press("ArrowRight")
    film = page.locator(".deck .slide-film div.film")
    film.get_by_label("Step", exact=True).focus()
    page.keyboard.press("Home")  # the film's own slider has its keys for itself
    first = film.get_attribute("data-step")
    assert page.locator(".deck .slide-film[hidden]").count() == 0
    film.get_by_role("button", name="Play").click()
    expect(film).not_to_have_attribute("data-step", first)
    context.close()


@pytest.mark.parametrize(("width", "height", "dark"), [(1280, 720, False), (1280, 900, True), (1920, 1080, False)])
def test_no_slide_holds_more_than_its_screen(samples, open_tab, width, height, dark):
    page = open_tab(f"{samples.url}/present", dark=dark, width=width, height=height)
    expect(page.locator(".deck")).to_have_attribute("data-slide", "1")
    for number in range(1, page.locator(".deck .slide").count() + 1):
        expect(page.locator(".deck")).to_have_attribute("data-slide", str(number))
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        shown = page.locator(".deck .slide:not([hidden])")
        more = shown.evaluate("section => section.scrollHeight - section.clientHeight")
        assert more <= 0, f"{shown.get_attribute('aria-label')} needs {more} more pixels"
        for size in shown.locator(".terms").evaluate_all(
            "all => all.map((one) => parseFloat(getComputedStyle(one).fontSize))"
        ):
            assert size >= 16, "meanings can be read from the back of a room"
        page.keyboard.press("ArrowRight")


def test_charts_beside_each_other_begin_at_one_height(samples, open_tab):
    page = open_tab(f"{samples.url}/present?pr_slide=6", width=1280, height=720)
    rows = page.locator(".deck .slide-comparison .bars .rows")
    expect(rows.first).to_be_visible()
    tops = {round(rows.nth(number).bounding_box()["y"]) for number in range(rows.count())}
    assert rows.count() == 2 and len(tops) == 1
    for caption in page.locator(".deck .bars figcaption").all():
        title, note = caption.locator("b").bounding_box(), caption.locator("span").bounding_box()
        assert note["y"] >= title["y"] + title["height"] - 1


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (1920, 1080)])
def test_the_film_of_a_slide_can_be_read(samples, open_tab, width, height):
    page = open_tab(f"{samples.url}/present?pr_slide=4", width=width, height=height)
    film = page.locator(".deck .slide-film")
    expect(film.locator(".kind").first).to_be_visible()
    assert not film.evaluate("""slide => [...slide.querySelectorAll('.kind')]
      .filter((kind) => kind.scrollWidth > kind.clientWidth).map((kind) => kind.textContent)""")
    apart = """slide => [...slide.querySelectorAll('svg.plot')].filter((plot) => plot.clientHeight).map((plot) => {
      const axis = plot.querySelector('text.axis').getBoundingClientRect();
      const labels = [...plot.querySelectorAll('text[text-anchor=end]:not(.axis)')];
      const low = Math.max(...labels.map((text) => text.getBoundingClientRect().bottom));
      return [parseFloat(getComputedStyle(plot).fontSize), axis.bottom - low];
    })"""
    for size, gap in film.evaluate(apart):
        assert size >= 0.01 * width
        assert gap > 0.9 * size, "the name of the axis touches its lowest label"


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (1920, 1080)])
def test_the_decision_picture_has_the_room_of_its_slide(samples, open_tab, width, height):
    page = open_tab(f"{samples.url}/present?pr_slide=8", width=width, height=height)
    slide = page.locator(".deck .slide-decision")
    picture = slide.locator(".decision > svg")
    expect(picture).to_be_visible()
    assert picture.bounding_box()["height"] > 0.55 * height
    assert slide.evaluate("section => section.scrollHeight - section.clientHeight") <= 0
    label = picture.locator("text").first.bounding_box()["height"]
    assert label >= 0.01 * width, "its labels can be read from the back of a room"


@pytest.mark.parametrize("leave", ["Escape", "back"])
def test_leaving_returns_to_what_was_chosen(samples, open_tab, leave):
    page = open_tab(f"{samples.url}/compare?co_rate=30+%25&co_view=Zero-shot")
    link = page.get_by_role("link", name="Present it, at 30 %")
    expect(link).to_be_visible()
    link.click()
    expect(page.locator(".deck")).to_have_attribute("data-slide", "1")
    page.keyboard.press("ArrowRight")
    page.go_back() if leave == "back" else page.keyboard.press("Escape")
    expect(page.get_by_role("heading", level=1)).to_have_text("Compare")
    expect(link).to_be_visible()
    expect(page).to_have_url(re.compile(r"co_rate=30"))
    expect(page).to_have_url(re.compile(r"co_view=Zero-shot"))
    expect(page).not_to_have_url(re.compile("pr_"))


def test_notes_are_seen_beside_every_slide_and_nothing_is_cut_off_on_paper(samples, open_tab):
    """Where a slide is full, its notes lay below the edge of the screen, and of the paper, which cannot scroll."""
    page = open_tab(f"{samples.url}/present?pr_slide=1", dark=True, width=1280, height=720)
    slides = page.locator(".deck .slide")
    page.keyboard.press("n")
    for number in range(1, slides.count() + 1):
        expect(page.locator(".deck")).to_have_attribute("data-slide", str(number))
        notes = page.locator(".deck > .notes")
        expect(notes).to_be_visible()
        box, bar = notes.bounding_box(), page.locator(".turns").bounding_box()
        assert box["y"] + box["height"] <= bar["y"] + 1, number
        terms = page.locator(".deck .slide:not([hidden]) .terms")
        if terms.count():
            last = terms.bounding_box()
            assert last["y"] + last["height"] <= box["y"], f"notes hide terms on slide {number}"
        page.keyboard.press("ArrowRight")
    page.evaluate("window.addEventListener('beforeprint', () => { window.told = true; })")
    printed = page.pdf(prefer_css_page_size=True, print_background=True)
    assert page.evaluate("window.told"), "the browser says that it prints"
    sheets = [tuple(map(float, box)) for box in re.findall(rb"/MediaBox\s*\[0 0 ([\d.]+) ([\d.]+)\]", printed)]
    assert len(sheets) == slides.count()
    assert all(width > 1.7 * height for width, height in sheets), "sheets as wide as slides"
    page.emulate_media(media="print")
    light = tomllib.loads((app_home() / ".streamlit" / "config.toml").read_text(encoding="utf-8"))["theme"]["light"]
    for variable, name in (("text", "text"), ("primary", "primary"), ("border", "border"), ("link", "link")):
        shown = page.locator(".deck").evaluate(
            f"deck => getComputedStyle(deck).getPropertyValue('--st-{variable}-color')"
        )
        assert shown == light[f"{name}Color"], "ink on paper, whatever the theme of the screen"
    for place in ("body", "[data-testid=stApp]", ".deck"):
        ground = page.locator(place).first.evaluate("place => getComputedStyle(place).backgroundColor")
        assert ground == "rgb(255, 255, 255)", f"{place} is printed"
    page.set_viewport_size({"width": 816, "height": 1056})  # whatever the page, queries are answered for usual paper
    picture = page.locator(".slide-decision .decision > svg").bounding_box()
    read = page.locator(".slide-decision .reading").bounding_box()
    assert picture["x"] + picture["width"] <= read["x"], "the picture stands beside what is read from it"
    page.set_viewport_size({"width": 1122, "height": 631})
    room = slides.evaluate_all("all => all.map((one) => one.clientHeight - one.scrollHeight)")
    assert min(room) >= -1, room
