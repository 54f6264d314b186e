"""Files of a run folder: atomic replacement, appended lines, locks, and disk errors in plain words. No torch."""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lrc_core.errors import ResourceError, RunError
from lrc_core.paths import require_writable

_FULL = (errno.ENOSPC, errno.EDQUOT)
_counter = itertools.count()


def is_disk_full(error: BaseException | None) -> bool:
    """Whether the error, or what caused it, is a full disk or an exhausted quota."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__
    return False


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's errors on ``path`` into errors a user can act on.

    Raises:
        ResourceError: the disk is full.
        RunError: anything else (no such folder, no permission).
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise ResourceError(
                f"The disk is full: {path} could not be written.",
                "Free some space (`lrc doctor --clean` empties the cache of decompositions), then resume the run.",
            ) from error
        raise RunError(f"Cannot write {path}: {error.strerror or error}.") from error


def write_atomic(path: Path, text: str | bytes, *, durable: bool = False) -> None:
    """Replace a file in one step: a reader sees the old content or the new one, never a part.

    Args:
        path: the file.
        text: its new content; text is written as UTF-8.
        durable: wait until the text has reached the disk; for records that must survive a power cut.

    Raises:
        ResourceError: the disk is full. The old file is left as it was.
        RunError: the file cannot be written for another reason.
    """
    require_writable(f"{path.name} is not written")
    # One name per process and call: two writers never share a temporary file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{next(_counter)}.tmp")
    with disk_errors(path):
        try:
            with temporary.open("wb") as file:
                file.write(text.encode() if isinstance(text, str) else text)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise


def write_json(path: Path, data: Any, *, durable: bool = False) -> None:
    """Write JSON atomically; numbers of numpy and torch are written as plain ones."""
    write_atomic(path, json.dumps(data, default=plain, indent=1), durable=durable)


def append_line(path: Path, line: str) -> None:
    """Append one line in a single write, closing a line that an earlier writer left half-written.

    Raises:
        ResourceError: the disk is full.
        RunError: the file cannot be written for another reason.
    """
    require_writable(f"{path.name} is not written")
    with disk_errors(path), path.open("ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = "\n" + line
        file.write((line + "\n").encode())


def plain(value: Any) -> Any:
    """A JSON-able form of scalars and arrays that offer ``tolist``; for ``json.dumps(default=...)``."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, waiting for it. The kernel releases it when the process dies, however it dies."""
    require_writable("no run changes hands")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def lock_if_free(path: Path, wait_s: float = 0.0) -> Iterator[bool]:
    """Try to hold a lock file, for ``wait_s`` seconds at most; yields whether it is held."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline = time.monotonic() + wait_s
        while not (held := _locks(descriptor)) and time.monotonic() < deadline:
            time.sleep(0.02)
        yield held
    finally:
        os.close(descriptor)


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
