"""How runs come to their end from outside: deaths are found out and recorded, and stops that were asked for pressed on.

On this machine the process itself is asked (a laptop that slept has an old heartbeat and a healthy worker); for a
worker elsewhere the heartbeat decides.
"""

from __future__ import annotations

import logging
import signal
import time

from lrc_core.errors import LrcError
from lrc_core.jobs import generator, placed
from lrc_core.jobs.launch import end_run, signal_worker
from lrc_core.jobs.node import STALE_BEAT_S
from lrc_core.jobs.queue import DeviceQueue
from lrc_core.runs.process import host_name, is_alive
from lrc_core.runs.records import Status
from lrc_core.runs.store import Run, RunStore

log = logging.getLogger(__name__)

START_GRACE_S = 30.0
"""How long a queued run may be without a process and without a ticket: the time between its record and either."""
TERM_AFTER_S, KILL_AFTER_S = 20.0, 40.0
"""How long after the request a cancel turns into SIGTERM and SIGKILL."""
POLL_S = 0.1


def settled(store: RunStore, run: Run) -> bool:
    """Record that a run's process has died.

    Returns:
        Whether it had; False when it lives, or when the run is final or damaged.
    """
    try:
        if away := placed.is_away(run):
            return placed.settle(store, run, away)
        if not _looks_dead(store, run, run.status()):
            return False
        with store.lock(), run.claim(wait_s=2) as free:  # a killed process lets go a moment after it counts as dead
            status = run.status()
            if not free or not _looks_dead(store, run, status):
                return False
            _end_dead(store, run, status)
            return True
    except Exception as error:  # a record that cannot be read makes a damaged run, which hinders no other
        if not isinstance(error, LrcError):
            log.warning("run %s cannot be read", run.id, exc_info=error)
        return False


def _looks_dead(store: RunStore, run: Run, status: Status) -> bool:
    if status.final:
        return False
    now = time.time()
    if status.pid is None:
        here = status.host in ("", host_name())
        return here and now - status.updated_at > START_GRACE_S and not DeviceQueue(store).holds(run.id)
    alive = is_alive(status)
    if alive is None:
        age = run.heartbeat_age(now)
        return (now - status.updated_at if age is None else age) > STALE_BEAT_S
    return not alive


def _end_dead(store: RunStore, run: Run, status: Status) -> None:
    if (run.path / "result.json").exists():
        end_run(store, run, status, "done", LrcError(""))
    elif run.cancel_requested():
        end_run(store, run, status, "cancelled", LrcError("The worker was stopped."))
    elif status.state == "queued":
        end_run(store, run, status, "interrupted", LrcError("The worker died before it began.", "Resume the run."))
    else:
        silent = LrcError(
            "The worker died without a word: it was killed, memory ran out, or the machine went down.",
            "Resume the run; it goes on from its checkpoint. If memory ran out, use fewer or shorter windows.",
        )
        end_run(store, run, status, "interrupted", silent)


def see_it_stop(store: RunStore, run: Run) -> None:
    """Watch a cancelled run until it has stopped, with growing pressure."""
    give_up = time.monotonic() + KILL_AFTER_S + 20
    while time.monotonic() < give_up:
        try:
            if run.status().final:
                return
        except LrcError:  # deleted meanwhile
            return
        if settled(store, run):
            return
        press(run)
        time.sleep(POLL_S)


def press(run: Run) -> None:
    """Signal a worker that has not heeded its cancel request for a while."""
    try:
        age = time.time() - (run.path / "cancel").stat().st_mtime
        status = run.status()
    except (OSError, LrcError):
        return
    if status.state != "cancelling":
        return
    if away := placed.is_away(run):
        if age > TERM_AFTER_S:
            placed.recall(RunStore(run.path.parent), away)
    elif run.spec.kind in generator.KINDS and age > TERM_AFTER_S:
        generator.release(RunStore(run.path.parent), at_once=age > KILL_AFTER_S)
    elif age > KILL_AFTER_S:
        signal_worker(run, status, signal.SIGKILL)
    elif age > TERM_AFTER_S:
        signal_worker(run, status, signal.SIGTERM)
