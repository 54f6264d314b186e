"""The report: downloaded from the app, opened from disk with no network, touched by pointer and by keyboard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import PATIENCE_MS, Server
from tests.factories.pdf_reader import Pdf

pytestmark = pytest.mark.browser


@pytest.fixture
def downloaded(server: Server, open_tab: Callable[..., Any], tmp_path: Path) -> Path:
    """The HTML file as the Compare page gives it; the PDF lies beside it."""
    tab = open_tab(f"{server.url}/compare")
    tab.get_by_text("Report: HTML and PDF").click()
    title = tab.get_by_label("Title", exact=True)
    title.fill("Größe für den Vorstand")
    title.press("Enter")
    tab.get_by_text("lrc report --compare").get_by_text("Vorstand").first.wait_for()
    for name in ("HTML", "PDF"):
        with tab.expect_download() as found:
            tab.get_by_role("button", name=f"Report ({name})").click()
        found.value.save_as(tmp_path / f"report.{name.lower()}")
    return tmp_path / "report.html"


def opened(browser: Any, path: Path, **context: Any) -> tuple[Any, list[str], list[str]]:
    """The file in a browser without network, all that it asks for, and all that goes wrong."""
    page = browser.new_context(offline=True, **context).new_page()
    page.set_default_timeout(PATIENCE_MS)
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.goto(path.as_uri())
    page.locator("form.switches").wait_for()
    return page, asked, wrong


def test_report_from_disk(downloaded: Path, browser: Any) -> None:
    assert Pdf(downloaded.with_suffix(".pdf").read_bytes()).title() == "Größe für den Vorstand"
    page, asked, wrong = opened(browser, downloaded, viewport={"width": 1280, "height": 1000}, color_scheme="light")
    assert page.title() == "Größe für den Vorstand"
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")

    # Linked cells: pointed at in one heatmap, marked in all of them; then by arrow keys.
    first = page.locator(".heatmaps .drawing").first
    maps = page.locator(".heatmaps figure").count()
    first.scroll_into_view_if_needed()
    box = first.locator("svg").bounding_box()
    first.locator("svg").hover(position={"x": box["width"] / 2, "y": box["height"] / 2})
    page.locator("#tip").get_by_text("Block", exact=False).wait_for()
    assert maps >= 6 and page.locator('.cursor[visibility="visible"]').count() == maps
    assert page.locator("#tip").inner_text().count("\n") == maps
    page.mouse.move(5, 5)
    first.focus()
    page.keyboard.press("ArrowDown")
    before = page.locator("#tip").inner_text().splitlines()[0]
    page.keyboard.press("ArrowDown")
    assert page.locator("#tip").inner_text().splitlines()[0] != before

    # Marks of a chart by keyboard: what to decide by, and one that names its run.
    for title, words in (
        ("What to decide by", ("bytes", "loses")),
        ("Perplexity against size", ("perplexity", "run ")),
    ):
        charts = page.locator(f'h3:has-text("{title}") ~ .charts').first
        charts.locator(".drawing").first.focus()
        page.keyboard.press("End")
        assert all(word in page.locator("#tip").inner_text() for word in words)
        page.keyboard.press("Escape")
        assert page.locator("#tip").is_hidden()

    # Sorting by a column turns the order round at the second press.
    table = page.locator("table", has_text="Size and perplexity").first
    head = table.get_by_role("button", name="Perplexity, gensim")
    place = head.evaluate("button => button.closest('th').cellIndex")
    column = f"rows => rows.map(row => Number(row.cells[{place}].dataset.v))"
    head.click()
    values = table.locator("tbody tr").evaluate_all(column)
    assert values == sorted(values)
    head.press("Enter")
    assert table.locator("tbody tr").evaluate_all(column) == values[::-1]

    # A method that is switched off is gone everywhere on the screen, and still there on paper.
    rows = table.locator("tbody tr:visible").count()
    page.get_by_role("checkbox", name="Uniform").uncheck()
    assert table.locator("tbody tr:visible").count() == rows - 2
    assert page.locator('main [data-method="uniform"]:visible').count() == 0
    page.emulate_media(media="print")
    assert table.locator("tbody tr:visible").count() == rows
    assert page.locator("form.switches").is_hidden()
    assert asked == [downloaded.as_uri()] and not wrong
    page.context.close()

    page, asked, wrong = opened(browser, downloaded, viewport={"width": 600, "height": 900}, color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    assert page.evaluate("document.documentElement.scrollWidth") == 600, "only tables scroll sideways"
    assert asked == [downloaded.as_uri()] and not wrong
    page.context.close()
