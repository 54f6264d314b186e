"""One run folder: its records, its flags, its claim. No torch.

A run folder holds ``spec.json`` (immutable; the folder is named after its hash), ``status.json`` (replaced atomically),
``events.jsonl`` (append-only), ``heartbeat`` (its time is the worker's last sign of life), ``checkpoint/``,
``result.json``, ``stdout.log``, ``cancel`` (a flag that asks the worker to stop), ``.claim`` (locked by the process
that works on the run), and what its kind adds.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from lrc_core.errors import RecordError, RunError
from lrc_core.files import append_line, disk_errors, json_plain, lock_if_free, write_json
from lrc_core.records import AGAIN, load_record, parse, typed
from lrc_core.runs import integrity
from lrc_core.runs.records import Event, Result, Snapshot, Status
from lrc_core.runs.spec import Spec, spec_from_dict
from lrc_core.runs.spec_parts import id_of
from lrc_core.types import ModelCard

S = TypeVar("S")
LIVELY_S, SETTLED_S = 30.0, 2.0
"""Since the last sign of life of a worker that may be writing; how long what it writes may look damaged elsewhere."""


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
            RecordError: ``spec.json`` is missing or damaged, or it is not what the folder is named after.
        """
        path = self.path / "spec.json"
        data = load_record(path, strict=True)
        spec = spec_from_dict(data, str(path))
        # The record as it stands has the id unless it was written with other fields than today's.
        if self.id != id_of(spec.kind, data) and self.id != spec.run_id:
            raise RecordError(
                f"{path} is not what the run was asked for: its content belongs to {spec.run_id}.", AGAIN, str(path)
            )
        return spec

    def spec_as(self, kind: type[S]) -> S:
        """The same, of a run whose kind is known."""
        assert isinstance(self.spec, kind)
        return self.spec

    def status(self) -> Status:
        """Where the run stands. A run that works while a cancel was asked for reads as ``cancelling``.

        Raises:
            RecordError: ``status.json`` is missing or damaged.
        """
        path, until = self.path / "status.json", time.monotonic() + SETTLED_S
        while True:
            try:
                status = Status.from_dict(load_record(path), str(path))
                break
            except RecordError:
                # The disk of another computer may show a file that was just replaced with the length of the one before.
                age = self.heartbeat_age(time.time())
                if age is None or age > LIVELY_S or time.monotonic() > until:
                    raise
            time.sleep(SETTLED_S / 10)
        if status.state == "running" and self.cancel_requested():
            return replace(status, state="cancelling")
        return status

    def write_status(self, status: Status) -> None:
        """Replace the status. Only the process that holds the claim, or the store's lock, may call this.

        Of a run that is done the files that hold its figures are digested with it.
        """
        if status.state == "done" and not status.digests:
            status = replace(status, digests=integrity.digests_in(self.path))
        write_json(self.path / "status.json", status.to_dict())

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
        return self._read_lines("events.jsonl", after, Event)

    def read_ranks(self, after: int = 0) -> tuple[list[dict[str, Any]], int]:
        """Snapshots of the ranks of a run that learned, ``{"step", "keep", "ranks"}``; as :meth:`read_events`."""
        return self._read_lines("ranks.jsonl", after, Snapshot)

    def _read_lines(self, name: str, after: int, kind: type[Any]) -> tuple[list[dict[str, Any]], int]:
        try:
            with integrity.unaltered(self.path / name).open("rb") as file:
                if after > file.seek(0, os.SEEK_END):
                    after = 0
                file.seek(after)
                data = file.read()
        except FileNotFoundError:
            return [], 0
        except OSError as error:
            raise RunError(f"Cannot read {self.path / name}: {error.strerror or error}.") from error
        end = data.rfind(b"\n") + 1
        return list(_parsed(data[:end], kind)), after + end

    def append_event(self, event: dict[str, Any]) -> None:
        """Add one line to ``events.jsonl``."""
        append_line(self.path / "events.jsonl", json.dumps(event, default=json_plain))

    def result(self) -> dict[str, Any] | None:
        """Content of ``result.json``, None before the run is done.

        Raises:
            RecordError: the file is damaged, or not the one that the run has finished with.
        """
        path = self.path / "result.json"
        if not path.exists():
            return None
        data: dict[str, Any] = load_record(integrity.unaltered(path))
        typed(Result, data, str(path), others=True)
        return data

    def card(self) -> ModelCard:
        """The card of the run's model.

        Raises:
            RecordError: missing, damaged, or not the one that the run has finished with.
        """
        path = integrity.unaltered(self.path / "card.json")
        return ModelCard.from_dict(load_record(path, strict=True), str(path))

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


def _parsed(data: bytes, kind: type[Any]) -> Iterator[dict[str, Any]]:
    """Lines that hold what they should; what a kill left half-written is passed over."""
    for line in data.split(b"\n"):
        if line:
            with suppress(RecordError):
                event = parse(line, "The line")
                typed(kind, event, "The line", others=True)
                yield event
