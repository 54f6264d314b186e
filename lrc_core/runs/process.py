"""Which process works on a run, whether it lives, and how it ends. No torch."""

from __future__ import annotations

import atexit
import os
import socket
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import psutil

from lrc_core.runs.records import Status

# Of records without a birth: the boot time, from which start times are counted, may move by a second.
_SAME_START_S = 2.0


def host_name() -> str:
    """Name of this machine."""
    return socket.gethostname()


def start_time(pid: int) -> float:
    """When a process started (unix seconds); now when it has already gone."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return time.time()


@cache
def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def birth(pid: int) -> str:
    """What tells a process from a later one of the same number: boot and ticks since then, as Linux counts them.

    Setting the clock moves start times in seconds, but not these. "" elsewhere (where start times do not move), and
    for a process that has gone.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()  # the name may hold anything
        return f"{_boot()}/{int(fields[19])}"  # field 22, starttime
    except (OSError, IndexError, ValueError):
        return ""


def identity(pid: int) -> dict[str, Any]:
    """The fields of a status that say whose the run is: this process of this machine."""
    return {"pid": pid, "pid_started": start_time(pid), "pid_birth": birth(pid), "host": host_name()}


def process_of(status: Status) -> psutil.Process | None:
    """The live process of a run on this machine: same pid AND same start; None when it is gone or elsewhere."""
    if status.pid is None or status.host != host_name():
        return None
    try:
        process = psutil.Process(status.pid)
        if status.pid_birth and (now := birth(status.pid)):
            same = now == status.pid_birth
        else:
            same = abs(process.create_time() - status.pid_started) < _SAME_START_S
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def is_alive(status: Status) -> bool | None:
    """Whether the run's process lives; None when that cannot be seen from this machine."""
    if status.pid is None:
        return False
    if status.host != host_name():
        return None
    return process_of(status) is not None


def is_mine(status: Status) -> bool:
    """Whether this very process is the run's."""
    pid = os.getpid()
    return status.pid == pid and status.host == host_name() and status.pid_birth in ("", birth(pid))


def leave(code: int) -> NoReturn:
    """End this process, whatever its threads wait for.

    Python waits for every thread that is no daemon. What stops a job at once may do so while a pool starts a thread
    that the pool has not noted yet (:mod:`concurrent.futures`; transformers reads weights in one): nobody wakes it, and
    the process would stay for ever, with the model in its memory.
    """
    atexit._run_exitfuncs()  # such as the end of logging
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads any more
            stream.flush()
    os._exit(code)
