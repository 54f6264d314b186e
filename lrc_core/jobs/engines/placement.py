"""Where a job was sent: ``engine.json`` in a run's folder, and one such file for each step of a sweep. No torch."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lrc_core.errors import RecordError
from lrc_core.files import write_json
from lrc_core.jobs.engines.profile import LOCAL, Profile
from lrc_core.records import Label, Moment, Name, load_record, typed

FILE = "engine.json"


@dataclass(frozen=True)
class Placement:
    """One job of an engine.

    Attributes:
        engine: ``local``, ``slurm`` or ``ray``.
        ticket: of this submission: a job with another one is of an earlier submission and has nothing to do here.
        job: the engine's own name of it.
        node: that took it up, "" before.
        reason: why it waits, in the engine's words, or what became of it.
        sent_at: unix seconds.
        began_at: when a node took it up.
        profile: with which it was sent, so that it can be resumed alike.
    """

    engine: Name
    ticket: Label
    job: Label = ""
    node: Label = ""
    reason: Label = ""
    sent_at: Moment = 0.0
    began_at: Moment = 0.0
    profile: Mapping[str, Any] = field(default_factory=dict)

    @property
    def away(self) -> bool:
        """Whether another engine than this machine has it."""
        return self.engine != LOCAL

    @property
    def words(self) -> str:
        """``slurm job 12 on node1: Resources``."""
        where = f" on {self.node}" if self.node else ""
        return f"{self.engine} job {self.job}{where}" + (f": {self.reason}" if self.reason else "")


def new_placement(profile: Profile) -> Placement:
    """A submission that has not happened yet."""
    changed = {key: value for key, value in asdict(profile).items() if value != getattr(Profile(), key)}
    return Placement(profile.engine, uuid.uuid4().hex[:12], sent_at=time.time(), profile=changed)


def placement_in(path: Path) -> Placement | None:
    """What the file says; None where there is none, or it cannot be read."""
    try:
        return typed(Placement, load_record(path), str(path))
    except RecordError:
        return None


def placement_of(folder: Path) -> Placement | None:
    """Of a run."""
    return placement_in(folder / FILE)


def whereabouts(folder: Path) -> str:
    """Engine, job, node and why it waits, of a run that another engine than this machine has or had; else ""."""
    if not os.path.exists(f"{folder}/{FILE}"):  # as of most runs
        return ""
    placement = placement_of(folder)
    return placement.words if placement is not None and placement.away else ""


def write_placement(path: Path, placement: Placement) -> None:
    """Write the file."""
    write_json(path, asdict(placement), durable=False)


def note_placement(path: Path, ticket: str, **changes: Any) -> None:
    """Change what is known of a job, if the file is still about that submission and it is news."""
    known = placement_in(path)
    if known is not None and known.ticket == ticket and (new := replace(known, **changes)) != known:
        write_placement(path, new)


def profile_of(placement: Placement) -> Profile:
    """The profile with which a job was sent."""
    return typed(Profile, {**placement.profile, "engine": placement.engine}, "The profile of the job")
