"""Whether the server can work, for a load balancer or whoever watches it: ``/healthz``."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from starlette.responses import JSONResponse, Response

from lrc_core.jobs.queue import DeviceQueue
from lrc_core.paths import read_only, runs_home
from lrc_core.runs.store import RunStore

PATH = "/healthz"
_LEAST_FREE = 2**30
"""Bytes that a disk should have free for another run."""


def answer() -> Response:
    """200 and how many jobs wait, or 503 and why no job could be kept. Nothing that only visitors may know."""
    if read_only():
        return JSONResponse({"status": "ok"})
    home = runs_home()
    if trouble := _trouble(home):
        return JSONResponse({"status": trouble}, status_code=503)
    waiting = max(0, len(DeviceQueue(RunStore()).order()) - 1)
    return JSONResponse({"status": "ok", "waiting": waiting})


def _trouble(home: Path) -> str:
    """What is wrong with the folder of runs, "" if nothing is. One that is not there yet will be made."""
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    if not os.access(there, os.W_OK):
        return "the folder of runs cannot be written"
    return "the disk is full" if shutil.disk_usage(there).free < _LEAST_FREE else ""
