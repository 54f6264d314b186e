"""``lrc bench demo``: how soon the demo's server is ready and its first picture is seen, and what it takes in memory.

Seconds, not ratios: this is what a user waits for. So the machine's load is printed beside them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import Any

import psutil

from lrc_core.cli.output import answer, emit, note
from lrc_core.errors import ResourceError, SettingsError
from lrc_core.paths import READ_ONLY, app_home, child_environment

PAGES = ("learn", "spectra", "allocate", "watch", "plans", "compare", "talk", "runs", "present")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
PATIENCE_S = 120.0
LIMITS = {"ready_s": 2.0, "picture_s": 3.0, "memory_mb": 400.0}
"""What the demo is meant to stay under, on an idle machine."""


def demo(arguments: argparse.Namespace) -> None:
    """``lrc bench demo``."""
    if arguments.rounds < 1:
        raise SettingsError("There must be at least one round.", "Take --rounds 3.")
    answer(arguments, measure(arguments.rounds, arguments.chromium or ""), _print)


def _print(found: Mapping[str, Any]) -> None:
    for key, limit in LIMITS.items():
        values = [entry[key] for entry in found["rounds"]]
        unit = "MB" if key.endswith("_mb") else "s"
        said = {"ready_s": "server ready", "picture_s": "first picture", "memory_mb": "memory after every page"}[key]
        emit(
            f"{said:<24} best {min(values):7.2f} {unit:<2}  median {median(values):7.2f} {unit:<2}  "
            f"meant to be under {limit:g} {unit}"
        )
    loads = ", ".join(f"{entry['load']:.1f}" for entry in found["rounds"])
    emit(f"{'load while measuring':<24} {loads} on {found['cores']} cores")


def measure(rounds: int, chromium: str = "") -> dict[str, Any]:
    """Start the demo that many times, each with a browser that has never seen it.

    Args:
        chromium: path of the browser; one on the path when empty.

    Returns:
        ``rounds``, each with ``ready_s`` (from the command to an answer of the health page), ``picture_s`` (from asking
        for Home to its picture on screen), ``memory_mb`` (resident memory of the server after every page was looked
        at) and ``load``; and ``cores``.

    Raises:
        ResourceError: there is no browser, or the server does not start.
    """
    path = chromium or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise ResourceError("Playwright is not installed.", "Run `make install-dev` first.") from error
    if not path:
        raise ResourceError("There is no Chromium on the path.", "Install one, or name it with --chromium.")
    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        for number in range(rounds):
            found.append(_round(browser))
            note(f"Round {number + 1} of {rounds}: {found[-1]}")
        browser.close()
    return {"rounds": found, "cores": os.cpu_count()}


def _round(browser: Any) -> dict[str, float]:
    load = os.getloadavg()[0]
    with _server() as (url, process, ready):
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        context.set_default_timeout(1000 * PATIENCE_S)
        page = context.new_page()
        began = time.perf_counter()
        page.goto(url, wait_until="commit")
        page.locator("svg[role=img]").first.wait_for()
        picture = time.perf_counter() - began
        for name in PAGES:
            page.goto(f"{url}/{name}")
            page.get_by_role("heading", level=1).first.wait_for()
            page.locator("[data-testid=stStatusWidget]").wait_for(state="detached")
        memory = psutil.Process(process.pid).memory_info().rss / 1e6
        context.close()
    return {"ready_s": ready, "picture_s": picture, "memory_mb": memory, "load": load}


@contextmanager
def _server() -> Iterator[tuple[str, subprocess.Popen[bytes], float]]:
    """The demo's server: its address, its process, and the seconds until it answered."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "pages.ui.serve", str(port)]
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=app_home(),
        env=child_environment({READ_ONLY: "1"}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not _healthy(url):
            if process.poll() is not None or time.perf_counter() - began > PATIENCE_S:
                raise ResourceError("The demo's server did not start.", "`lrc demo` says why.")
            time.sleep(0.01)
        yield url, process, time.perf_counter() - began
    finally:
        process.terminate()
        process.wait(timeout=30)


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/_stcore/health", timeout=2):
            return True
    except OSError:
        return False
