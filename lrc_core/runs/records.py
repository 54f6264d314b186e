"""Typed, versioned records of a run: its status and its events. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from lrc_core.errors import RunError
from lrc_core.types import Progress

STATUS_VERSION = 1
STATES = ("queued", "running", "cancelling", "cancelled", "failed", "interrupted", "done")
FINAL_STATES = ("cancelled", "failed", "interrupted", "done")
RESUMABLE_STATES = ("cancelled", "failed", "interrupted")


@dataclass(frozen=True)
class Status:
    """Where a run stands. Times are unix seconds, 0.0 when it has not come to that.

    Attributes:
        state: one of ``STATES``.
        phase: what is being done, in plain words.
        step: steps done in this phase.
        total: steps of this phase, 0 when unknown.
        values: figures of the last tick.
        created_at: when the run was first asked for.
        queued_at: when this attempt was asked for; the order of the queue.
        started_at: when this attempt began to compute.
        updated_at: when this record was written.
        ended_at: when the run came to a final state.
        phase_started_at: when this phase began.
        phase_first_step: the step at which this phase began, above 0 after a resume.
        error: what went wrong, one line.
        remedy: what the user can do about it.
        pid: process of the worker, None when none was started.
        pid_started: that process's start time, so that a reused pid is not mistaken for it.
        pid_birth: the same whatever becomes of the clock, see :func:`~lrc_core.runs.process.birth`; "" in records of
            older versions, and where the system does not say.
        host: machine of that process.
        attempt: 1, and one more for each resume.
    """

    state: str = "queued"
    phase: str = ""
    step: int = 0
    total: int = 0
    values: dict[str, Any] | None = None
    created_at: float = 0.0
    queued_at: float = 0.0
    started_at: float = 0.0
    updated_at: float = 0.0
    ended_at: float = 0.0
    phase_started_at: float = 0.0
    phase_first_step: int = 0
    error: str = ""
    remedy: str = ""
    pid: int | None = None
    pid_started: float = 0.0
    pid_birth: str = ""
    host: str = ""
    attempt: int = 1

    @property
    def final(self) -> bool:
        """Whether nothing will change any more unless the run is resumed."""
        return self.state in FINAL_STATES

    @property
    def resumable(self) -> bool:
        """Whether the run stopped before its end and can go on."""
        return self.state in RESUMABLE_STATES

    @property
    def fraction(self) -> float | None:
        """Share of the current phase that is done, None when unknown."""
        return min(1.0, self.step / self.total) if self.total > 0 else None

    def eta_s(self, now: float) -> float | None:
        """Seconds left in this phase: the worker's own estimate, else from the pace so far, else None."""
        if self.final:
            return None
        own = (self.values or {}).get("eta_s")
        if isinstance(own, int | float):
            return max(0.0, float(own) - (now - self.updated_at))
        steps = self.step - self.phase_first_step
        if self.total <= 0 or steps <= 0:
            return None
        pace = (self.updated_at - self.phase_started_at) / steps
        return max(0.0, pace * (self.total - self.step) - (now - self.updated_at))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form with its version."""
        return {"version": STATUS_VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Any, where: str = "The status") -> Self:
        """Inverse of :meth:`to_dict`.

        Raises:
            RunError: not a status record, of another version, or damaged.
        """
        remedy = "Delete the run and start it again."
        if not isinstance(data, dict) or data.get("state") not in STATES:
            raise RunError(f"{where} is damaged: it holds no known state.", remedy)
        if data.get("version") != STATUS_VERSION:
            raise RunError(f"{where} has version {data.get('version')}; this program reads version {STATUS_VERSION}.")
        known = {f.name for f in fields(cls)}
        if unknown := set(data) - known - {"version"}:
            raise RunError(f"{where} is damaged: unknown field {sorted(unknown)[0]!r}.", remedy)
        return cls(**{key: value for key, value in data.items() if key in known})


def event_from(progress: Progress, at: float) -> dict[str, Any]:
    """One line of ``events.jsonl``: ``{"t", "phase", "step", "total", "values"}``."""
    return {
        "t": at,
        "phase": progress.phase,
        "step": progress.step,
        "total": progress.total,
        "values": progress.values,
    }
