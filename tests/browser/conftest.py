"""A real server and a real Chromium. Skips loudly where there is no Chromium; under CI=true that is a failure."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lrc_core.runs.store import RunStore
from tests.factories import run_factory, table_factory
from tests.tree import ROOT

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--process-per-site",  # see ``warm``
]
LEARNS = "al_method=LLRC&al_decomposition=Whitened+%28SVD-LLM%29&al_storage=Pairs"
"""Link to the form of a method that learns, on the factors that the recorded run has."""
PATIENCE_MS = 120_000
"""How long a browser waits for what must appear; passed at once on an idle machine."""


def chromium_path() -> str | None:
    """A Chromium on this machine: named by LRC_CHROMIUM, on the path, or Playwright's own."""
    for name in (os.environ.get("LRC_CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome"):
        if name and (found := shutil.which(name)):
            return found
    own = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / ".cache" / "ms-playwright")
    candidates = sorted(own.glob("chromium-*/chrome-*/chrome"))
    return str(candidates[-1]) if candidates else None


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """One browser for all tests."""
    path = chromium_path()
    if path is None:
        message = (
            "NO CHROMIUM: the browser tests did not run. Install one (apt-get install chromium) or set LRC_CHROMIUM."
        )
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@dataclass(frozen=True)
class Server:
    """A running app."""

    url: str
    runs: Path

    @property
    def store(self) -> RunStore:
        return RunStore(self.runs)


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A fresh server on run folders of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "LRC_RUNS": str(folder / "runs"),
        "LRC_CACHE": str(folder / "cache"),
        "LRC_TEST_EXECUTE": "tests.browser.fake_job:train",
        "HF_HUB_OFFLINE": "1",
    }
    server = Server(f"http://127.0.0.1:{port}", folder / "runs")
    card = run_factory.make_card()
    run_factory.spectra_run(server.store, card)
    run_factory.allocate_run(server.store, card, keep=0.7)
    table_factory.compare_run(server.store, card)
    command = [sys.executable, "-m", "pages.ui.serve", str(port)]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        wait_until_healthy(server.url, folder / "server.log")
        yield server
    finally:
        process.kill()
        process.wait(timeout=30)


@pytest.fixture
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Server]]:
    """Starts a fresh server; all of a test's are stopped at its end."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(serving(tmp_path_factory.mktemp("app")))


def wait_until_healthy(url: str, log: Path) -> None:
    """Returns when the server answers.

    Raises:
        AssertionError: it does not; says what its log holds.
    """
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/_stcore/health", timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"The server did not start:\n{log.read_text()}")


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the tests that do not need a fresh one."""
    with serving(tmp_path_factory.mktemp("app")) as found:
        yield found


@pytest.fixture(scope="package")
def warm(browser: Any, server: Server) -> Iterator[Any]:
    """A browser context that keeps its process, and in it the app's compiled scripts, from one test to the next.

    A page of the app costs a new process twice the processor time that it costs one which has shown the app before.
    """
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    keeper = context.new_page()
    keeper.goto(f"{server.url}/_stcore/health")
    yield context
    context.close()


@pytest.fixture
def open_tab(browser: Any, warm: Any) -> Iterator[Callable[..., Any]]:
    """``open_tab(url, dark=True)``: a new tab that shows the page with its title.

    A test's first tab is opened in the warm context, in which nothing of earlier tests is left but the cache; every
    further one in a context of its own, as if by another visitor.
    """
    keepers = list(warm.pages)
    contexts: list[Any] = []

    def opener(url: str, *, dark: bool = False, width: int = 1360, height: int = 1000) -> Any:
        context = browser.new_context() if contexts else warm
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme="dark" if dark else "light")
        page.goto(url)
        page.get_by_role("heading", level=1).wait_for()
        return page

    yield opener
    for context in contexts[1:]:
        context.close()
    for page in warm.pages:
        if page not in keepers:
            page.evaluate("localStorage.clear()")
            page.close()
    warm.clear_cookies()
