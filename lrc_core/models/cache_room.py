"""What comes before a large folder of the cache is made: one process at a time, and room for it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from lrc_core.errors import CancelledError, ResourceError
from lrc_core.files import CACHE_REMEDY, locked
from lrc_core.models.resources import disk_available
from lrc_core.types import OnProgress, Progress, ShouldStop
from lrc_core.words import data_size


def one_at_a_time(
    path: Path, label: str, on_progress: OnProgress, should_stop: ShouldStop
) -> AbstractContextManager[None]:
    """Hold a lock file; a waiting process says so and can be stopped.

    Raises:
        CancelledError: the user asked to stop while another process held it.
    """

    def waiting() -> None:
        on_progress(Progress(f"waiting for another process that prepares the {label}"))
        if should_stop():
            raise CancelledError(f"Stopped while waiting for the {label}.")

    return locked(path, waiting, cache=True)


def require_disk(folder: Path, needed: int, label: str) -> None:
    """Refuse to begin what cannot be finished.

    Raises:
        ResourceError: fewer than ``needed`` bytes are free.
    """
    if (free := disk_available(folder)) < needed:
        raise ResourceError(
            f"The {label} needs {data_size(needed)} on the disk of {folder}, which has {data_size(free)} left.",
            CACHE_REMEDY,
        )
