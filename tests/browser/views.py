"""Every view of the app on the shipped samples: where it is, and what must stand there before anybody looks at it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrc_core.paths import samples_home
from lrc_core.runs.store import RunStore
from tests.browser.conftest import PATIENCE_MS, ROOT, wait_until_healthy
from tests.factories import run_factory, table_factory

PLOTLY, VEGA, CELLS = ".js-plotly-plot .main-svg", '[data-testid="stVegaLiteChart"] svg', "rect[data-id]"
TABLE = '[data-testid="stDataFrame"]'


@dataclass(frozen=True)
class View:
    """One view.

    Attributes:
        name: of its screenshots.
        path: of its deep link.
        shows: selectors of which all must be on the page.
        needs: what the user's own runs hold: ids of samples, or ``bench``.
    """

    name: str
    path: str
    shows: tuple[str, ...]
    needs: tuple[str, ...] = ()


_BOOK = ".flipbook svg"
_RUN = "allocate-efe0dab94a0c"
VIEWS = (
    View("home", "", (".pic figure",)),
    View("learn-1", "learn?learn_step=1", (_BOOK,)),
    View("learn-2", "learn?learn_step=2", (_BOOK,)),
    View("learn-3", "learn?learn_step=3", (VEGA,)),
    View("learn-4", "learn?learn_step=4", (VEGA,)),
    View("learn-5", "learn?learn_step=5", (CELLS,)),
    View("learn-6", "learn?learn_step=6", (PLOTLY,)),
    View("learn-7", "learn?learn_step=7", (_BOOK,)),
    View("learn-8", "learn?learn_step=8", ('[data-testid="stRadio"]',)),
    View("spectra", "spectra", (CELLS, ".spectrum path.line")),
    View("allocate", "allocate", (".ratedrag [data-cell]", ".st-key-al_take_best button")),
    View("watch", f"watch?wa_run={_RUN}", (".film svg",)),
    View("plans", "plans", (CELLS,)),
    View("compare", "compare", (PLOTLY, TABLE)),
    View("compare-curve", "compare?co_view=Curve", (PLOTLY,)),
    View("compare-tasks", "compare?co_view=Zero-shot", (PLOTLY,)),
    View("compare-ranks", "compare?co_view=Ranks", (CELLS,)),
    View("compare-text", "compare?co_view=Text", ('[data-testid="stText"]',)),
    View("compare-cost", "compare?co_view=Size+and+speed", (PLOTLY,)),
    View("bench-shipped", "compare?co_section=Bench", (PLOTLY, '[data-testid="stExpander"]')),
    View("ablation-shipped", "compare?co_section=Ablations", (PLOTLY,)),
    View("talk", "talk", ("textarea",)),
    View("present", "present", (".deck .slide",)),
    View("runs-empty", "runs", ('[data-testid="stMetric"]',)),
    View("runs", f"runs?ru_run={_RUN}", (TABLE, '[data-testid="stCode"]'), (_RUN,)),
    View("bench", "compare?co_section=Bench", (PLOTLY, TABLE), ("bench",)),
    View("ablation", "compare?co_section=Ablations", (PLOTLY,), ("bench",)),
)
"""Those that need runs of the user's own come last: every earlier one is seen as a newcomer sees it."""


@dataclass(frozen=True)
class Shipped:
    """A fresh server on the shipped samples."""

    url: str
    runs: Path

    def prepare(self, view: View) -> None:
        """Make what a view needs; what is there already stays."""
        for need in view.needs:
            if need == "bench":
                store = RunStore(self.runs)
                if not any(self.runs.glob("quality-*")):
                    table_factory.quality_run(store, run_factory.make_card())
                    table_factory.ablation_run(store, run_factory.make_card())
            elif not (self.runs / need).exists():
                shutil.copytree(samples_home() / need, self.runs / need)


@contextmanager
def shipped() -> Iterator[Shipped]:
    """Start the app as a newcomer finds it: samples, no runs, an empty cache."""
    with tempfile.TemporaryDirectory(prefix="lrc-views-") as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        runs = Path(folder) / "runs"
        runs.mkdir()
        places = {"LRC_RUNS": str(runs), "LRC_CACHE": f"{folder}/cache", "LRC_PLANS": f"{folder}/plans"}
        environment = {**os.environ, **places, "HF_HUB_OFFLINE": "1", "TZ": "UTC"}
        command = [sys.executable, "-m", "pages.ui.serve", str(port)]
        log = Path(folder) / "server.log"
        with log.open("wb") as file:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)
        try:
            wait_until_healthy(f"http://127.0.0.1:{port}", log)
            yield Shipped(f"http://127.0.0.1:{port}", runs)
        finally:
            process.kill()
            process.wait(timeout=30)


def visit(page: Any, server: Shipped, view: View) -> None:
    """Open a view and wait until all of it stands still."""
    server.prepare(view)
    page.goto(f"{server.url}/{view.path}")
    page.get_by_role("heading", level=1).wait_for()
    for selector in view.shows:
        page.locator(selector).first.wait_for()
    stand_still(page)


STILL = """() => {
  const app = document.querySelector('[data-testid="stApp"]');
  const busy = '[data-testid="stSkeleton"], [data-testid="stSpinner"], [data-stale="true"]';
  const now = [app.dataset.testScriptState, document.querySelectorAll("*").length,
               document.querySelector('[data-testid="stMain"]').scrollHeight, innerWidth,
               getComputedStyle(app).backgroundColor].join();
  const same = now === window.lrcSeen;
  window.lrcSeen = now;
  window.lrcFrames = same ? window.lrcFrames + 1 : 0;
  const ready = app.dataset.testScriptState === "notRunning" && app.dataset.testConnectionState === "CONNECTED";
  return ready && !document.querySelector(busy) && window.lrcFrames > 10;
}"""
"""Whether nothing has changed for ten frames."""


def stand_still(page: Any) -> None:
    """Wait until the script has ended and what it drew no longer changes."""
    page.evaluate("window.lrcSeen = ''")
    page.wait_for_function(STILL, polling="raf", timeout=PATIENCE_MS)


def open_folds(page: Any) -> None:
    """Open every expander, so that what it hides is looked at, too."""
    page.evaluate("document.querySelectorAll('details:not([open]) > summary').forEach((fold) => fold.click())")
    stand_still(page)
