"""What killed processes left behind in a folder of runs and in the cache: found, and removed when nobody needs it."""

from __future__ import annotations

import math
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from lrc_core.files import disk_errors, make_private

GRAVE, UNBORN = ".gone-", ".new-"
"""Beginnings of the names of folders: of runs that are deleted, and of runs that are not yet made."""
DAY_S = 86_400.0
"""After so long nobody writes into what is half-made, on any machine that shares the folder."""
_STAMP = ".swept"
# As `lrc_core.files` names them, and as older versions did.
_TEMPORARY = re.compile(r"\..+\.\d+\.\d+\.tmp|.+\.tmp(\.np[yz])?")


def is_due(root: Path, now: float) -> bool:
    """Whether there is a grave, or the last look was a day ago; quick to ask."""
    if not root.is_dir():
        return False
    return any(_children(root, GRAVE)) or not abs(_age(root / _STAMP, now)) < DAY_S


def sweep(root: Path, cache: Path) -> None:
    """Remove graves at once, and what is half-made after a day. The caller holds the store's lock.

    Args:
        root: the folder of runs; one that others may enter is closed to them.
        cache: the cache, whose half-written files go as well.

    Raises:
        RunError: the folder of runs cannot be written.
    """
    now = time.time()
    for grave in _children(root, GRAVE):
        shutil.rmtree(grave, ignore_errors=True)
    if abs(_age(root / _STAMP, now)) < DAY_S:
        return
    make_private(root)
    for folder in _children(root, UNBORN):
        if _age(folder, now) > DAY_S:
            shutil.rmtree(folder, ignore_errors=True)
    for path in (*_temporary_files(root), *_temporary_files(cache)):
        if _age(path, now) > DAY_S:
            with suppress(OSError):
                path.unlink()
    with disk_errors(root):
        (root / _STAMP).touch()


def _age(path: Path, now: float) -> float:
    """Seconds since something was written, NaN where there is nothing."""
    try:
        return now - path.stat().st_mtime
    except OSError:
        return math.nan


def _children(root: Path, beginning: str) -> Iterator[Path]:
    with suppress(OSError), os.scandir(root) as entries:
        yield from [Path(entry.path) for entry in entries if entry.name.startswith(beginning)]


def _temporary_files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names if _TEMPORARY.fullmatch(name))
