"""``make screenshots``: every view of the app in both themes, as pictures of one size.

A fresh server on the shipped samples and a real Chromium. Nothing moves and no clock is read, so that the same program
makes the same pictures. Those that the README shows are made smaller and put where it finds them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from tests.browser.conftest import FLAGS, PATIENCE_MS, ROOT, chromium_path
from tests.browser.views import VIEWS, View, shipped, stand_still, visit

FOLDER = ROOT / "screenshots"
README_FOLDER = ROOT / "assets" / "screenshots"
README = ("allocate-light", "spectra-dark", "watch-dark", "compare-light", "learn-5-light")
"""Pictures that the README shows."""
WIDTH, HEIGHT = 1280, 960
COLOURS = 128
NOW = "2027-01-01T12:00:00Z"
"""What the browser's clock says."""
STEADY = """() => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    node.data = node.data.replace(/(Ended|Asked for) .*? ago/, "$1 earlier");
  }
  for (const metric of document.querySelectorAll('[data-testid="stMetric"]')) {
    if (metric.innerText.startsWith("Free")) metric.querySelector('[data-testid="stMetricValue"]').textContent = "–";
  }
}"""
"""What differs from hour to hour and from disk to disk is taken out."""


def main(arguments: list[str] | None = None) -> int:
    """Write all pictures, or those of some views."""
    parser = argparse.ArgumentParser(prog="make screenshots", description=__doc__.split("\n\n")[1])
    parser.add_argument("names", nargs="*", help="views; all if none is named")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--width", type=int, default=WIDTH)
    options = parser.parse_args(arguments)
    path = chromium_path()
    if path is None:
        print("No Chromium: install one (apt-get install chromium) or set LRC_CHROMIUM.", file=sys.stderr)  # noqa: T201
        return 1
    views = [view for view in VIEWS if view.name in options.names or not options.names]
    options.folder.mkdir(parents=True, exist_ok=True)
    from playwright.sync_api import sync_playwright

    with shipped() as server, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=[*FLAGS, "--force-color-profile=srgb"])
        page = new_page(chromium, options.width)
        for view in views:
            visit(page, server, view)
            for theme in ("light", "dark"):
                print(take(page, view, theme, options.folder))  # noqa: T201
        chromium.close()
    if options.width == WIDTH:
        for name in README:
            if (options.folder / f"{name}.png").exists():
                shrink(options.folder / f"{name}.png", README_FOLDER / f"{name}.png")
    return 0


def new_page(chromium: Any, width: int) -> Any:
    """A tab in which nothing moves, in one place of the world."""
    context = chromium.new_context(
        viewport={"width": width, "height": HEIGHT}, reduced_motion="reduce", locale="en-GB", timezone_id="UTC"
    )
    context.set_default_timeout(PATIENCE_MS)
    context.clock.set_fixed_time(NOW)
    return context.new_page()


def take(page: Any, view: View, theme: str, folder: Path) -> Path:
    """One picture of the view that is open."""
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    size = page.viewport_size
    for more in (64, 0):  # laid out anew from end to end: what came in pieces may sit a fraction of a pixel elsewhere
        page.set_viewport_size({**size, "width": size["width"] + more})
        stand_still(page)
    page.evaluate("document.fonts.ready")
    page.evaluate(STEADY)
    target = folder / f"{view.name}-{theme}.png"
    page.screenshot(path=target, animations="disabled", caret="hide")
    return target


def shrink(source: Path, target: Path) -> None:
    """The picture with few colours: a quarter of the bytes, and nobody sees it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(source) as picture:
        few = picture.convert("RGB").quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        few.save(target, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
