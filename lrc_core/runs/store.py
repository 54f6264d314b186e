"""A folder of run folders: the truth that pages, the command line and workers share. No torch."""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

from lrc_core.errors import RunError
from lrc_core.files import disk_errors, locked, make_private, move, write_json
from lrc_core.paths import require_writable, runs_home
from lrc_core.runs.listing import RunSummary, ids_in, summaries, summary_of
from lrc_core.runs.records import Status
from lrc_core.runs.run import Run
from lrc_core.runs.spec import Spec
from lrc_core.runs.sweep import GRAVE, UNBORN

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class RunStore:
    """A folder of run folders.

    Args:
        root: the folder; the user's runs when not given. It is made when the first run is.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = runs_home() if root is None else Path(root)

    def create(self, spec: Spec) -> Run:
        """The run of this spec, made when there is none. Two processes that ask at once get the same folder.

        A new run is ``queued`` without a process; nothing is started.

        Raises:
            ResourceError: the disk is full.
            RunError: the folder cannot be made.
        """
        path = self.root / spec.run_id
        if (path / "spec.json").exists():
            return Run(path)
        require_writable("no run is made")
        now = time.time()
        # Filled under a hidden name and renamed: a folder without its records never shows up.
        temporary = self.root / f"{UNBORN}{spec.run_id}-{uuid.uuid4().hex[:8]}"
        try:
            make_private(self.root)
            with disk_errors(path):
                temporary.mkdir(mode=0o700)  # prompts and logs are nobody else's
            run = Run(temporary)
            write_json(temporary / "spec.json", spec.to_dict())
            run.write_status(Status(created_at=now, queued_at=now, updated_at=now))
            self._publish(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        if not (path / "spec.json").exists():
            raise RunError(
                f"The run folder {path} is damaged: it holds no spec.json.", f"Run `lrc runs delete {spec.run_id}`."
            )
        return Run(path)

    @staticmethod
    def _publish(temporary: Path, path: Path) -> None:
        with disk_errors(path):
            try:
                move(temporary, path)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # another process was faster: join its run
                    raise

    def open(self, run_id: str) -> Run:
        """An existing run, damaged or not.

        Raises:
            RunError: there is no run of that id; close ids are suggested.
        """
        there = _ID.fullmatch(run_id) and os.path.isdir(self.root / run_id)  # a name too long is nobody's
        ids = [] if there else self.ids()
        if ids and run_id in ids:  # a folder of another name, which is listed and must be deletable
            return Run(self.root / run_id)
        if not _ID.fullmatch(run_id):
            raise RunError(f"{run_id[:100]!r} is not a run id.", "`lrc runs list` shows the ids.")
        if not there:
            close = get_close_matches(run_id, ids, n=2)
            hint = f"Did you mean {' or '.join(close)}?" if close else "`lrc runs list` shows the ids."
            raise RunError(f"There is no run {run_id} in {self.root}.", hint)
        return Run(self.root / run_id)

    def ids(self) -> list[str]:
        """Ids of all runs, in no particular order."""
        return ids_in(self.root)

    def list(self) -> list[RunSummary]:
        """All runs, newest first; damaged ones are among them and say so. Only what has changed is read again."""
        return summaries(self.root)

    def delete(self, run_id: str) -> None:
        """Remove a run and everything in its folder.

        Raises:
            RunError: there is no such run, or it is queued or running.
        """
        with self.lock():
            run = self.open(run_id)
            unfinished = summary_of(run).state in ("queued", "running", "cancelling")
            with run.claim(wait_s=0 if unfinished else 2) as free:
                if unfinished or not free:
                    raise RunError(f"Run {run_id} is not finished.", f"Cancel it first: `lrc runs cancel {run_id}`.")
                self.discard(run)

    def discard(self, run: Run) -> None:
        """Remove a folder whatever its state; the caller holds the lock and the claim."""
        # Renamed first: it is gone at once and as a whole, however long the removal takes.
        grave = self.root / f"{GRAVE}{run.id}-{uuid.uuid4().hex[:8]}"
        with disk_errors(run.path):
            move(run.path, grave)
        shutil.rmtree(grave, ignore_errors=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock under which runs change hands (started, resumed, reconciled, deleted): for moments only."""
        require_writable("no run changes hands")
        with locked(self.root / ".lock"):
            yield
