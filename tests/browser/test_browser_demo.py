"""The demo in a real browser: every page on the shipped runs, and a server that has never seen torch."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import expect

from lrc_core.paths import READ_ONLY, samples_home
from pages.ui.heavy_imports import HEAVY
from tests.browser.conftest import PATIENCE_MS, ROOT, wait_until_healthy

pytestmark = pytest.mark.browser
expect.set_options(timeout=PATIENCE_MS)

SHOWN = {
    "": "Read-only demo",
    "learn": "Learn",
    "spectra": "Rank for 95 % of the energy",
    "allocate": "nothing is started, changed or deleted here",
    "watch": "Parameters kept by each layer",
    "plans": "Share of each layer that is kept",
    "compare": "LLRC",
    "compare?co_view=Curve": "LLRC",
    "talk": "Explain in two sentences why the sky is blue.",
    "runs": "Look at",
    "present?pr_slide=3": "Where the information lives",
    "learn?learn_step=5": "5 · ",
    "learn?learn_step=7": "7 · ",
}
# Serves as `make demo` does, and tells at its end which modules it has.
PROGRAM = """
import atexit, json, pathlib, sys
target = pathlib.Path(sys.argv.pop(1))
atexit.register(lambda: target.write_text(json.dumps(sorted(sys.modules))))
from pages.ui import serve
sys.exit(serve.main(sys.argv[1:]))
"""


@contextmanager
def serving_demo(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The demo's server, with a user's folder in which nothing may change."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = folder / "home"
    home.mkdir()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("LRC_", "XDG_"))},
        READ_ONLY: "1",
        "HOME": str(home),
    }
    command = [sys.executable, "-c", PROGRAM, str(folder / "modules.json"), str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_healthy(url, folder / "log")
        yield url, process
    finally:
        process.kill()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Iterator[str]:
    with serving_demo(tmp_path_factory.mktemp("demo")) as (url, _):
        yield url


def test_every_page_without_torch_and_without_a_trace(open_tab, tmp_path):
    before = {str(path): path.stat().st_mtime_ns for path in samples_home().rglob("*")}
    with serving_demo(tmp_path) as (url, process):
        page = open_tab(url)
        for path, words in SHOWN.items():
            page.goto(f"{url}/{path}")
            expect(page.get_by_text(words).locator("visible=true").first).to_be_visible()
            page.locator("[data-testid=stStatusWidget]").wait_for(state="detached")
            expect(page.get_by_text("could not be drawn")).to_have_count(0)
            assert page.get_by_role("button", name="Delete").count() == 0
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
    modules = json.loads((tmp_path / "modules.json").read_text())
    assert "streamlit" in modules and "plotly" in modules  # it is the server's list
    assert not {name.partition(".")[0] for name in modules} & set(HEAVY)
    assert "must not import" not in (tmp_path / "log").read_text()
    assert {str(path): path.stat().st_mtime_ns for path in samples_home().rglob("*")} == before
    written = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert [path for path in written if "lrc" in str(path)] == []


def test_the_bars_below_the_first_slider_are_as_long_as_their_perplexities(demo, open_tab):
    """From zero: a bar that is twice as long says twice the perplexity, as on the bars further down the page."""
    page = open_tab(demo)
    models = page.locator(".live .model")
    expect(models).to_have_count(2)
    page.wait_for_timeout(300)  # bars take an eighth of a second
    said = [float(re.search(r"on \w+ ([\d.]+)", text)[1]) for text in models.locator(".said").all_inner_texts()]
    long = [bar.bounding_box()["width"] for bar in models.locator(".track i").all()]
    assert said[1] > said[0]
    assert long[1] / long[0] == pytest.approx(said[1] / said[0], rel=0.1)


def test_another_prompt_shows_other_texts_at_every_stop(demo, open_tab):
    page = open_tab(demo)
    text, prompts = page.locator(".live .model .text").first, page.locator(".live select")
    expect(text).to_be_visible()
    before = text.inner_text()
    prompts.select_option(index=3)
    expect(text).not_to_have_text(before)
    page.locator(".live input").press("Home")
    page.locator(".live input").press("ArrowRight")
    expect(page.locator(".live .model").nth(1).locator(".said").last).to_contain_text("times dense")


def test_the_mask_of_learn_is_no_wider_than_a_narrow_screen(demo, open_tab):
    page = open_tab(f"{demo}/learn?learn_step=7", width=600)
    expect(page.locator(".flipbook svg").first).to_be_visible()
    main = page.get_by_test_id("stMain")
    assert main.evaluate("main => main.scrollWidth <= main.clientWidth + 1")


@pytest.mark.parametrize("width", [390, 1280])
def test_every_choice_is_seen_without_scrolling_sideways(demo, open_tab, width):
    """The card of step 8 has a button for every method that was measured."""
    page = open_tab(f"{demo}/learn?learn_step=8", width=width)
    group = page.get_by_role("radiogroup", name="Method")
    expect(group).to_be_visible()
    assert group.evaluate("group => group.scrollWidth <= group.clientWidth + 1")
    assert group.get_by_role("radio").count() > 3
    assert all(box.bounding_box()["x"] >= 0 for box in group.get_by_role("radio").all())
