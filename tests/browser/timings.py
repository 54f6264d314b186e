"""``python -m tests.browser.timings``: how fast the app feels, measured in a real browser.

A fresh server on the shipped samples, a real Chromium. It prints median and 95th percentile of every measure, the
promise it belongs to and the machine's load, and writes the same as JSON. Nothing here is a test: figures taken on a
busy machine say little, so none is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pages.ui.shared import frame
from tests.browser.conftest import FLAGS, PATIENCE_MS, ROOT, chromium_path, wait_until_healthy

PAGES = {name: info for name, info in frame.PAGES.items() if name != "present"}
"""Those with a link in the sidebar; the slides have a button, and no sidebar to leave them by."""
SCRIPT = Path(__file__).with_suffix(".js")
PAGE_MS, CLICK_MS, DRAG_MS = 500, 250, 150
CONTENT = {
    "home": [".st-key-hero", "svg"],
    # whatever step it was left at
    "learn": [".flipbook svg, rect[data-id], [data-testid=stVegaLiteChart] svg", "[data-testid=stPopover]"],
    "spectra": ["rect[data-id]", ".spectrum path.line"],
    "allocate": [
        "[data-testid=stVegaLiteChart] canvas, [data-testid=stVegaLiteChart] svg, .grids [data-cell]",
        ".st-key-al_take_best button",
    ],
    "watch": [".film [data-cell]"],
    "plans": ["rect[data-id]", ".st-key-pl_measure button"],
    "compare": [".js-plotly-plot .trace, .js-plotly-plot .barlayer"],
    "talk": [".st-key-ta_prompt textarea", "[data-testid=stFormSubmitButton]"],
    "runs": ["[data-testid=stMetricValue]"],
}
"""What must stand on a page, beside its title, before it counts as drawn."""
TITLES = {"home": "Low-rank compression explorer", "watch": "Watch it learn"}
"""Headings that are not the page's name in the navigation."""


@contextmanager
def fresh_server() -> Iterator[str]:
    """The app on the shipped samples alone; its address."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        environment = {
            **os.environ,
            "LRC_RUNS": f"{folder}/runs",
            "LRC_CACHE": f"{folder}/cache",
            "HF_HUB_OFFLINE": "1",
        }
        log = Path(folder) / "server.log"
        command = [sys.executable, "-m", "pages.ui.serve", str(port)]
        with log.open("wb") as file:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)
        try:
            wait_until_healthy(f"http://127.0.0.1:{port}", log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=30)


@contextmanager
def browser_tab(url: str) -> Iterator[Any]:
    """A real browser with one :func:`prepared` tab."""
    from playwright.sync_api import sync_playwright

    path = chromium_path()
    if path is None:
        raise SystemExit("No Chromium: install one (apt-get install chromium) or set LRC_CHROMIUM.")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield prepared(chromium, url)
        chromium.close()


def prepared(chromium: Any, url: str) -> Any:
    """A tab of a browser on the home page, with the measuring functions in it."""
    context = chromium.new_context(viewport={"width": 1280, "height": 1000})
    context.set_default_timeout(PATIENCE_MS)
    context.add_init_script(script=SCRIPT.read_text(encoding="utf-8"))
    page = context.new_page()
    page.goto(url)
    page.get_by_role("heading", level=1).wait_for()
    return page


def switch(page: Any, name: str) -> dict[str, float]:
    """One click on a link of the sidebar: until the page's content is drawn, and until its script has ended too."""
    info = PAGES[name]
    page.wait_for_function("lrcIdle()")
    shown = f"lrcShown({json.dumps(TITLES.get(name, info.title))}, {json.dumps(CONTENT.get(name, []))})"
    page.evaluate(f"lrcAfter('click', {shown})")
    page.locator('[data-testid="stSidebar"]').get_by_role("link", name=info.title, exact=True).click()
    return page.evaluate("lrcAnswer")


def switches(page: Any, rounds: int, *, warm_up: bool = True) -> dict[str, list[dict[str, float]]]:
    """Rounds through all pages, after one that is not counted: it fetches the browser's parts."""
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in PAGES}
    for number in range(0 if warm_up else 1, rounds + 1):
        for name in [*list(PAGES)[1:], "home"]:
            times = switch(page, name)
            if number:
                taken[name].append(times)
    return taken


