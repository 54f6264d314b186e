"""One heavy job per device: who may compute now, in the order in which the jobs were asked for. No torch.

Every submitted job has its own light process, which waits here before it imports torch. The slot is a lock file: the
kernel gives it back when its holder dies, so no lease can go stale. The order is kept by tickets, empty files named
after the time of the request. Both lie under the machine's name, so that machines can share a folder of runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lrc_core.errors import LrcError
from lrc_core.files import disk_errors, lock_if_free
from lrc_core.runs.process import host_name, is_alive
from lrc_core.runs.store import Run, RunStore

POLL_S = 0.2
START_GRACE_S = 30.0
"""How long a queued run may be without a process: the time between its record and its worker's."""


class DeviceQueue:
    """The queue of one machine's device.

    Args:
        store: the runs.
    """

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._folder = store.root / ".queue" / host_name()

    @property
    def folder(self) -> Path:
        """Where tickets and the slot lie; of this machine alone."""
        return self._folder

    def enter(self, run: Run, queued_at: float) -> None:
        """Take a ticket. Entering twice keeps the first."""
        ticket = self._folder / f"{round(queued_at * 1e6):020d}-{run.id}"
        with disk_errors(ticket):
            self._folder.mkdir(parents=True, exist_ok=True)
            ticket.touch()

    def leave(self, run_id: str) -> None:
        """Give the ticket back; nothing happens without one."""
        for ticket in self._tickets():
            if _run_of(ticket) == run_id:
                _remove(ticket)

    def ahead(self, run_id: str) -> list[str]:
        """Ids of the runs that compute or will compute before this one, in order."""
        return self._live(until=run_id)

    def order(self) -> list[str]:
        """Ids of all runs that compute or wait, in order."""
        return self._live()

    def _live(self, until: str = "") -> list[str]:
        before = []
        for ticket in self._tickets():
            other = _run_of(ticket)
            if other == until:
                break
            if self._is_waiting_or_running(other):
                before.append(other)
            else:
                _remove(ticket)
        return before

    @contextmanager
    def slot(self, run_id: str, give_up: Callable[[], bool]) -> Iterator[bool]:
        """Wait for the device. Yields whether it is held; False when ``give_up`` said so."""
        try:
            while not give_up():
                if not self.ahead(run_id):
                    with lock_if_free(self._folder / "slot") as held:
                        if held:
                            yield True
                            return
                time.sleep(POLL_S)
            yield False
        finally:
            self.leave(run_id)

    def _tickets(self) -> list[Path]:
        return sorted(path for path in self._folder.glob("*-*-*") if path.name[:20].isdigit())

    def _is_waiting_or_running(self, run_id: str) -> bool:
        try:
            status = self._store.open(run_id).status()
        except LrcError:
            return False
        if status.final:
            return False
        if status.pid is None:
            return time.time() - status.updated_at < START_GRACE_S
        return is_alive(status) is not False


def _run_of(ticket: Path) -> str:
    return ticket.name[21:]


def _remove(ticket: Path) -> None:
    with suppress(OSError):
        ticket.unlink()
