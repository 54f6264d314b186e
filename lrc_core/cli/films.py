"""``lrc runs film``: a training run as an HTML file that plays offline, or as a GIF."""

from __future__ import annotations

import argparse
from pathlib import Path

import lrc_core.allocate  # noqa: F401  registers the methods, whose names and colours a film shows
from lrc_core.charts.film import film_of
from lrc_core.charts.film_gif import film_gif
from lrc_core.charts.film_html import film_html
from lrc_core.cli.output import answer, print_files
from lrc_core.errors import RunError
from lrc_core.files import disk_errors
from lrc_core.results.archive import archive


def film(arguments: argparse.Namespace) -> None:
    """``lrc runs film``: ``{"run_id", "files": [{"path", "bytes", "frames"}]}``."""
    if not arguments.html and not arguments.gif:
        raise RunError("Neither --html nor --gif names a file.", "Give one of them, or both.")
    run = archive().named(arguments.run)
    made = film_of(run)
    written = []
    for name, make in ((arguments.html, lambda: film_html(made).encode()), (arguments.gif, lambda: film_gif(made))):
        if name:
            path, content = Path(name).expanduser(), make()
            with disk_errors(path):
                path.write_bytes(content)
            written.append({"path": str(path), "bytes": len(content), "frames": len(made.frames["step"])})
    answer(arguments, {"run_id": run.id, "files": written}, print_files)
