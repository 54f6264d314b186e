"""Runs that an engine has: sending them, and bringing their records into line with what the engine says. No torch."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from lrc_core.errors import LrcError, ResourceError
from lrc_core.files import disk_errors
from lrc_core.jobs.engines.choice import engine_of
from lrc_core.jobs.engines.engine import EngineTask, JobState
from lrc_core.jobs.engines.placement import (
    FILE,
    Placement,
    new_placement,
    note_placement,
    placement_of,
    profile_of,
    write_placement,
)
from lrc_core.jobs.engines.profile import Profile
from lrc_core.jobs.launch import end_run
from lrc_core.jobs.node import STALE_BEAT_S
from lrc_core.jobs.surroundings import program
from lrc_core.runs.process import is_alive
from lrc_core.runs.records import Status
from lrc_core.runs.store import Run, RunStore

SENDING_S = 60.0
"""How long a submission may take until its job has a name."""
LAG_S = 5.0
"""How much later than the engine's word a record may reach this machine."""


def node_words(folder: Path, placement: Placement, profile: Profile, step: str = "") -> tuple[str, ...]:
    """Arguments of :mod:`lrc_core.jobs.node`."""
    words = (str(folder.resolve()), placement.ticket, "--program", program(), "--gpus", str(profile.gpus))
    return (*words, "--step", step) if step else words


def send(store: RunStore, run: Run, profile: Profile) -> None:
    """Submit a queued run to an engine.

    Raises:
        LrcError: the engine does not take it.
    """
    engine = engine_of(profile, store.root)
    engine.reach()
    placement = new_placement(profile)
    write_placement(run.path / FILE, placement)
    work = EngineTask(run.id, node_words(run.path, placement, profile), run.id, run.path.resolve() / "stdout.log")
    for _, job in engine.submit([work], {}):
        note_placement(run.path / FILE, placement.ticket, job=job)


def is_away(run: Run) -> Placement | None:
    """Where a run was sent, if another engine than this machine has it."""
    placement = placement_of(run.path)
    return placement if placement is not None and placement.away else None


def forget(run: Run) -> None:
    """Whatever an engine had is of an earlier attempt: a job of it that still begins finds nothing to do."""
    with disk_errors(run.path):
        (run.path / FILE).unlink(missing_ok=True)


def recall(store: RunStore, placement: Placement) -> None:
    """Take a job back from its engine, as far as that answers: the flag in the folder is enough for one that runs."""
    if placement.job:
        with suppress(LrcError):
            engine_of(profile_of(placement), store.root).cancel([placement.job])


def settle(store: RunStore, run: Run, placement: Placement) -> bool:
    """Compare a run's record with what its engine says. Returns whether the run has ended."""
    status = run.status()
    if status.final:
        return False
    found = _look(store, placement)
    if found.state in ("pending", "running"):
        reason = found.reason if found.state == "pending" else ""
        note_placement(run.path / FILE, placement.ticket, reason=reason, node=found.node or placement.node)
        if found.state == "pending" and status.state == "running":
            _requeued(store, run)
        return False
    if found.state == "unknown" and not _is_silent(run, status):
        return False
    if found.state == "ended" and time.time() - max(status.updated_at, placement.began_at) < LAG_S:
        return False
    with store.lock(), run.claim(wait_s=2) as free:
        status, now = run.status(), placement_of(run.path)
        if not free or status.final or now is None or now.ticket != placement.ticket:
            return False
        state, error = what_became(run.cancel_requested(), found, now, store.root)
        if (run.path / "result.json").exists():
            state, error = "done", LrcError("")
        end_run(store, run, status, state, error)
        return True


def _look(store: RunStore, placement: Placement) -> JobState:
    if not placement.job:
        late = time.time() - placement.sent_at > SENDING_S
        return JobState("ended", ending="never submitted") if late else JobState("pending")
    return engine_of(profile_of(placement), store.root).look([placement.job])[placement.job]


def _is_silent(run: Run, status: Status) -> bool:
    """Whether a run that computed gives no sign of life any more."""
    if status.state == "queued" and status.pid is None:
        return False
    age = run.heartbeat_age(time.time())
    return is_alive(status) is False or (age is not None and age > STALE_BEAT_S)


def _requeued(store: RunStore, run: Run) -> None:
    """Its node was lost and the engine keeps the job: the run waits again."""
    with store.lock(), run.claim() as free:
        status = run.status()
        if free and status.state == "running" and is_alive(status) is not True:
            run.write_status(status.again())


def what_became(cancelled: bool, found: JobState, placement: Placement, runs: Path) -> tuple[str, LrcError]:
    """The state of work whose job has ended without a last word, and the words for it."""
    name, node = f"{placement.engine.capitalize()} job {placement.job}", found.node or placement.node or "its node"
    ending, again = found.ending, "Resume it; it goes on from its checkpoint."
    if cancelled or ending.startswith("CANCELLED") or ending == "TaskCancelledError":
        return "cancelled", ResourceError(f"{name} was cancelled.", again)
    if ending == "never submitted":
        return "interrupted", ResourceError("It never reached the engine.", "Resume it.")
    if ending == "cannot see the folder":
        remedy = "Name a folder that all nodes see as `runs` in the profile, or as LRC_RUNS."
        return "failed", ResourceError(f"{node.capitalize()} does not see the folder of runs {runs}.", remedy)
    known = {
        "TIMEOUT": ("reached its time limit", f"{again} `minutes` in the profile gives it more."),
        "OUT_OF_MEMORY": (
            "used more memory than it had asked for",
            f"{again} `memory_gb` in the profile gives it more.",
        ),
        "NODE_FAIL": (f"lost {node}", again),
        "PREEMPTED": (f"had to leave {node}", again),
        "lost": ("is not known to the engine any more", again),
    }
    if ending in known:
        return "interrupted", ResourceError(f"{name} {known[ending][0]}.", known[ending][1])
    if not placement.began_at:
        return "failed", ResourceError(
            f"{name} ended on {node} before the program began there" + (f" ({ending})." if ending else "."),
            "Its log says why; are the profile's `python` and the folder of runs the same on all nodes?",
        )
    return "interrupted", ResourceError(f"{name} ended on {node} without a word: it was killed.", again)
