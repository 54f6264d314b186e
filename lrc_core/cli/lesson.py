"""``lrc lesson``: a job like any other; with ``--html`` the eight steps of Learn as a page that needs no server."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from lrc_core.cli import jobs
from lrc_core.cli.output import answer, emit
from lrc_core.errors import ResourceError
from lrc_core.kinds.words.flags import model_ref
from lrc_core.paths import app_home


def lesson(arguments: argparse.Namespace) -> None:
    """Start the job, or write the page from what has been recorded: ``{"path"}``."""
    if not arguments.html:
        jobs.job(arguments)
        return
    path = _page(Path(arguments.html).expanduser().absolute(), arguments)
    said = f"The lesson is in {path}. Open it in a browser; it needs no server and no network."
    answer(arguments, {"path": path}, lambda _: emit(said))


def _page(target: Path, arguments: argparse.Namespace) -> str:
    """The pages stand above the command line: it starts them as a program and imports nothing of theirs."""
    ref = model_ref(arguments)
    command = [sys.executable, "-m", "pages.ui.learn.site", str(target), ref.source, ref.revision]
    paths = os.pathsep.join(filter(None, [str(app_home()), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ResourceError(
            f"The lesson could not be written to {target}: {done.stderr.strip().splitlines()[-1][:300]}",
            "Name a file that ends with .html, or a folder, that can be written.",
        )
    return done.stdout.strip().splitlines()[-1]
