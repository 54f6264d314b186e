"""The one narrow interface behind which schedulers stand: reach, submit, look, cancel. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

PENDING, RUNNING, ENDED, UNKNOWN = "pending", "running", "ended", "unknown"


@dataclass(frozen=True)
class EngineTask:
    """What an engine is asked to do: one call of ``python -m lrc_core.jobs.node``.

    Attributes:
        key: its name among those submitted together.
        words: arguments of that module.
        label: what the engine's own lists call it.
        log: file that its output is appended to.
        after: keys of what must have ended before it begins, however it ended; each comes earlier.
    """

    key: str
    words: tuple[str, ...]
    label: str
    log: Path
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class JobState:
    """What an engine says of a job.

    Attributes:
        state: ``unknown`` where the engine does not answer: nothing follows from it.
        node: where it runs or ran.
        reason: why it waits.
        ending: how it ended, in the engine's word, such as ``CANCELLED`` or ``NODE_FAIL``.
    """

    state: Literal["pending", "running", "ended", "unknown"]
    node: str = ""
    reason: str = ""
    ending: str = ""


class Engine(Protocol):
    """A scheduler. All of it is asked from the machine that submits; nodes only see the folder of runs."""

    @property
    def lasting(self) -> bool:
        """Whether what was submitted outlives this process."""

    def reach(self) -> None:
        """Make sure that it answers.

        Raises:
            ResourceError: in one line, why not, and what to do.
        """

    def submit(self, works: Sequence[EngineTask], jobs: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """Hand everything over, in order; yields each key with the engine's name of the job once it is accepted.

        Args:
            works: what to do.
            jobs: jobs that were submitted before, by key, which works may come after.
        """

    def look(self, jobs: Sequence[str]) -> dict[str, JobState]:
        """Where jobs stand."""

    def cancel(self, jobs: Sequence[str]) -> None:
        """Stop jobs: those that wait never begin, those that run are told to end."""
