"""Which process works on a run, and whether it lives. No torch."""

from __future__ import annotations

import os
import socket
import time

import psutil

from lrc_core.runs.records import Status

# The kernel's boot time, from which start times are counted, may move by a second when the clock is set.
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


def process_of(status: Status) -> psutil.Process | None:
    """The live process of a run on this machine: same pid AND same start time; None when it is gone or elsewhere."""
    if status.pid is None or status.host != host_name():
        return None
    try:
        process = psutil.Process(status.pid)
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
    return status.pid == os.getpid() and status.host == host_name()