def clicks(page: Any, count: int) -> list[dict[str, float]]:
    """Clicks on cells of the heatmap of spectra: until the spectrum of that layer is drawn."""
    switch(page, "spectra")
    cells = page.locator(".st-key-sp_heatmap rect[data-id]")
    total, taken = cells.count(), []
    for number in range(count + 2):
        cell = cells.nth((number * 37 + 11) % total)
        layer = cell.get_attribute("data-id")
        page.wait_for_function("lrcIdle()")
        page.evaluate(f"lrcAfter('click', () => lrcSpectrum() === {json.dumps(layer)})")
        cell.click()
        times = page.evaluate("lrcAnswer")
        if number > 1:
            taken.append(times)
    return taken


def drag(page: Any, moves: int) -> list[float]:
    """The slider dragged to and fro: every move until what it says is painted."""
    switch(page, "allocate")
    slider = page.locator(".st-key-al_drag input[type=range]")
    page.evaluate("lrcWatchDrag(() => lrcFind('.ratedrag input[type=number]').valueAsNumber)")
    box = slider.bounding_box()
    height = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.2 * box["width"], height)
    page.mouse.down()
    for number in range(moves):
        share = 0.5 - 0.45 * np.cos(2 * np.pi * number / 45)
        page.mouse.move(box["x"] + share * box["width"], height)
    page.mouse.up()
    page.wait_for_function("lrcIdle()")
    return page.evaluate("lrcMoves")


def summary(values: list[float], promise: float | None = None) -> dict[str, Any]:
    """Best, median and 95th percentile in ms; whether the last keeps the promise."""
    found = {
        "count": len(values),
        "best_ms": round(min(values), 1),
        "p50_ms": round(float(np.percentile(values, 50)), 1),
        "p95_ms": round(float(np.percentile(values, 95)), 1),
    }
    return found if promise is None else {**found, "promise_ms": promise, "kept": found["p95_ms"] <= promise}


def measured(rounds: int, cells: int, moves: int) -> dict[str, Any]:
    """Everything, on one server and in one tab."""
    before = os.getloadavg()[0]
    with fresh_server() as url, browser_tab(url) as page:
        pages = switches(page, rounds)
        clicked = clicks(page, cells)
        dragged = drag(page, moves)
    figures = {f"page {name}": summary([one["drawn"] for one in taken], PAGE_MS) for name, taken in pages.items()}
    ended = {f"page {name}, script ended": summary([one["idle"] for one in taken]) for name, taken in pages.items()}
    every = [one["drawn"] for taken in pages.values() for one in taken]
    return {
        "load_before": round(before, 2),
        "load_after": round(os.getloadavg()[0], 2),
        "cores": os.cpu_count(),
        "measures": {
            "drag to drawn": summary(dragged, DRAG_MS),
            "page switch, all pages": summary(every, PAGE_MS),
            **figures,
            "cell click to spectrum": summary([one["drawn"] for one in clicked], CLICK_MS),
            **ended,
        },
    }


def report(found: dict[str, Any]) -> str:
    """The figures as a table for a terminal."""
    lines = [f"{'':34}{'n':>5}{'best':>10}{'p50':>10}{'p95':>10}   promise (95th percentile)"]
    for name, row in found["measures"].items():
        promise = f"{row['promise_ms']} ms: {'kept' if row['kept'] else 'NOT KEPT'}" if "kept" in row else ""
        times = "".join(f"{row[key]:>7.0f} ms" for key in ("best_ms", "p50_ms", "p95_ms"))
        lines.append(f"{name:34}{row['count']:>5}{times}   {promise}")
    load = f"Load average {found['load_before']} before, {found['load_after']} after, {found['cores']} cores"
    return "\n".join([*lines, f"{load}; these figures want a quiet machine."])


def main(arguments: list[str]) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Time the app in a real browser.")
    parser.add_argument("--json", type=Path, default=Path("timings.json"), help="where the figures go")
    parser.add_argument("--rounds", type=int, default=6, help="rounds through all pages")
    parser.add_argument("--cells", type=int, default=30, help="clicks on cells")
    parser.add_argument("--moves", type=int, default=100, help="pointer moves of the drag")
    chosen = parser.parse_args(arguments)
    found = measured(chosen.rounds, chosen.cells, chosen.moves)
    chosen.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"{report(found)}\nWritten to {chosen.json}.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
