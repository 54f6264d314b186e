"""Worker processes that begin at once: forked from a server that has imported what they need."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from lrc_core.jobs.launch import start_worker as start_real_worker
from lrc_core.runs.process import leave
from lrc_core.runs.store import Run

START = "lrc_core.jobs.launch.start_worker"
"""What starts workers; replaced by :func:`fork_worker`, and now and then by the real one."""

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["lrc_core.pipeline", "lrc_core.jobs.worker", "peft", "transformers.models.llama.modeling_llama"]
)


@contextmanager
def forked_workers() -> Iterator[None]:
    """Let the manager fork its workers: they do the same as those that it starts, without ten seconds of imports."""
    warm = _FORKS.Process(target=os.getpid)
    warm.start()
    warm.join()
    with patch(START, fork_worker):
        yield


def fork_worker(run: Run, env: Mapping[str, str] | None = None) -> int:
    """As :func:`lrc_core.jobs.launch.start_worker`."""
    return fork(_work, run.path / "stdout.log", str(run.path.resolve()), env=env)


def fork(target: Callable[..., Any], log: Path, *arguments: str, env: Mapping[str, str] | None = None) -> int:
    """Call a function in a new process with this one's variables, its output into a log. Returns the process id."""
    process = _FORKS.Process(target=_child, args=(target, str(log), arguments, {**os.environ, **(env or {})}))
    process.daemon = True  # whatever is left ends with the campaign
    process.start()
    assert process.pid is not None
    return process.pid


def _child(target: Callable[..., Any], log: str, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for number in (1, 2):
        os.dup2(output, number)
    faulthandler.register(signal.SIGUSR1, file=2)  # where it hangs, for whoever waits for its end
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(Path(log).parent)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    leave(target(*arguments))


def _work(run_dir: str) -> int:
    from lrc_core.jobs import worker

    return worker._command_line([run_dir])


__all__ = ["START", "fork", "fork_worker", "forked_workers", "start_real_worker"]
