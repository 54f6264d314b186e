"""Start and stop worker processes on this machine. No torch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil

from lrc_core.errors import LrcError, ResourceError
from lrc_core.files import disk_errors
from lrc_core.jobs.queue import DeviceQueue
from lrc_core.paths import child_environment
from lrc_core.runs.process import identity, process_of
from lrc_core.runs.records import Status
from lrc_core.runs.store import Run, RunStore


def start_worker(run: Run, env: Mapping[str, str] | None = None) -> int:
    """:func:`start_process` for the worker of a run, with its output at the end of the run's log."""
    words = ("worker", str(run.path.resolve()))
    return start_process(words, run.path / "stdout.log", f"The worker of run {run.id}", env)


def start_run(store: RunStore, run: Run, status: Status, env: Mapping[str, str] | None = None) -> None:
    """Start the process of a queued run and record it; the caller holds the store's lock, for which a worker waits."""
    pid = start_worker(run, env)
    run.write_status(replace(status, **identity(pid), updated_at=time.time()))


def end_run(store: RunStore, run: Run, status: Status, state: str, error: LrcError) -> Status:
    """Record how a run has ended, with what went wrong and what to do about it, and give its ticket back."""
    now = time.time()
    ended = replace(status.failed_by(error), state=state, ended_at=now, updated_at=now)
    run.write_status(ended)
    DeviceQueue(store).leave(run.id)
    return ended


def start_process(words: Sequence[str], log: Path, name: str, env: Mapping[str, str] | None = None) -> int:
    """Start a detached process of this package: it survives its parent, its terminal and its signals.

    Args:
        words: module of this package, and arguments.
        log: file that its output is appended to; its folder becomes the working directory.
        name: of the process, for messages.
        env: variables that only it gets.

    Returns:
        Its process id, which is also its process group's.

    Raises:
        ResourceError: the system cannot start a process, or the disk is full.
    """
    # What is printed goes to a log, whatever the terminal can write.
    environment = child_environment({**(env or {}), "PYTHONIOENCODING": "utf-8:backslashreplace"})
    command = [sys.executable, "-m", f"lrc_core.jobs.{words[0]}", *words[1:]]
    with disk_errors(log):
        output = log.open("ab")
    with output:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=log.parent,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise ResourceError(
                f"{name} could not be started: {error.strerror or error}.",
                "Close other programs, then resume the run.",
            ) from error
    # Somebody has to collect the exit code, or the dead worker stays as a zombie while this process lives.
    threading.Thread(target=process.wait, name=f"reap-{process.pid}", daemon=True).start()
    return process.pid


def signal_worker(run: Run, status: Status, number: signal.Signals) -> bool:
    """Signal the worker's process group, if that process is really this run's own worker.

    A part of a comparison is recorded by the comparison's process, which must not be hit for it.
    Returns whether a signal was sent.
    """
    process = process_of(status)
    if process is None:
        return False
    with suppress(psutil.Error, OSError):  # the process is just going away
        command = process.cmdline()
        if str(run.path.resolve()) in command and os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, number)
            return True
    return False
