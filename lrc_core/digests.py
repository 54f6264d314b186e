"""What files hold, as a digest; remembered by their stamps, so that each is read once. No torch.

A stamp is what the file system says of a file without reading it: size, times of its content and of its record, inode.
As long as the stamp stays the digest stays. A file that was written a moment ago could be written again within the same
tick of the file system's clock; its digest is not remembered until that has passed.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from lrc_core.errors import LrcError
from lrc_core.files import write_json
from lrc_core.paths import cache_home, read_only

FOLDER = "stamps"
"""Of the cache: one small file for each large file that was read."""
PIECE = 64 * 2**20
"""A longer file is hashed in pieces of so many bytes, in threads, and its digest is that of the pieces' digests."""
SETTLED_NS = 2_000_000_000
"""The coarsest clock of a file system in use (FAT) has two seconds."""
_SMALL = 2**20
"""Smaller files are read again by every process rather than remembered on the disk."""

Stamp = tuple[int, int, int, int, int]
_known: dict[str, tuple[Stamp, str]] = {}


def file_digest(path: Path | str) -> str:
    """SHA-256 of a file's content (of a file longer than :data:`PIECE`, of its pieces' SHA-256), 64 hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    real = os.path.realpath(path)
    stamp = _stamp(real)
    if (known := _known.get(real) or _remembered(real)) and known[0] == stamp:
        _known[real] = known
        return known[1]
    digest = _read(real)
    if _stamp(real) == stamp and time.time_ns() - max(stamp[1:3]) > SETTLED_NS:
        _known[real] = stamp, digest
        _remember(real, stamp, digest)
    return digest


def is_altered(path: Path, digest: str) -> bool:
    """Whether a file is not the one whose digest was recorded.

    Args:
        path: the file; one that is missing is told by whoever reads it.
        digest: as recorded; "" where nothing was, as of what older versions wrote.
    """
    try:
        return bool(digest) and file_digest(path) != digest
    except OSError:
        return False


def stamp_of(path: Path | str) -> tuple[int, int]:
    """What changes when a file changes: its time and size (zeros when it is missing)."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return 0, 0
    return found.st_mtime_ns, found.st_size


def digest_of(parts: Iterable[object]) -> str:
    """SHA-256 of JSON-able parts, 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(list(parts), sort_keys=True).encode()).hexdigest()


def _stamp(path: str) -> Stamp:
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev


def _read(path: str) -> str:
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= PIECE:
            return hashlib.file_digest(file, "sha256").hexdigest()
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
            pieces = threads.map(lambda start: _piece(file, start), range(0, size, PIECE))
            return hashlib.sha256(b"".join(pieces)).hexdigest()


def _piece(file: BinaryIO, start: int) -> bytes:
    found, end = hashlib.sha256(), start + PIECE
    while start < end and (data := os.pread(file.fileno(), min(2**22, end - start), start)):
        found.update(data)  # the interpreter is free meanwhile
        start += len(data)
    return found.digest()


def _record(path: str) -> Path:
    return cache_home() / FOLDER / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"


def _remembered(path: str) -> tuple[Stamp, str] | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(_record(path).read_text(encoding="utf-8"))
        size, mtime, ctime, inode, device = (int(number) for number in found["stamp"])
        if found["path"] == path and len(digest := str(found["digest"])) == 64:
            return (size, mtime, ctime, inode, device), digest
    return None


def _remember(path: str, stamp: Stamp, digest: str) -> None:
    """Keep it for other processes; where the cache cannot be written they read the file again."""
    if stamp[0] < _SMALL or read_only():
        return
    record = _record(path)
    with suppress(OSError, LrcError):
        record.parent.mkdir(parents=True, exist_ok=True)
        write_json(record, {"path": path, "stamp": stamp, "digest": digest}, durable=False)
