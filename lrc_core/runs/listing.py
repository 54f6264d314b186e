"""All runs of a folder, read again only where something has changed. No torch."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lrc_core.digests import stamp_of
from lrc_core.errors import LrcError
from lrc_core.runs.records import Status
from lrc_core.runs.run import Run
from lrc_core.runs.spec import Spec

_Stamps = tuple[tuple[int, int], ...]
_known: dict[str, dict[str, tuple[_Stamps, RunSummary]]] = {}
"""By folder of runs and id: what was read, and the stamps at which it was."""


@dataclass(frozen=True)
class RunSummary:
    """One line of a list of runs.

    Attributes:
        spec: None when damaged.
        status: None when damaged.
        created_at: unix seconds.
        damaged: what is wrong with the folder, "" when nothing is. A damaged run can only be deleted.
    """

    id: str
    path: Path
    spec: Spec | None
    status: Status | None
    created_at: float
    damaged: str = ""

    @property
    def state(self) -> str:
        """The status' state, or ``damaged``."""
        return "damaged" if self.damaged or self.status is None else self.status.state

    @property
    def kind(self) -> str:
        """The spec's kind; for a damaged run, what its id says."""
        return self.spec.kind if self.spec is not None else self.id.rpartition("-")[0]

    @property
    def model(self) -> str:
        """The model as the user named it, "" when damaged."""
        return self.spec.model.source if self.spec is not None else ""


def ids_in(root: Path) -> list[str]:
    """Names of all run folders, in no particular order."""
    try:
        with os.scandir(root) as entries:
            return [entry.name for entry in entries if _is_run(entry)]
    except OSError:
        return []


def _is_run(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith(".") or not entry.is_dir():
        return False
    try:
        entry.name.encode()  # a name that is no Unicode could not be shown, and no run was ever called so
    except UnicodeEncodeError:
        return False
    return True


def summaries(root: Path) -> list[RunSummary]:
    """All runs of a folder, newest first; damaged ones are among them and say so."""
    place = str(root)
    before, found = _known.get(place, {}), {}
    with _uncollected():
        for run_id in ids_in(root):
            path = f"{place}/{run_id}"
            # A flag that comes or goes changes the folder's time, a record that is written in place its own.
            stamps = (stamp_of(path), stamp_of(f"{path}/spec.json"), stamp_of(f"{path}/status.json"))
            known = before.get(run_id)
            found[run_id] = known if known and known[0] == stamps else (stamps, summary_of(Run(Path(path))))
    _known[place] = found
    return sorted((summary for _, summary in found.values()), key=lambda one: (-one.created_at, one.id))


@contextmanager
def _uncollected() -> Iterator[None]:
    """Records are made that all stay: looking for garbage among them again and again takes a fifth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def summary_of(run: Run) -> RunSummary:
    """One run as it is now. Whatever goes wrong in reading it makes it a damaged one, and hinders no other."""
    try:
        spec, status = run.spec, run.status()
        return RunSummary(run.id, run.path, spec, status, status.created_at)
    except Exception as error:
        said = str(error) if isinstance(error, LrcError) else f"it cannot be read ({type(error).__name__}: {error})"
        return RunSummary(run.id, run.path, None, None, stamp_of(run.path)[0] / 1e9, damaged=said)
