"""Names from outside in a real browser: whatever they hold, no page runs, frames, links or fetches it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from lrc_core.runs.store import RunStore
from pages.ui.serve import free_port
from tests.browser.conftest import PATIENCE_MS, ROOT, wait_until_healthy
from tests.browser.views import open_folds, stand_still
from tests.factories.payload_store import PAYLOAD, fill
from tests.factories.payloads import EVIL

pytestmark = pytest.mark.browser

FOUND = """(evil) => ({
  links: [...document.querySelectorAll("a")]
    .map((link) => String(link.getAttribute("href") || link.getAttribute("xlink:href") || ""))
    .filter((href) => href && new URL(href, location.href).origin !== location.origin)
    .filter((href) => href.includes(evil) || /^javascript:/i.test(href)),
  frames: [...document.querySelectorAll("iframe, object, embed, base, form[action], meta[http-equiv=refresh]")]
    .map((element) => element.outerHTML).filter((text) => text.includes(evil)),
  images: [...document.querySelectorAll("img, image")].map((element) => element.outerHTML)
    .filter((text) => text.includes(evil)),
  ran: window.lrcPwned || 0,
})"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """A server on a store full of payloads."""
    folder = tmp_path_factory.mktemp("payloads")
    ids = fill(RunStore(folder / "runs"), folder / "plans")
    port = free_port(range(8900, 9100))
    places = {"LRC_RUNS": "runs", "LRC_CACHE": "cache", "LRC_PLANS": "plans", "LRC_SAMPLES": "samples"}
    environment = {**os.environ, **{name: str(folder / path) for name, path in places.items()}}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pages.ui.serve", str(port)], cwd=ROOT, env=environment, stdout=log, stderr=log
        )
    wait_until_healthy(f"http://127.0.0.1:{port}", folder / "log")
    yield f"http://127.0.0.1:{port}", ids
    process.kill()
    process.wait(timeout=30)


def links(ids: dict[str, str]) -> list[str]:
    """Views that show names from outside, and links that bring some along."""
    payload = quote(PAYLOAD[:350])
    return [
        "",
        f"?model={payload}&revision={payload}",
        *(f"learn?learn_step={step}" for step in (3, 5, 6, 7)),
        "spectra",
        "spectra?sp_find=" + payload,
        "allocate",
        f"allocate?al_run={ids['failed']}",
        f"allocate?al_run={payload}&al_learned={payload}",
        f"watch?wa_run={ids['learned']}",
        "plans",
        "compare",
        *(f"compare?co_view={view}" for view in ("Curve", "Zero-shot", "Ranks", "Text", "Size+and+speed")),
        "compare?co_section=Bench",
        "compare?co_section=Ablations",
        f"talk?ta_run={ids['asked']}",
        f"talk?ta_run={payload}",
        "runs",
        *(f"runs?ru_run={ids[name]}" for name in ("failed", "other", "learned", "asked")),
        "present",
    ]


PARTS = 4
"""A page with seventy payloads in each name takes its time, so the views are divided among tests."""


@pytest.mark.parametrize("part", range(PARTS))
def test_no_view_takes_a_name_for_more_than_a_name(place: tuple[str, dict[str, str]], browser: Any, part: int) -> None:
    url, ids = place
    context = browser.new_context(viewport={"width": 1360, "height": 1000})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    asked: list[str] = []
    dialogs: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if EVIL in request.url.partition("?")[0] else None)
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    wrong = {}
    for link in links(ids)[part::PARTS]:
        page.goto(f"{url}/{link}")
        page.locator("[data-testid=stAppViewContainer]").wait_for()
        stand_still(page)
        open_folds(page)
        for _ in range(page.locator(".deck .slide").count() - 1):
            page.keyboard.press("ArrowRight")
            stand_still(page)
        found = {kind: what for kind, what in page.evaluate(FOUND, EVIL).items() if what}
        if asked or dialogs:
            found |= {"asked": asked[:], "dialogs": dialogs[:]}
            asked.clear()
        if found:
            wrong[link[:60]] = found
    context.close()
    assert wrong == {}
