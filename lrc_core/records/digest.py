"""Whether a file is the one that was written: SHA-256, computed once for as long as the file does not change."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

Stamp = tuple[int, int]


def stamp_of(path: Path | str) -> Stamp:
    """What changes when a file changes: its time and size (zeros when it is missing)."""
    try:
        stat = os.stat(path)
    except (OSError, ValueError):
        return 0, 0
    return stat.st_mtime_ns, stat.st_size


def digest_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    stat = path.stat()
    return _digest(str(path), (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino))


def is_altered(path: Path, digest: str) -> bool:
    """Whether a file is not the one whose digest was recorded.

    Args:
        path: the file; one that is missing is told by whoever reads it.
        digest: as recorded; "" where nothing was, as in what older versions wrote.
    """
    try:
        return bool(digest) and digest_of(path) != digest
    except OSError:
        return False


@lru_cache(maxsize=4096)
def _digest(path: str, _stamps: tuple[int, ...]) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
