"""Where things lie on the user's disk. Environment variables override every folder."""

from __future__ import annotations

import os
from pathlib import Path


def cache_home() -> Path:
    """Folder of what can be fetched or computed again: starter pack, decompositions. ``LRC_CACHE`` overrides it."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lrc"
    return Path(os.environ.get("LRC_CACHE") or default).expanduser()


def runs_home() -> Path:
    """Folder of run folders. ``LRC_RUNS`` overrides it."""
    default = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "lrc" / "runs"
    return Path(os.environ.get("LRC_RUNS") or default).expanduser()


def plans_home() -> Path:
    """Folder of plans made by hand and of their scores, beside the runs. ``LRC_PLANS`` overrides it."""
    return Path(os.environ.get("LRC_PLANS") or runs_home().parent / "plans").expanduser()
