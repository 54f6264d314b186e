"""The one long-lived process that writes text for the pages: where it stands, starting it, releasing it. No torch.

Every other job has a fresh process. Loading a model takes longer than an answer, so that all ``generate`` runs of a
folder of runs are served by one process (:mod:`lrc_core.jobs.generation_worker`), which keeps the model until it has
been idle for a while or another job waits for the device. It says where it stands in a small file beside the queue.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from lrc_core.errors import LrcError
from lrc_core.files import disk_errors, write_json
from lrc_core.jobs.launch import start_process
from lrc_core.jobs.queue import DeviceQueue
from lrc_core.records import Label, Moment, Place, Positive, load_record, typed
from lrc_core.runs.process import birth, host_name, process_of, start_time
from lrc_core.runs.records import Status
from lrc_core.runs.store import RunStore

KINDS = ("generate",)
"""Kinds of run that this process serves."""
MODULE = "generation_worker"
IDLE_VARIABLE = "LRC_GENERATE_IDLE_S"
IDLE_S = 300.0
"""How long the model stays in memory after the last answer."""


@dataclass(frozen=True)
class Generator:
    """Where the process stands.

    Attributes:
        pid: its process.
        pid_started: that process's start time.
        state: ``starting``, ``waiting`` (another job has the device), ``busy`` or ``idle``.
        model: the model that it holds, "" when none.
        release_at: unix seconds when it ends if nobody asks; 0 unless idle.
        pid_birth: as of :class:`~lrc_core.runs.records.Status`.
    """

    pid: Positive
    pid_started: Moment
    state: Label = "starting"
    model: Place = ""
    release_at: Moment = 0.0
    pid_birth: Label = ""

    @property
    def process(self) -> psutil.Process | None:
        """The live process, None when it has gone."""
        return process_of(
            Status(pid=self.pid, pid_started=self.pid_started, pid_birth=self.pid_birth, host=host_name())
        )


def idle_s() -> float:
    """Seconds until release; ``LRC_GENERATE_IDLE_S`` overrides the usual ones."""
    with suppress(ValueError):
        return max(0.0, float(os.environ.get(IDLE_VARIABLE, IDLE_S)))
    return IDLE_S


def record_path(store: RunStore) -> Path:
    """The small file in which the process says where it stands."""
    return DeviceQueue(store).folder / "generator.json"


def find(store: RunStore) -> Generator | None:
    """The live generation process of these runs on this machine, None when there is none."""
    try:
        path = record_path(store)
        found = typed(Generator, load_record(path), str(path))
        return found if found.process is not None else None
    except LrcError:
        return None


def tell(store: RunStore, generator: Generator) -> None:
    """Say where it stands."""
    path = record_path(store)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(generator), durable=False)


def ensure(store: RunStore, env: Mapping[str, str] | None = None) -> int:
    """The process id of the generation process, started when there is none. The caller holds the store's lock.

    Raises:
        ResourceError: it cannot be started.
    """
    if (found := find(store)) is not None:
        return found.pid
    log = record_path(store).with_name("generator.log")
    with disk_errors(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
    pid = start_process((MODULE, str(store.root.resolve())), log, "The generation worker", env)
    tell(store, Generator(pid, start_time(pid), pid_birth=birth(pid)))
    return pid


def release(store: RunStore, *, at_once: bool = False) -> bool:
    """Ask the process to give model and device back: at its next token, or at once.

    Questions that wait for it are answered all the same, by the process that begins anew. One that is only starting
    holds nothing yet and is left alone. Returns whether there was one.
    """
    found = find(store)
    process = found.process if found is not None else None
    if found is None or process is None or (found.state == "starting" and not at_once):
        return False
    with suppress(psutil.Error, OSError):  # it is just going away
        if f"lrc_core.jobs.{MODULE}" in process.cmdline():
            os.kill(process.pid, signal.SIGKILL if at_once else signal.SIGTERM)
            return True
    return False


def seconds_left(generator: Generator) -> float | None:
    """Until release; None unless it is idle."""
    return max(0.0, generator.release_at - time.time()) if generator.state == "idle" else None
