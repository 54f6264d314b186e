"""What runs inside a Ray cluster: tasks that call the program, and the one actor that owns them.

An owner that is an actor of its own outlives whoever submitted. The module is sent to the cluster by value, so it
imports nothing of this package.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

NAMESPACE = "lrc"
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """A process whose Ray worker has gone must not go on: the task is begun again elsewhere."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def call(command: Sequence[str], environment: Mapping[str, str], log: str, *_after: Any) -> tuple[int, str]:
    """One call of the program on a node, in a process of its own.

    Args:
        environment: variables that it gets besides.
        log: file that its output is appended to.
        _after: results of what had to come first.

    Returns:
        Its exit code, and why it could not be called.
    """
    import ray

    if not os.path.isdir(os.path.dirname(log)):
        return -1, "cannot see the folder"
    name = f"{socket.gethostname()}/{ray.get_runtime_context().get_node_id()[:6]}"
    try:
        with open(log, "ab") as output:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **environment, "LRC_NODE": name},
                preexec_fn=_die_with_parent,
            )
    except OSError as error:
        return -1, f"{command[0]} could not be started: {error.strerror or error}"
    try:
        return process.wait(), ""
    except BaseException:  # Ray cancels by an interrupt
        process.terminate()
        process.wait()
        raise


class Conductor:
    """Owns the tasks; its name is known to the cluster, so that every later command finds it."""

    def __init__(self) -> None:
        self._refs: dict[str, Any] = {}

    def ping(self) -> int:
        """That it is there; how many jobs it knows."""
        return len(self._refs)

    def submit(self, work: Mapping[str, Any], options: Mapping[str, Any], after: Sequence[str]) -> str:
        """Hand one task to Ray, to begin when others have ended; returns its name."""
        import ray

        refs = [self._refs[job] for job in after if job in self._refs]
        task = ray.remote(call).options(**options)
        job = uuid.uuid4().hex[:12]
        environment = {**work["environment"], "LRC_JOB": job}
        self._refs[job] = task.remote(work["command"], environment, work["log"], *refs)
        return job

    def look(self, jobs: Sequence[str]) -> dict[str, str | None]:
        """Of every job None while it is there, else how it ended."""
        return {job: self._look(job) for job in jobs}

    def _look(self, job: str) -> str | None:
        import ray

        if job not in self._refs:
            return "lost"
        ready, _ = ray.wait([self._refs[job]], timeout=0)
        if not ready:
            return None
        try:
            code, said = ray.get(ready[0])
        except Exception as error:
            return type(error).__name__
        return said or ("COMPLETED" if code == 0 else f"exit code {code}")

    def cancel(self, jobs: Sequence[str]) -> None:
        """Take back what waits, and interrupt what runs."""
        import ray

        for job in jobs:
            if job in self._refs:
                ray.cancel(self._refs[job])
