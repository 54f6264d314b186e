"""One heavy job per device: who may compute now, in the order in which the jobs were asked for. No torch.

The order is kept by tickets, small files named after the time of the request. A job that waits is a ticket and nothing
else, until :mod:`lrc_core.jobs.dispatcher` starts its worker. The slot is a lock file: the kernel gives it back when
its holder dies, so no lease can go stale. Both lie under the machine's name, so that machines can share a folder of
runs.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lrc_core.errors import LrcError, ResourceError
from lrc_core.files import disk_errors, lock_if_free, write_json
from lrc_core.runs.process import host_name, is_alive
from lrc_core.runs.store import Run, RunStore

FIRST_POLL_S, LAST_POLL_S = 0.2, 2.0
"""A process that waits for the device looks ever less often."""
MOST_WAITING = 50
MOST_VARIABLE = "LRC_MOST_WAITING"
KEPT_VARIABLES = ("HF_HOME", "HF_HUB_OFFLINE", "HF_ENDPOINT", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
"""Beside our own ones, what a job finds in its environment as it was where it was asked for. Never a secret."""


class DeviceQueue:
    """The queue of one machine's device."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._folder = store.root / ".queue" / host_name()

    @property
    def folder(self) -> Path:
        """Where tickets and the slot lie; of this machine alone."""
        return self._folder

    def enter(self, run: Run, queued_at: float) -> None:
        """Take a ticket, which keeps what the job needs of this process's environment. A second one is not taken."""
        ticket = self._folder / f"{round(queued_at * 1e6):020d}-{run.id}"
        if not ticket.exists():
            with disk_errors(ticket):
                self._folder.mkdir(parents=True, exist_ok=True)
            write_json(ticket, kept_environment(), durable=False)

    def leave(self, run_id: str) -> None:
        """Give the ticket back; nothing happens without one."""
        for ticket in self._tickets():
            if _run_of(ticket) == run_id:
                self._remove(ticket)

    def holds(self, run_id: str) -> bool:
        """Whether a run has a ticket."""
        return any(_run_of(ticket) == run_id for ticket in self._tickets())

    def environment_of(self, run_id: str) -> dict[str, str]:
        """What the run's ticket kept of the environment in which it was asked for."""
        for ticket in self._tickets():
            if _run_of(ticket) == run_id:
                with suppress(OSError, ValueError):
                    found = json.loads((self._folder / ticket).read_text(encoding="utf-8"))
                    return {name: str(value) for name, value in found.items() if _is_kept(name)}
        return {}

    def order(self) -> list[str]:
        """Ids of all runs with a ticket, in order; a dead one may be among them."""
        return [_run_of(ticket) for ticket in self._tickets()]

    def ahead(self, run_id: str) -> list[str]:
        """Ids of the runs that compute or will compute before this one, in order; as of :meth:`order`."""
        order = self.order()
        return order[: order.index(run_id)] if run_id in order else order

    def live(self) -> Iterator[str]:
        """Ids of the runs that compute or wait, in order, looked at one after the other. Tickets of dead ones go."""
        for ticket in self._tickets():
            if self._is_live(_run_of(ticket)):
                yield _run_of(ticket)
            else:
                self._remove(ticket)

    def is_next(self, run_id: str) -> bool:
        """Whether no run computes or waits before this one. Asks for the one right before it."""
        tickets = self._tickets()
        mine = next((place for place, ticket in enumerate(tickets) if _run_of(ticket) == run_id), len(tickets))
        for ticket in reversed(tickets[:mine]):
            if self._is_live(_run_of(ticket)):
                return False
            self._remove(ticket)
        return True

    def require_room(self) -> None:
        """Refuse another waiting job.

        Raises:
            ResourceError: as many wait as may.
        """
        most = most_waiting()
        if (waiting := len(self.order()) - 1) >= most:
            raise ResourceError(
                f"{waiting} jobs are waiting, and {most} may.",
                f"Wait for some of them, cancel some (`lrc runs cancel RUN`), or set {MOST_VARIABLE} to a larger one.",
            )

    @contextmanager
    def slot(self, run: Run, give_up: Callable[[], bool]) -> Iterator[bool]:
        """Wait for the device, with signs of life. Yields whether it is held; False when the wait became pointless.

        Args:
            give_up: a reason to stop beside a wish that the run be cancelled; asked before every look.
        """
        pause = FIRST_POLL_S
        try:
            while not (give_up() or run.cancel_requested()):
                run.beat()
                if self.is_next(run.id):
                    with lock_if_free(self._folder / "slot") as held:
                        if held:
                            yield True
                            return
                time.sleep(pause)
                pause = min(LAST_POLL_S, 1.2 * pause)
            yield False
        finally:
            self.leave(run.id)

    def _tickets(self) -> list[str]:
        """Names of the tickets, in order. Whoever waits asks for them again and again: no objects of paths."""
        try:
            return sorted(name for name in os.listdir(self._folder) if name[:20].isdigit() and name.count("-") > 1)
        except OSError:  # there is no folder before the first ticket
            return []

    def _remove(self, ticket: str) -> None:
        with suppress(OSError):
            (self._folder / ticket).unlink()

    def _is_live(self, run_id: str) -> bool:
        """Whether a run with a ticket computes, or waits with or without a process of its own."""
        try:
            status = self._store.open(run_id).status()
        except LrcError:
            return False
        if status.final:
            return False
        return (status.state == "queued" and status.pid is None) or is_alive(status) is not False


def most_waiting() -> int:
    """How many jobs may wait; ``LRC_MOST_WAITING`` overrides the usual number."""
    with suppress(ValueError):
        return max(0, int(os.environ.get(MOST_VARIABLE, MOST_WAITING)))
    return MOST_WAITING


def kept_environment() -> dict[str, str]:
    """What a job finds in its environment, wherever it works, as it is in this process."""
    return {name: value for name, value in os.environ.items() if _is_kept(name)}


def _is_kept(name: str) -> bool:
    secret = any(part in name for part in ("TOKEN", "KEY", "SECRET", "PASSWORD"))
    return not secret and (name.startswith("LRC_") or name in KEPT_VARIABLES)


def _run_of(ticket: str) -> str:
    return ticket[21:]
