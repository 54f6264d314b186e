"""Making a folder or nothing: under a lock between processes, built aside, moved into place in one step."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lrc_core.errors import CancelledError, ResourceError
from lrc_core.models.resources import disk_available, human_bytes
from lrc_core.types import OnProgress, Progress, ShouldStop

_POLL_S = 0.3
_DISK_REMEDY = "Free some space, or set LRC_CACHE to a folder on another disk."


@contextmanager
def locked(path: Path, label: str, on_progress: OnProgress, should_stop: ShouldStop) -> Iterator[None]:
    """Hold a lock file. The system frees it when its holder dies, so a stale one cannot block.

    Raises:
        CancelledError: the user asked to stop while another process held it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    while True:
        try:
            lock.acquire(timeout=_POLL_S)
            break
        except Timeout:
            on_progress(Progress(f"waiting for another process that prepares the {label}"))
            if should_stop():
                raise CancelledError(f"Stopped while waiting for the {label}.") from None
    try:
        yield
    finally:
        lock.release()


def fill_aside(folder: Path, fill: Callable[[Path], None]) -> None:
    """Let ``fill`` write into an empty folder and put that in the place of ``folder``. Hold its lock meanwhile."""
    prefix = f".{folder.name}-"
    for leftover in folder.parent.glob(f"{prefix}*"):  # of a process that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=prefix))
    try:
        fill(aside)
        aside.chmod(0o755)  # mkdtemp makes it private
        shutil.rmtree(folder, ignore_errors=True)
        aside.replace(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def require_disk(folder: Path, needed: int, label: str) -> None:
    """Refuse to begin what cannot be finished.

    Raises:
        ResourceError: fewer than ``needed`` bytes are free.
    """
    if (free := disk_available(folder)) < needed:
        raise ResourceError(
            f"The {label} needs {human_bytes(needed)} on the disk of {folder}, which has {human_bytes(free)} left.",
            _DISK_REMEDY,
        )


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Say "disk full" and "not writable" as such.

    Raises:
        ResourceError: instead of the system's error.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError(f"The disk of {folder} is full.", _DISK_REMEDY) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR):
            raise ResourceError(
                f"Cannot write to the cache folder {folder}: {error.strerror}.",
                "Set LRC_CACHE to a folder you may write to.",
            ) from error
        raise
