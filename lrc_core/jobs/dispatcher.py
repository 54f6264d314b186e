"""Starts waiting jobs one after the other: ``python -m lrc_core.jobs.dispatcher RUNS``. No torch.

One such process per machine and folder of runs, there while jobs wait and gone with the last of them. It is started by
whoever submits, looks at or finishes a job, so that one that was killed is soon replaced. Jobs that need a secret are
not its business: they wait in a process of their own, which alone knows the secret.
"""

from __future__ import annotations

import logging
import os
import select
import sys
import time
from contextlib import suppress
from pathlib import Path

from lrc_core.errors import LrcError
from lrc_core.files import disk_errors, lock_if_free
from lrc_core.jobs.launch import end_run, start_process, start_run
from lrc_core.jobs.queue import DeviceQueue
from lrc_core.runs.store import Run, RunStore

MODULE = "dispatcher"
LOOK_S = 2.0
"""How long it sleeps at most; the end of the process that it waits for wakes it."""
START_S = 10.0
"""How long a new one may take until it holds its lock."""
log = logging.getLogger(f"lrc_core.jobs.{MODULE}")


def ensure(store: RunStore) -> None:
    """Start the dispatcher of these runs on this machine, where jobs wait for one and there is none.

    Raises:
        ResourceError: it cannot be started.
    """
    queue = DeviceQueue(store)
    if waiting_run(store) is None or _is_there(queue):
        return
    stamp = queue.folder / f"{MODULE}.started"
    with suppress(OSError):
        if time.time() - stamp.stat().st_mtime < START_S:
            return
    with disk_errors(stamp):
        stamp.touch()
    start_process((MODULE, str(store.root.resolve())), queue.folder / f"{MODULE}.log", "The dispatcher of jobs")


def waiting_run(store: RunStore) -> Run | None:
    """The first run that waits without a process of its own."""
    for run_id in DeviceQueue(store).live():
        run = Run(store.root / run_id)
        with suppress(LrcError):  # deleted meanwhile
            status = run.status()
            if status.state == "queued" and status.pid is None:
                return run
    return None


def serve(store: RunStore) -> None:
    """Start waiting runs in order, each when it is the first, until none waits."""
    queue = DeviceQueue(store)
    with lock_if_free(queue.folder / MODULE) as held:
        while held:
            # Whoever submits holds the store's lock: it either sees us or we see its ticket.
            with store.lock():
                run = waiting_run(store)
                if run is None:
                    (queue.folder / f"{MODULE}.started").unlink(missing_ok=True)
                    return
                first = next(queue.live(), run.id)
                if first == run.id:
                    _start(store, run)
            _sleep(Run(store.root / first))


def _is_there(queue: DeviceQueue) -> bool:
    with lock_if_free(queue.folder / MODULE) as free:
        return not free


def _start(store: RunStore, run: Run) -> None:
    status = run.status()
    try:
        start_run(store, run, status, DeviceQueue(store).environment_of(run.id))
    except LrcError as error:
        log.error("run %s: %s", run.id, error)
        end_run(store, run, status, "failed", error)


def _sleep(first: Run) -> None:
    """Until the process of the first run has gone, but not for long: what it waits for may change."""
    with suppress(LrcError):
        pid = first.status().pid
        with suppress(AttributeError, OSError):  # not on every system; of a process that has just gone
            if pid is not None:
                handle = os.pidfd_open(pid)
                try:
                    select.select([handle], [], [], LOOK_S)
                finally:
                    os.close(handle)
                time.sleep(0.05)  # until it counts as dead everywhere
                return
    time.sleep(LOOK_S if first.path.exists() else 0.1)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    serve(RunStore(Path(sys.argv[1])))
