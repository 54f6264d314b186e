"""What an earlier attempt left and cannot be read any more: set aside and reported, and the run goes on. No torch.

A power cut or a failing disk leaves files empty, cut short or full of something else. A run that goes on must neither
believe them nor fail on them again and again. Of what is read through here only a plan recorded on the way cannot be
made anew: the run then offers one rate fewer.
"""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from lrc_core.errors import CancelledError, RunError
from lrc_core.files import move, write_atomic

ENDING = ".damaged"
_log = logging.getLogger(__name__)
_told: list[list[str]] = []
T = TypeVar("T")


def earlier(path: Path, read: Callable[[Path], T]) -> T | None:
    """What an earlier attempt left in a file; None where there is none, or where it was damaged and is set aside.

    Args:
        read: reads and checks it; whatever it raises means that the file is damaged.
    """
    if not path.exists():
        return None
    try:
        return read(path)
    except (CancelledError, MemoryError):
        raise
    except Exception as error:  # every format has its own errors for a broken file
        set_aside(path, error)
        return None


def set_aside(path: Path, reason: object) -> None:
    """Rename a damaged file to ``NAME.damaged`` and say so: in the log, and to who listens."""
    with suppress(OSError):
        move(path, path.with_name(path.name + ENDING))
    words = str(reason).strip().split("\n")[0][:200] or type(reason).__name__
    aside = f"set aside as {path.name}{ENDING}, and the run goes on without it."
    warning = f"{path.name} could not be read ({words.rstrip('.')}): {aside}"
    _log.warning("%s It lay in %s.", warning, path.parent)
    for told in _told:
        told.append(warning)


@contextmanager
def damage_told() -> Iterator[list[str]]:
    """Collect what :func:`set_aside` says while the block runs."""
    mine: list[str] = []
    _told.append(mine)
    try:
        yield mine
    finally:
        _told[:] = [each for each in _told if each is not mine]


def require_whole_zip(path: Path) -> None:
    """Compare the checksums of everything in a zip file, such as a checkpoint of torch, which itself does not look.

    Raises:
        RunError: one differs.
        zipfile.BadZipFile: it is no zip file.
    """
    with zipfile.ZipFile(path) as file:
        if (damaged := file.testzip()) is not None:
            raise RunError(f"{path} is damaged: the checksum of {damaged} is wrong.")


def read_lines(path: Path, is_record: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Records of a file that only grows, one JSON object per line. Lines that are none are taken out of the file.

    A line that a kill left half-written at the end goes without a word; with anything else the file is set aside.

    Args:
        path: the file; it need not be there.
        is_record: whether an object is whole.
    """
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    found = [record for line in lines if (record := _parsed(line)) is not None and is_record(record)]
    if len(found) < len(lines):
        half = not lines[-1].endswith(b"\n") and b"\0" not in lines[-1]
        if len(found) < len(lines) - 1 or not half:
            set_aside(path, f"{len(lines) - len(found)} of {len(lines)} lines are damaged")
        write_atomic(path, "".join(json.dumps(record) + "\n" for record in found))
    return found


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
