"""Where the steps of a sweep stand: read from their runs, and from the engine where there is no run yet. No torch."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from lrc_core.jobs import placed
from lrc_core.jobs.engines.choice import engine_of
from lrc_core.jobs.engines.engine import JobState
from lrc_core.jobs.engines.placement import Placement, placement_in, profile_of
from lrc_core.jobs.manager import poll
from lrc_core.jobs.sweeps.folder import SweepFolder
from lrc_core.jobs.sweeps.steps import TABLE, Step
from lrc_core.runs.store import Run

DONE, RUNNING, WAITING, FAILED, CANCELLED, SKIPPED, MISSING = (
    "done", "running", "waiting", "failed", "cancelled", "skipped", "missing",
)  # fmt: skip
ENDED = (DONE, FAILED, CANCELLED, SKIPPED, MISSING)
POLL_S = 2.0
"""How seldom the process of a run is looked at."""


@dataclass(frozen=True)
class StepState:
    """Where a step stands.

    Attributes:
        state: ``missing`` when it was never sent.
        run_id: "" while there is none.
        error: what went wrong, and what to do.
        where: engine, job and node.
        reason: why it waits.
        phase: what its run is doing.
        took: seconds that it computed.
    """

    state: str
    run_id: str = ""
    error: str = ""
    where: str = ""
    reason: str = ""
    phase: str = ""
    took: float = 0.0

    @property
    def ended(self) -> bool:
        """Whether nothing more happens unless it is sent again."""
        return self.state in ENDED


class SweepProgress:
    """Looks at all steps again and again; what is done is not looked at twice."""

    def __init__(self, folder: SweepFolder) -> None:
        self.folder = folder
        self._done: dict[str, StepState] = {}
        self._polled: dict[str, float] = {}

    def states(self) -> dict[str, StepState]:
        """Of every step, in order."""
        found: dict[str, StepState] = {}
        placements = {key: placement_in(self.folder.placement_file(key)) for key in self._open()}
        looks = self._looks([placement for placement in placements.values() if placement is not None])
        for key, step in self.folder.steps.items():
            if key in self._done:
                found[key] = self._done[key]
                continue
            placement = placements.get(key)
            look = looks.get(placement.job if placement else "", JobState("unknown"))
            found[key] = self._state(step, placement, look, found)
            if found[key].state == DONE:
                self._done[key] = found[key]
        return found

    def _open(self) -> list[str]:
        return [key for key in self.folder.steps if key not in self._done]

    def _looks(self, placements: list[Placement]) -> dict[str, JobState]:
        """What the engines say of the jobs of steps, each engine asked once."""
        found: dict[str, JobState] = {}
        by_profile: dict[str, list[Placement]] = {}
        for placement in placements:
            if placement.job:
                by_profile.setdefault(repr((placement.engine, placement.profile)), []).append(placement)
        for group in by_profile.values():
            engine = engine_of(profile_of(group[0]), self.folder.store.root)
            found |= engine.look([placement.job for placement in group])
        return found

    def _state(
        self, step: Step, placement: Placement | None, look: JobState, before: Mapping[str, StepState]
    ) -> StepState:
        run = self.folder.run(step.key)
        if run is not None:
            return self._of_run(run, placement, look)
        needed = step.after if step.kind == TABLE else filter(None, (step.plan, step.after[0] if step.format else ""))
        if any(before[key].ended and before[key].state != DONE for key in needed):
            return StepState(SKIPPED, reason="what it needs is not there")
        if placement is None:
            return StepState(MISSING)
        failure = self.folder.failure(step.key, placement.ticket)
        if failure is not None:
            return StepState(FAILED, error=f"{failure.error} {failure.remedy}".strip(), where=placement.words)
        if self._has_gone(placement, look):
            state, error = placed.what_became(False, look, placement, self.folder.store.root)
            return StepState(CANCELLED if state == "cancelled" else FAILED, error=str(error), where=placement.words)
        return StepState(WAITING, where=placement.words, reason=look.reason)

    def _of_run(self, run: Run, placement: Placement | None, look: JobState) -> StepState:
        status = run.status()
        if not status.final and time.monotonic() - self._polled.get(run.id, 0.0) > POLL_S:
            self._polled[run.id] = time.monotonic()
            status = poll(run.id, store=self.folder.store)
        where = placement.words if placement else ""
        error = f"{status.error} {status.remedy}".strip()
        if status.state == "done":
            return StepState(DONE, run.id, where=where, took=max(0.0, status.ended_at - status.started_at))
        if status.final:
            sent_since = placement is not None and placement.sent_at > status.ended_at
            if sent_since or (status.state == "interrupted" and look.state in ("pending", "running")):
                return StepState(WAITING, run.id, where=where, reason=look.reason)
            return StepState(CANCELLED if status.state == "cancelled" else FAILED, run.id, error, where)
        if status.state == "queued" and status.pid is None:
            return StepState(WAITING, run.id, where=where, reason=look.reason)
        return StepState(RUNNING, run.id, where=where, phase=status.phase)

    @staticmethod
    def _has_gone(placement: Placement, look: JobState) -> bool:
        """Whether a job has ended and whatever it wrote must have arrived."""
        now = time.time()
        if not placement.job:
            return now - placement.sent_at > placed.SENDING_S
        return look.state == "ended" and now - max(placement.began_at, placement.sent_at) > placed.LAG_S


def progress_words(states: Mapping[str, StepState], began: float) -> str:
    """One line: how many are done, failed, running, waiting and why, and how long it may take.

    Args:
        began: unix seconds when this process began to watch.
    """
    from lrc_core.words import duration

    counts = Counter(state.state for state in states.values())
    parts = [f"{counts[DONE]}/{len(states)} done"]
    parts += [f"{counts[name]} {name}" for name in (FAILED, CANCELLED, SKIPPED, RUNNING) if counts[name]]
    if counts[WAITING]:
        reasons = Counter(state.reason for state in states.values() if state.state == WAITING and state.reason)
        told = f" ({', '.join(reason for reason, _ in reasons.most_common(2))})" if reasons else ""
        parts.append(f"{counts[WAITING]} waiting{told}")
    left = sum(not state.ended for state in states.values())
    took = [state.took for state in states.values() if state.state == DONE]
    if left and took:
        at_once = max(1, counts[RUNNING])
        parts.append(f"about {duration(sum(took) / len(took) * left / at_once)} left")
    return " · ".join(parts)


def ended_counts(states: Mapping[str, StepState]) -> tuple[int, ...]:
    """Changes with every step that ends."""
    counts = Counter(state.state for state in states.values())
    return tuple(counts[name] for name in ENDED)
