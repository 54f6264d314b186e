"""Do the work of a run in this process and keep its folder up to date while it goes. No torch.

The worker records its own run with it; a job whose parts are runs of their own (a comparison) records each part.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from lrc_core.errors import CancelledError, LrcError, ResourceError, RunError
from lrc_core.files import is_disk_full, json_plain
from lrc_core.runs.process import identity
from lrc_core.runs.records import Status, event_from
from lrc_core.runs.store import Run
from lrc_core.types import OnProgress, Progress, ShouldStop, never_stop

log = logging.getLogger(__name__)

Work = Callable[[OnProgress, ShouldStop], dict[str, Any]]
"""What is recorded: takes ``on_progress`` and ``should_stop``, returns the content of ``result.json``."""

EVENT_EVERY_S, FIGURES_EVERY_S, STATUS_EVERY_S, BEAT_EVERY_S = 0.25, 0.05, 0.25, 2.0
STATUS_SHARE, SLOWEST_STATUS_S = 0.05, 2.0
"""The part of a run's time that writing its status may take, and how seldom it is written for that."""
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")


class Recorder:
    """Writes progress into a run's folder, a few times per second at most. Thread-safe.

    Args:
        run: the run; the caller holds its claim.
        status: its state as this attempt begins.
        clock: unix seconds.
    """

    def __init__(self, run: Run, status: Status, clock: Callable[[], float] = time.time) -> None:
        self.run = run
        self._status = status
        self._clock = clock
        self._mutex = threading.RLock()
        self._waiting_event: dict[str, Any] | None = None
        self._event_at = self._status_at = 0.0
        self._status_every = STATUS_EVERY_S
        self._status_waits = False
        self._write_status(status)

    @property
    def status(self) -> Status:
        """The newest state, written or not."""
        return self._status

    def progress(self, progress: Progress) -> None:
        """Take note of one tick. The first and the last tick of a phase are always written.

        Raises:
            ResourceError: the disk is full.
        """
        with self._mutex:
            now = self._clock()
            fresh = progress.phase != self._status.phase or self._status.phase_started_at == 0.0
            last = progress.total > 0 and progress.step >= progress.total
            if fresh:
                self._flush_event()
            self._note(progress, now, fresh)
            self._waiting_event = event_from(progress, now)
            every = EVENT_EVERY_S if progress.values is None else FIGURES_EVERY_S
            if fresh or last or now - self._event_at >= every:
                self._flush_event()
            if fresh or last or now - self._status_at >= self._status_every:
                self._write_status(self._status)

    def flush(self) -> None:
        """Write what is held back."""
        with self._mutex:
            self._flush_event()
            if self._status_waits:
                self._write_status(self._status)

    def end(self, state: str, error: LrcError | None = None) -> None:
        """Write the final state. On a full disk the old record is overwritten in place, which needs no space."""
        with self._mutex:
            with suppress(LrcError):
                self._flush_event()
            now = self._clock()
            status = replace(self._status, state=state, ended_at=now, updated_at=now)
            if error is not None:
                status = status.failed_by(error)
            try:
                self._write_status(status)
            except ResourceError:
                _overwrite(self.run, replace(status, values=None))

    def _note(self, progress: Progress, now: float, fresh: bool) -> None:
        before = self._status
        if fresh:
            before = replace(before, values=None, phase_started_at=now, phase_first_step=progress.step)
        self._status = replace(
            before,
            phase=progress.phase,
            step=progress.step,
            total=progress.total,
            values=before.values if progress.values is None else progress.values,
            updated_at=now,
        )
        self._status_waits = True

    def _flush_event(self) -> None:
        if self._waiting_event is not None:
            self.run.append_event(self._waiting_event)
            self._waiting_event = None
            self._event_at = self._clock()

    def _write_status(self, status: Status) -> None:
        self._status = status
        began = self._clock()
        self.run.write_status(status)
        self._status_waits = False
        self._status_at = self._clock()
        # It waits for the disk: on a slow one it is written less often.
        cost = self._status_at - began
        self._status_every = min(max(STATUS_EVERY_S, cost / STATUS_SHARE), SLOWEST_STATUS_S)


