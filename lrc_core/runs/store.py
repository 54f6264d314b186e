"""Run folders: the truth that pages, the command line and workers share. No torch.

A run folder holds ``spec.json`` (immutable), ``status.json`` (replaced atomically), ``events.jsonl`` (append-only),
``heartbeat`` (its time is the worker's last sign of life), ``checkpoint/``, ``result.json``, ``stdout.log``, ``cancel``
(a flag that asks the worker to stop), ``.claim`` (locked by the process that works on the run), and what its kind adds.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from lrc_core.errors import LrcError, RunError
from lrc_core.files import append_line, disk_errors, json_plain, lock_if_free, locked, move, read_json, write_json
from lrc_core.paths import require_writable, runs_home
from lrc_core.runs.records import STATES, Status
from lrc_core.runs.spec import Spec, spec_from_dict

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class Run:
    """One run folder. Every call reads the disk, so the object never goes stale; ``spec`` never changes and is kept."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.path.name

    @cached_property
    def spec(self) -> Spec:
        """What was asked for.

        Raises:
            RunError: ``spec.json`` is missing or damaged.
        """
        path = self.path / "spec.json"
        return spec_from_dict(read_json(path), str(path))

    def status(self) -> Status:
        """Where the run stands. A run that works while a cancel was asked for reads as ``cancelling``.

        Raises:
            RunError: ``status.json`` is missing or damaged.
        """
        path = self.path / "status.json"
        status = Status.from_dict(read_json(path), str(path))
        if status.state == "running" and self.cancel_requested():
            return replace(status, state="cancelling")
        return status

    def write_status(self, status: Status) -> None:
        """Replace the status. Only the process that holds the claim, or the store's lock, may call this."""
        write_json(self.path / "status.json", status.to_dict(), durable=status.final)

    def events(self, after: int = 0) -> list[dict[str, Any]]:
        """Events from byte ``after`` on, oldest first. See :meth:`read_events` for reading on where one stopped."""
        return self.read_events(after)[0]

    def read_events(self, after: int = 0) -> tuple[list[dict[str, Any]], int]:
        """Events from a byte offset on, and the offset to pass next time.

        A half-written last line is left for the next call; a damaged line in the middle (a worker killed while
        writing) is skipped. A file that became shorter than ``after`` is read from its beginning.

        Args:
            after: 0, or the offset a former call returned.

        Returns:
            The events, each ``{"t", "phase", "step", "total", "values"}``, and the offset behind the last whole line.
        """
        return self._read_lines("events.jsonl", after)

    def read_ranks(self, after: int = 0) -> tuple[list[dict[str, Any]], int]:
        """Snapshots of the ranks of a run that learned, ``{"step", "keep", "ranks"}``; as :meth:`read_events`."""
        return self._read_lines("ranks.jsonl", after)

    def _read_lines(self, name: str, after: int) -> tuple[list[dict[str, Any]], int]:
        try:
            with (self.path / name).open("rb") as file:
                if after > file.seek(0, os.SEEK_END):
                    after = 0
                file.seek(after)
                data = file.read()
        except FileNotFoundError:
            return [], 0
        except OSError as error:
            raise RunError(f"Cannot read {self.path / name}: {error.strerror or error}.") from error
        end = data.rfind(b"\n") + 1
        return list(_parsed(data[:end])), after + end

    def append_event(self, event: dict[str, Any]) -> None:
        """Add one line to ``events.jsonl``."""
        append_line(self.path / "events.jsonl", json.dumps(event, default=json_plain))

    def result(self) -> dict[str, Any] | None:
        """Content of ``result.json``, None before the run is done.

        Raises:
            RunError: the file is damaged.
        """
        path = self.path / "result.json"
        if not path.exists():
            return None
        data = read_json(path)
        if not isinstance(data, dict):
            raise RunError(f"{path} is damaged: it holds no record.", "Delete the run and start it again.")
        return data

    def write_result(self, result: dict[str, Any]) -> None:
        """Write ``result.json`` so that it survives a power cut."""
        write_json(self.path / "result.json", result)

    def log_tail(self, n: int = 50) -> str:
        """The last ``n`` lines that the worker wrote to its log, at most 256 KiB."""
        try:
            with (self.path / "stdout.log").open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - 262_144))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-n:]) if n > 0 else ""

    def request_cancel(self) -> None:
        """Ask the worker to stop at its next step. Asking again keeps the time of the first request."""
        path = self.path / "cancel"
        if not path.exists():
            with disk_errors(path):  # empty, so that it can be written on a full disk
                path.touch()

    def cancel_requested(self) -> bool:
        """Whether a cancel was asked for and not taken back by a resume."""
        return (self.path / "cancel").exists()

    def clear_cancel(self) -> None:
        """Take a cancel request back."""
        with disk_errors(self.path / "cancel"):
            (self.path / "cancel").unlink(missing_ok=True)

    def beat(self) -> None:
        """Give a sign of life. A full disk does not matter here: only the file's time is used."""
        with suppress(OSError):
            (self.path / "heartbeat").touch()

    def heartbeat_age(self, now: float) -> float | None:
        """Seconds since the last sign of life, None when there was none."""
        try:
            return max(0.0, now - (self.path / "heartbeat").stat().st_mtime)
        except OSError:
            return None

    def claim(self, wait_s: float = 0.0) -> AbstractContextManager[bool]:
        """Try to become the one process that works on this run; yields whether it is. Ends with the process.

        Args:
            wait_s: how long to wait; a worker that has written its end needs a moment to let go.
        """
        if not self.path.is_dir():
            raise RunError(f"The run folder {self.path} is gone.")
        return lock_if_free(self.path / ".claim", wait_s)


