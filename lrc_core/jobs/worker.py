"""The process of one job: ``python -m lrc_core.jobs.worker RUN_DIR``.

It waits for its turn, then imports torch and does the work of the run's spec. All it has to say is in the run folder;
what it logs goes to standard error, which the manager sends to ``stdout.log``. Standing alone (on a cluster, say) it
needs nothing but the run folder.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from lrc_core.errors import CancelledError, LrcError
from lrc_core.jobs import dispatcher
from lrc_core.jobs.queue import DeviceQueue
from lrc_core.kinds import KINDS
from lrc_core.runs.process import identity, is_alive, is_mine, leave
from lrc_core.runs.recorder import record
from lrc_core.runs.store import Run, RunStore
from lrc_core.types import OnProgress, ShouldStop

log = logging.getLogger("lrc_core.jobs.worker")

Execute = Callable[..., dict[str, Any]]
"""``(run, *, on_progress, should_stop) -> result``, as :func:`lrc_core.pipeline.execute`."""

DONE, FAILED, CANCELLED, NOT_MINE = 0, 1, 2, 3


def main(run_dir: Path, execute: Execute | None = None, *, turn: bool = True) -> int:
    """Work on one run until it is final.

    Args:
        run_dir: the run folder; the folder above it is the store.
        execute: what does the work; by default the pipeline, imported when it is this run's turn.
        turn: wait for the device; not where a scheduler has given this process one.

    Returns:
        Exit code: 0 done, 1 failed, 2 cancelled, 3 another process works on the run.
    """
    run = Run(run_dir.resolve())
    store = RunStore(run.path.parent)
    try:
        if not _adopt(store, run):
            log.warning("run %s is finished or has another worker; nothing to do", run.id)
            return NOT_MINE
        with _stop_on_signal(run) as should_stop:
            return _take_turn(store, run, execute or _pipeline, should_stop, turn)
    except LrcError as error:
        log.error("%s", error)
        return FAILED
    finally:
        with suppress(LrcError):  # if the dispatcher was killed, the next job needs a new one
            dispatcher.ensure(store)


def _adopt(store: RunStore, run: Run) -> bool:
    """Make this process the run's, unless it has a live one. The manager writes our pid while it holds the lock."""
    with store.lock():
        status = run.status()
        if status.state != "queued":
            return False
        if is_mine(status):
            return True
        if is_alive(status) is not False:
            return False
        run.write_status(replace(status, **identity(os.getpid())))
        DeviceQueue(store).enter(run, status.queued_at)
        return True


def _take_turn(store: RunStore, run: Run, execute: Execute, should_stop: ShouldStop, turn: bool) -> int:
    waits = turn and not KINDS[run.spec.kind].light
    device = DeviceQueue(store).slot(run, lambda: should_stop() or not _still_queued_for_me(run))
    with device if waits else nullcontext(True) as held:
        if not _still_queued_for_me(run):
            log.info("run %s was cancelled, or is done by another process", run.id)
            return NOT_MINE
        if not held:
            log.info("run %s was cancelled while it waited", run.id)
        try:
            record(
                run,
                lambda on_progress, stop: execute(run, on_progress=on_progress, should_stop=stop),
                should_stop=should_stop,
            )
        except CancelledError:
            return CANCELLED
        except LrcError:  # recorded and logged where it was met
            return FAILED
    return DONE


def _still_queued_for_me(run: Run) -> bool:
    try:
        status = run.status()
    except LrcError:  # deleted, or damaged beyond use
        return False
    return status.state == "queued" and is_mine(status)


def _pipeline(run: Run, *, on_progress: OnProgress, should_stop: ShouldStop) -> dict[str, Any]:
    from lrc_core.pipeline import execute

    return execute(run, on_progress=on_progress, should_stop=should_stop)


@contextmanager
def _stop_on_signal(run: Run) -> Iterator[ShouldStop]:
    """SIGTERM asks for a cancel. When one was already asked for, it stops the work at once, wherever it is."""
    stop = threading.Event()

    def on_term(_number: int, _frame: FrameType | None) -> None:
        urgent = stop.is_set() or run.cancel_requested()
        stop.set()
        if urgent:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once: the clean-up that follows must not be hit again
            raise CancelledError("Stopped at once.")

    if threading.current_thread() is not threading.main_thread():  # only a test calls it from elsewhere
        yield stop.is_set
        return
    before = signal.signal(signal.SIGTERM, on_term)
    try:
        yield stop.is_set
    finally:
        signal.signal(signal.SIGTERM, before)


def _command_line(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m lrc_core.jobs.worker", description="Work on one run.")
    parser.add_argument("run_dir", type=Path)
    parsed = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    return main(parsed.run_dir)


if __name__ == "__main__":
    leave(_command_line(sys.argv[1:]))