def record(run: Run, work: Work, *, should_stop: ShouldStop = never_stop) -> dict[str, Any]:
    """Work on a run in this process: running, then done, failed or cancelled, with progress on the way.

    A run that is already done is not done again: its result is returned.

    Args:
        work: what to do; a cancel of this run, or ``should_stop``, reaches it through its ``should_stop``.
        should_stop: asked besides the run's own cancel flag.

    Returns:
        The content of ``result.json``.

    Raises:
        RunError: another process works on this run, or its records are damaged.
        CancelledError: the run was cancelled.
        LrcError: whatever went wrong, in words; what was not foreseen keeps its cause.
    """
    with run.claim() as held:
        if not held:
            raise RunError(f"Run {run.id} is being worked on by another process.", "Wait for it, or cancel it.")
        status = run.status()
        if status.state == "done" and (result := run.result()) is not None:
            return result
        if status.state != "queued":  # an earlier attempt ended, or died: its cancel request is not this one's
            run.clear_cancel()
        recorder = Recorder(run, _started(status))
        with _beating(recorder):
            return _carried_out(recorder, work, lambda: should_stop() or run.cancel_requested())


def _started(status: Status) -> Status:
    now = time.time()
    return Status(
        state="running",
        phase="starting",
        created_at=status.created_at,
        queued_at=status.queued_at,
        started_at=now,
        updated_at=now,
        **identity(os.getpid()),
        attempt=status.attempt + (0 if status.state == "queued" else 1),
    )


def _carried_out(recorder: Recorder, work: Work, should_stop: ShouldStop) -> dict[str, Any]:
    run = recorder.run
    try:
        if should_stop():
            raise CancelledError("Cancelled before it began.")
        result = work(recorder.progress, should_stop)
        run.write_result(result)
        recorder.end("done")
        return result
    except BaseException as error:
        told = explained(error)
        if isinstance(told, CancelledError):
            log.info("run %s was cancelled", run.id)
        else:
            log.error("run %s failed: %s", run.id, told, exc_info=error)
        try:
            recorder.end("cancelled" if isinstance(told, CancelledError) else "failed", told)
        except LrcError as second:  # the folder is gone: the first error is the one to tell
            log.error("the end of run %s could not be recorded: %s", run.id, second)
        if told is error:
            raise
        raise told from error


def explained(error: BaseException) -> LrcError:
    """Any failure as an error that names what is wrong and the remedy."""
    if is_disk_full(error) and not isinstance(error, ResourceError):
        return ResourceError(
            f"The disk is full ({error}).", "Free some space (`lrc doctor --clean` empties the cache), then resume."
        )
    if isinstance(error, LrcError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return CancelledError("Stopped.")
    if _is_out_of_memory(error):
        return ResourceError(
            "Out of memory.",
            "Close other programs, use fewer or shorter calibration windows, or choose a smaller model; then resume.",
        )
    first_line = str(error).strip().split("\n")[0][:300].rstrip(".")
    what = f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__
    return LrcError(f"Unexpected {what}.", "The run's log has the details.")


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError | OSError) and any(words in str(error).lower() for words in _OUT_OF_MEMORY)


@contextmanager
def _beating(recorder: Recorder) -> Iterator[None]:
    """Touch the heartbeat, and write held-back progress, while the body runs."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT_EVERY_S):
            recorder.run.beat()
            with suppress(LrcError):  # the main thread meets the same error where it can be handled
                recorder.flush()

    recorder.run.beat()
    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _overwrite(run: Run, status: Status) -> None:
    text = json.dumps(status.to_dict(), default=json_plain).encode()
    try:
        with (run.path / "status.json").open("r+b") as file:
            file.write(text)
            file.truncate()
    except OSError as error:
        raise RunError(f"Cannot write {run.path / 'status.json'}: {error.strerror or error}.") from error