def _parsed(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data.split(b"\n"):
        with suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict):
                yield event


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
        temporary = self.root / f".new-{spec.run_id}-{uuid.uuid4().hex[:8]}"
        try:
            with disk_errors(path):
                temporary.mkdir(parents=True)
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
        if not _ID.fullmatch(run_id):
            raise RunError(f"{run_id!r} is not a run id.", "`lrc runs list` shows the ids.")
        if not (self.root / run_id).is_dir():
            close = get_close_matches(run_id, self.ids(), n=2)
            hint = f"Did you mean {' or '.join(close)}?" if close else "`lrc runs list` shows the ids."
            raise RunError(f"There is no run {run_id} in {self.root}.", hint)
        return Run(self.root / run_id)

    def ids(self) -> list[str]:
        """Ids of all runs, in no particular order."""
        try:
            with os.scandir(self.root) as entries:
                return [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
        except OSError:
            return []

    def list(self) -> list[RunSummary]:
        """All runs, newest first; damaged ones are among them and say so. Reads two small files a run."""
        summaries = [self._summary(Run(self.root / run_id)) for run_id in self.ids()]
        return sorted(summaries, key=lambda summary: (-summary.created_at, summary.id))

    @staticmethod
    def _summary(run: Run) -> RunSummary:
        try:
            spec, status = run.spec, run.status()
            return RunSummary(run.id, run.path, spec, status, status.created_at)
        except LrcError as error:
            try:
                created = run.path.stat().st_mtime
            except OSError:
                created = 0.0
            return RunSummary(run.id, run.path, None, None, created, damaged=str(error))

    def delete(self, run_id: str) -> None:
        """Remove a run and everything in its folder.

        Raises:
            RunError: there is no such run, or it is queued or running.
        """
        with self.lock():
            run = self.open(run_id)
            unfinished = self._summary(run).state in ("queued", "running", "cancelling")
            with run.claim(wait_s=0 if unfinished else 2) as free:
                if unfinished or not free:
                    raise RunError(f"Run {run_id} is not finished.", f"Cancel it first: `lrc runs cancel {run_id}`.")
                self.discard(run)

    def discard(self, run: Run) -> None:
        """Remove a folder whatever its state; the caller holds the lock and the claim."""
        # Renamed first: it is gone at once and as a whole, however long the removal takes.
        grave = self.root / f".gone-{run.id}-{uuid.uuid4().hex[:8]}"
        with disk_errors(run.path):
            move(run.path, grave)
        shutil.rmtree(grave, ignore_errors=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock under which runs change hands (started, resumed, reconciled, deleted): for moments only."""
        require_writable("no run changes hands")
        with locked(self.root / ".lock"):
            yield


__all__ = ["STATES", "Run", "RunStore", "RunSummary", "Status"]
