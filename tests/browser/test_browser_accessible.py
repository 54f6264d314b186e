"""For everybody: axe-core on every view, letters in drawings, and the keyboard. One server, one tab, many looks.

And nothing that any view shows is fetched from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest

from tests.browser.conftest import PATIENCE_MS
from tests.browser.views import PLOTLY, VEGA, VIEWS, Shipped, View, open_folds, shipped, stand_still, visit

pytestmark = pytest.mark.browser
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
CONTRAST = Path(__file__).with_name("contrast.js").read_text(encoding="utf-8")
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
LOOKS = ({"dark": False, "width": 1280}, {"dark": True, "width": 600})
"""Both themes and both widths: a theme changes nothing but colours, a width nothing but places."""
SEEN = (
    View("compare-decide", "compare?co_view=Decide", (PLOTLY,)),
    View("learn-shown", "learn?learn_step=4&learn_show=1", (VEGA,)),
    View("present-decision", "present?pr_slide=8", (".deck .slide-decision:not([hidden])",)),
    *VIEWS,
    View("runs-answers", "runs?ru_run=generate-328c69f1b6c8", ('[data-testid="stCode"]',), ("generate-328c69f1b6c8",)),
)
"""All views, and those that need no picture of their own; what needs runs of the user's own comes last, as there."""
NOT_OURS: dict[tuple[str, str], str] = {}
"""(rule, part of a selector) -> why no caller of Streamlit or Plotly can change it. None at present."""


@pytest.fixture(scope="module")
def server() -> Iterator[Shipped]:
    with shipped() as found:
        yield found


@pytest.fixture(scope="module")
def elsewhere() -> list[str]:
    """Addresses outside the server that the tab has asked."""
    return []


@pytest.fixture(scope="module")
def page(browser: Any, server: Shipped, elsewhere: list[str]) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, reduced_motion="reduce")
    context.set_default_timeout(PATIENCE_MS)
    context.on("request", lambda request: elsewhere.append(request.url) if outside(request.url, server) else None)
    yield context.new_page()
    context.close()


def outside(url: str, server: Shipped) -> bool:
    return url.startswith("http") and not url.startswith(f"{server.url}/")


def violations(page: Any) -> list[str]:
    """Of any weight, the mild ones too."""
    only = {"type": "tag", "values": list(RULES)}
    found = page.evaluate("(only) => axe.run(document, { runOnly: only, resultTypes: ['violations'] })", only)
    return [
        f"{entry['id']} at {node['target']}: {node['failureSummary'].splitlines()[-1].strip()}"
        for entry in found["violations"]
        for node in entry["nodes"]
        if not any(entry["id"] == rule and part in str(node["target"]) for rule, part in NOT_OURS)
    ]


def dress(page: Any, *, dark: bool, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 1000})
    page.emulate_media(color_scheme="dark" if dark else "light", reduced_motion="reduce")


def look(page: Any, *, dark: bool, width: int) -> None:
    dress(page, dark=dark, width=width)
    stand_still(page)


@pytest.mark.parametrize("view", SEEN, ids=[view.name for view in SEEN])
def test_no_serious_violation_in_any_view(server: Shipped, page: Any, elsewhere: list[str], view: View) -> None:
    dress(page, **LOOKS[0])  # before it is opened: a theme that changes later draws every chart again
    visit(page, server, view)
    open_folds(page)
    page.evaluate(AXE)
    found = {}
    for look_at in LOOKS:
        look(page, **look_at)
        found[str(look_at)] = [*violations(page), *page.evaluate(CONTRAST)["poor"]]
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"wider than the window by {wide} px: {look_at}"
    assert {key: value for key, value in found.items() if value} == {}
    assert elsewhere == []


def test_the_looks_would_find_something(server: Shipped, page: Any, elsewhere: list[str]) -> None:
    """A page that is spoilt on purpose: grey on grey in words and in a drawing, and a picture without words."""
    visit(page, server, next(view for view in VIEWS if view.name == "plans"))
    look(page, dark=False, width=1280)  # in the dark this grey is well seen
    page.evaluate(AXE)
    page.evaluate(
        """() => document.querySelector('[data-testid="stMain"] p').outerHTML = `<p style="color: #bbb">pale</p>
        <svg width=99 height=20 role="img" aria-label="x"><text y=15 fill="#bbb">pale</text></svg>
        <button></button>`"""
    )
    other = server.url.replace("127.0.0.1", "localhost")
    page.evaluate("(url) => fetch(url).catch(() => null)", f"{other}/_stcore/health")
    assert elsewhere.pop().startswith(other)
    found = violations(page)
    assert any("color-contrast" in entry for entry in found) and any("button-name" in entry for entry in found)
    letters = page.evaluate(CONTRAST)
    assert letters["looked"] > 3 and any(entry.startswith("pale") for entry in letters["poor"])


KEYBOARD = Path(__file__).with_name("keyboard.js").read_text(encoding="utf-8")
MOST_STOPS = 120


@pytest.mark.parametrize("name", ["learn-1", "spectra"])
def test_tab_reaches_everything_and_shows_where_it_is(server: Shipped, page: Any, name: str) -> None:
    """Every stop of the Tab key changes what is seen around it, and nothing that can be used is left out."""
    look(page, dark=False, width=1280)
    view = next(view for view in VIEWS if view.name == name)
    visit(page, server, view)
    page.set_viewport_size({"width": 1280, "height": 2400})  # all of it in sight: focus scrolls nothing
    stand_still(page)
    page.evaluate(KEYBOARD)
    unseen, stops = [], 0
    for _ in range(MOST_STOPS):
        page.keyboard.press("Tab")
        stop = page.evaluate("lrcStop()")
        if stop is None:
            break
        stops += 1
        if not shows_focus(page, stop["box"]):
            unseen.append(f"{stop['tag']} {stop['words']}")
    assert stops > 15
    assert unseen == []
    assert page.evaluate("lrcMissed()") == []


def shows_focus(page: Any, box: dict[str, float]) -> bool:
    """Whether the picture around an element changes when it loses the focus."""
    clip = {
        "x": max(0, box["x"] - 8),
        "y": max(0, box["y"] - 8),
        "width": max(1, box["width"] + 16),
        "height": max(1, box["height"] + 16),
    }
    with_focus = page.screenshot(clip=clip, animations="disabled", caret="hide")
    page.evaluate("lrcBlur()")
    without = page.screenshot(clip=clip, animations="disabled", caret="hide")
    page.evaluate("lrcFocus()")
    return with_focus != without
