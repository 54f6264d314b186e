"""The generation process: ``python -m lrc_core.jobs.generation_worker RUNS``. See :mod:`lrc_core.jobs.generator`.

It waits for the device like every job, then serves ``generate`` runs in the order of the queue with one model in
memory. It lets go of both when it has been idle for a while, on SIGTERM, or as soon as the next run
in the queue is another kind of job; runs that wait behind that job are served later by the same process, which begins
anew with ``exec`` so that nothing of torch or the model stays behind.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lrc_core.errors import CancelledError, LrcError, ResourceError
from lrc_core.jobs import generator
from lrc_core.jobs.generator import Generator
from lrc_core.jobs.queue import DeviceQueue
from lrc_core.runs.process import birth, identity, is_alive, is_mine, leave, start_time
from lrc_core.runs.recorder import record
from lrc_core.runs.store import Run, RunStore
from lrc_core.types import OnProgress, ShouldStop

log = logging.getLogger("lrc_core.jobs.generation_worker")
POLL_S = 0.1
LINGER_S = 2.0
"""How long a process that has not loaded anything yet looks for work."""


class GenerationWorker:
    """Serves the ``generate`` runs of one folder of runs on this machine.

    Args:
        idle_s: how long the model stays after the last answer.
        should_stop: asked all the time.
    """

    def __init__(self, store: RunStore, idle_s: float, should_stop: ShouldStop) -> None:
        self._store = store
        self._queue = DeviceQueue(store)
        self._idle_s = idle_s
        self._should_stop = should_stop
        self._told: Generator | None = None
        self._session: Any = None
        """A pipeline ``Session`` with its model loaded, or None."""

    def run(self) -> bool:
        """Work until there is nothing to do. Returns whether the process must begin anew for runs that wait."""
        begun = time.monotonic()
        while not self._should_stop():
            first = self._next()
            if first is None:
                if time.monotonic() - begun > LINGER_S and self._retired():
                    return False
                time.sleep(POLL_S)
                continue
            self._tell("waiting")
            with self._queue.slot(first, partial(self._gives_up, first)) as held:
                if held:
                    self._serve()
                    return not self._retired()
        return not self._retired()

    def _serve(self) -> None:
        """Answer runs in the order of the queue while the device is ours."""
        idle_since = time.monotonic()
        while not self._should_stop():
            run = self._next()
            other = next((run_id for run_id in self._queue.live() if not self._is_mine(run_id)), None)
            if other is not None and (run is None or run.id not in self._queue.ahead(other)):
                log.info("the device is needed by %s", other)
                return
            if run is not None:
                self._tell("busy")
                self._answer(run)
                self._queue.leave(run.id)
                idle_since = time.monotonic()
                continue
            left = self._idle_s - (time.monotonic() - idle_since)
            if left <= 0:
                log.info("idle for %.0f s", self._idle_s)
                return
            if self._told is None or self._told.state != "idle":
                self._tell("idle", time.time() + left)
            time.sleep(POLL_S)

    def _next(self) -> Run | None:
        """The first run of the queue that waits for this process."""
        return next((Run(self._store.root / name) for name in self._queue.order() if self._is_mine(name)), None)

    def _is_mine(self, run_id: str) -> bool:
        """Whether a run waits for this process: started for it, or left by one that has died."""
        if run_id.rpartition("-")[0] not in generator.KINDS:
            return False
        try:
            status = Run(self._store.root / run_id).status()
        except LrcError:
            return False
        return status.state == "queued" and (is_mine(status) or is_alive(status) is False)

    def _gives_up(self, run: Run) -> bool:
        """Whether waiting for the device with this run is pointless."""
        return self._should_stop() or not self._is_mine(run.id)

    def _answer(self, run: Run) -> None:
        """Do one run and keep its model."""
        try:
            self._adopt(run)
            with _logging_to(run.path / "stdout.log"):
                record(
                    run, lambda on_progress, stop: self._execute(run, on_progress, stop), should_stop=self._should_stop
                )
        except ResourceError:
            self._session = None
        except LrcError as error:  # recorded and logged where it was met
            log.info("run %s: %s", run.id, error)
        if self._session is not None and "loaded" not in vars(self._session):
            self._session = None

    def _adopt(self, run: Run) -> None:
        with self._store.lock():
            status = run.status()
            if status.state == "queued" and not is_mine(status):
                run.write_status(replace(status, **identity(os.getpid())))

    def _execute(self, run: Run, on_progress: OnProgress, should_stop: ShouldStop) -> dict[str, Any]:
        from lrc_core.pipeline import execute_in
        from lrc_core.pipeline.session import Session

        if self._session is not None and self._session.serves(run.spec):
            self._session = self._session.watched_by(on_progress, should_stop)
        else:
            self._session = None  # the old model goes before the new one comes
            self._session = Session(run.spec.model, on_progress, should_stop, dict(run.spec.contents))
        self._tell("busy", model=run.spec.model.source)
        return execute_in(run, self._session)

    def _tell(self, state: str, release_at: float = 0.0, model: str | None = None) -> None:
        pid = os.getpid()
        holds = model if model is not None else self._told.model if self._told is not None else ""
        told = Generator(pid, start_time(pid), state, holds, release_at, birth(pid))
        if told != self._told:
            generator.tell(self._store, told)
            self._told = told

    def _retired(self) -> bool:
        """End, unless runs wait for this process, told to go or not: whoever handed them over counts on it.

        Under the lock, so that none can be handed over from now on.
        """
        with self._store.lock():
            if self._next() is not None:
                return False
            path = generator.record_path(self._store)
            found = generator.find(self._store)
            if found is not None and found.pid == os.getpid():
                with suppress(OSError):
                    path.unlink()
            return True


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """What is logged about one run belongs into its folder."""
    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


def main(root: Path) -> int:
    """Serve until there is nothing to do, then begin anew if runs wait behind another job."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    try:
        again = GenerationWorker(RunStore(root), generator.idle_s(), stop.is_set).run()
    except CancelledError:
        return 0
    except LrcError as error:
        log.error("%s", error)
        return 1
    if again:
        # Held back until the new program can heed it: nobody would answer the runs that wait if it killed this one.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        logging.shutdown()
        os.execv(sys.executable, [sys.executable, "-m", f"lrc_core.jobs.{generator.MODULE}", str(root)])
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    leave(main(Path(sys.argv[1])))
