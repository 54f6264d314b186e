"""Typed, versioned records of a run: its status and its events. No torch."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Self

from lrc_core.errors import LrcError, RecordError
from lrc_core.records import AGAIN, Count, Label, Moment, OneOf, Positive, Range, typed
from lrc_core.types import Progress

STATUS_VERSION = 1
STATES = ("queued", "running", "cancelling", "cancelled", "failed", "interrupted", "done")
FINAL_STATES = ("cancelled", "failed", "interrupted", "done")
STOPPED_STATES = ("cancelled", "failed", "interrupted")


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
        lasting: whether another attempt can only fail like this one, see :class:`~lrc_core.errors.LrcError`.
        pid: process of the worker, None when none was started.
        pid_started: that process's start time, so that a reused pid is not mistaken for it.
        pid_birth: the same whatever becomes of the clock, see :func:`~lrc_core.runs.process.birth`; "" in records of
            older versions, and where the system does not say.
        host: machine of that process.
        attempt: 1, and one more for each resume.
        digests: of a run that is done, the SHA-256 of the files that hold its figures, by name in its folder.
    """

    state: Annotated[str, OneOf(STATES)] = "queued"
    phase: str = ""
    step: Count = 0
    total: Count = 0
    values: dict[str, Any] | None = None
    created_at: Moment = 0.0
    queued_at: Moment = 0.0
    started_at: Moment = 0.0
    updated_at: Moment = 0.0
    ended_at: Moment = 0.0
    phase_started_at: Moment = 0.0
    phase_first_step: Count = 0
    error: str = ""
    remedy: str = ""
    lasting: bool = False
    pid: Annotated[int, Range(1, 2**31 - 1)] | None = None
    pid_started: Moment = 0.0
    pid_birth: Label = ""
    host: Label = ""
    attempt: Positive = 1
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def final(self) -> bool:
        """Whether nothing will change any more unless the run is resumed."""
        return self.state in FINAL_STATES

    @property
    def stopped(self) -> bool:
        """Whether the run ended before it was done."""
        return self.state in STOPPED_STATES

    @property
    def resumable(self) -> bool:
        """Whether the run stopped before its end and another attempt may go further."""
        return self.stopped and not self.lasting

    def failed_by(self, error: LrcError) -> Self:
        """The same with what went wrong and what to do about it."""
        return replace(self, error=error.message, remedy=error.remedy, lasting=error.lasting)

    @property
    def fraction(self) -> float | None:
        """Share of the current phase that is done, None when unknown."""
        return min(1.0, self.step / self.total) if self.total > 0 else None

    def again(self) -> Self:
        """The next attempt, which waits from now on."""
        now = time.time()
        return type(self)(created_at=self.created_at, queued_at=now, updated_at=now, attempt=self.attempt + 1)

    def eta_s(self, now: float) -> float | None:
        """Seconds left in this phase: the worker's own estimate, else from the pace so far, else None."""
        if self.final:
            return None
        own = (self.values or {}).get("eta_s")
        if isinstance(own, int | float) and math.isfinite(own):
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
            RecordError: not a status record, of another version, or damaged; names the field.
        """
        found = typed(_StatusFile, data, where, others=True)
        if found.version != STATUS_VERSION:
            raise RecordError(
                f"{where} has version {found.version}; this program reads version {STATUS_VERSION}.", AGAIN
            )
        return typed(cls, {key: value for key, value in data.items() if key != "version"}, where)


@dataclass(frozen=True)
class _StatusFile:
    """What is read of a status record first."""

    state: str
    version: int


@dataclass(frozen=True)
class Event:
    """One line of ``events.jsonl``.

    Attributes:
        t: when it was written, unix seconds.
        phase: as of :class:`~lrc_core.types.Progress`, like the rest.
    """

    t: Moment
    phase: str
    step: Count
    total: Count
    values: dict[str, Any] | None


@dataclass(frozen=True)
class Snapshot:
    """One line of ``ranks.jsonl``: the rank of every layer of the card, in its order, after a step of learning."""

    step: Count
    keep: float
    ranks: tuple[Count, ...]


@dataclass(frozen=True)
class Result:
    """What ``result.json`` holds whatever the kind of run; every kind adds its own."""

    warnings: tuple[str, ...] = ()
    card: Mapping[str, Any] | None = None
    plan: Mapping[str, Any] | None = None
    rows: tuple[Mapping[str, Any], ...] = ()
    answers: tuple[Mapping[str, Any], ...] = ()
    perplexity: Mapping[str, Mapping[str, Any]] | None = None
    wall_s: float = 0.0
    peak_memory_mb: float = 0.0


def event_from(progress: Progress, at: float) -> dict[str, Any]:
    """One line of ``events.jsonl``: ``{"t", "phase", "step", "total", "values"}``."""
    return {
        "t": at,
        "phase": progress.phase,
        "step": progress.step,
        "total": progress.total,
        "values": progress.values,
    }
