"""What an engine starts on a node: ``python -m lrc_core.jobs.node FOLDER TICKET``.

The folder is a run's, or with ``--step`` a sweep's, whose step says which run it is. All that is known is in there:
what was asked for, and by which submission, so that a job of an earlier one finds out that it is not wanted any more.
A run whose process has died with its node is taken over and goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lrc_core.errors import LrcError
from lrc_core.jobs import worker
from lrc_core.jobs.engines.placement import FILE, Placement, note_placement, placement_in, placement_of, write_placement
from lrc_core.jobs.launch import end_run
from lrc_core.jobs.queue import DeviceQueue
from lrc_core.jobs.surroundings import check_node
from lrc_core.jobs.sweeps.folder import SweepFolder
from lrc_core.jobs.worker import CANCELLED, DONE, FAILED, NOT_MINE
from lrc_core.runs.process import host_name, identity, is_alive, is_mine, leave
from lrc_core.runs.records import Status
from lrc_core.runs.store import Run, RunStore

SKIPPED, UNSEEN, HANDED_BACK = 4, 66, 75
"""Exit codes: what it comes after is not there; the folder is not; the scheduler took the node back."""
NODE_VARIABLE, JOB_VARIABLE = "LRC_NODE", "LRC_JOB"
STALE_BEAT_S = 120.0
"""Without a sign of life for so long, a worker on another machine counts as dead."""
POLL_S = 1.0
log = logging.getLogger("lrc_core.jobs.node")


def main(words: Sequence[str], *, job: str = "", name: str = "") -> int:
    """Do what a job of an engine was submitted for.

    Args:
        job: the engine's name of this job, "" where it is known already.
        name: the engine's name of this node.

    Returns:
        Exit code: that of the worker, or one of this module.
    """
    asked = _parser().parse_args(list(words))
    name = name or os.environ.get(NODE_VARIABLE) or host_name()
    job = job or os.environ.get(JOB_VARIABLE, "")
    folder: Path = asked.folder
    if not folder.is_dir():
        log.error("node %s cannot see the folder %s", name, folder)
        return UNSEEN
    sweep = SweepFolder(folder) if asked.step else None
    file = sweep.placement_file(asked.step) if sweep else folder / FILE
    placement = placement_in(file)
    if placement is None or placement.ticket != asked.ticket:
        log.warning("this job was submitted earlier than the last time: nothing to do")
        return NOT_MINE
    found: dict[str, Any] = {"node": name, "reason": "", "began_at": time.time(), **({"job": job} if job else {})}
    note_placement(file, asked.ticket, **found)
    placement = replace(placement, **found)
    try:
        check_node(name, folder.parent, asked.program, asked.gpus)
        run = sweep.make_run(asked.step) if sweep else Run(folder.resolve())
    except LrcError as error:
        log.error("%s", error)
        if sweep:
            sweep.write_failure(asked.step, asked.ticket, error)
        else:
            _end(Run(folder.resolve()), error)
        return FAILED
    if run is None:
        log.warning("what step %s comes after is not done", asked.step)
        return SKIPPED
    return _work_on(run, placement)


def _end(run: Run, error: LrcError) -> None:
    store = RunStore(run.path.parent)
    with store.lock():
        if not (status := run.status()).final:
            end_run(store, run, status, "failed", error)


def _work_on(run: Run, placement: Placement) -> int:
    store = RunStore(run.path.parent)
    while (code := _taken(store, run, placement)) == NOT_MINE:
        time.sleep(POLL_S)
    if code is not None:
        return code
    code = worker.main(run.path, turn=not placement.away)
    if code == CANCELLED and placement.away and not run.cancel_requested():
        return _handed_back(store, run)
    return DONE if code == NOT_MINE and run.status().state == "done" else code


def _taken(store: RunStore, run: Run, placement: Placement) -> int | None:
    """Make this process the run's. None when it is; else how the run has ended; ``NOT_MINE`` while another has it."""
    with store.lock():
        status, known = run.status(), placement_of(run.path)
        if status.state == "done":
            return DONE
        ours = known is not None and known.ticket == placement.ticket
        if ours and status.state in ("failed", "cancelled"):
            return FAILED if status.state == "failed" else CANCELLED
        if not status.final and _is_held(run, status, ours):
            return NOT_MINE
        with run.claim(wait_s=2) as free:
            if not free:
                return NOT_MINE
            _adopt(store, run, status, placement)
    return None


def _is_held(run: Run, status: Status, ours: bool) -> bool:
    """Whether another process works on the run. One of this very submission on another node cannot: it was ended."""
    if status.pid is None or is_mine(status):
        return False
    alive = is_alive(status)
    if alive is not None:
        return alive
    age = run.heartbeat_age(time.time())
    return not ours and (time.time() - status.updated_at if age is None else age) <= STALE_BEAT_S


def _adopt(store: RunStore, run: Run, status: Status, placement: Placement) -> None:
    if status.state != "queued":
        run.clear_cancel()
        status = status.again()
    write_placement(run.path / FILE, placement)
    run.write_status(replace(status, updated_at=time.time(), **identity(os.getpid())))
    if not placement.away:
        DeviceQueue(store).enter(run, status.queued_at)


def _handed_back(store: RunStore, run: Run) -> int:
    """The scheduler wants the node back and nobody asked for a cancel: the run waits for its next node."""
    with store.lock():
        status = run.status()
        if status.state == "cancelled":
            run.write_status(status.again())
    return HANDED_BACK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lrc_core.jobs.node", description="Work as a job of an engine.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("ticket")
    parser.add_argument("--step", default="")
    parser.add_argument("--program", default="")
    parser.add_argument("--gpus", type=int, default=0)
    return parser


def log_to_stderr() -> None:
    """Where an engine keeps the output of its jobs."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


if __name__ == "__main__":
    log_to_stderr()
    leave(main(sys.argv[1:]))
