"""Submitting a job and watching it from a terminal. Ctrl-C cancels the job; a closed terminal leaves it working."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self

from lrc_core.cli.output import note
from lrc_core.errors import CancelledError, LrcError, RunError
from lrc_core.jobs import manager, placed
from lrc_core.jobs.engines.choice import engine_of
from lrc_core.jobs.engines.profile import LOCAL
from lrc_core.results.identity import named_texts
from lrc_core.runs.records import Status
from lrc_core.runs.spec import Spec
from lrc_core.runs.store import Run, RunStore
from lrc_core.texts.files import is_file, read_file
from lrc_core.texts.label import text_label
from lrc_core.types import Progress
from lrc_core.words import duration

POLL_S, SPARSE_S = 0.2, 15.0
_FIGURES = ("keep", "target", "loss", "perplexity")


class ProgressLine:
    """One line that is rewritten on a terminal; elsewhere a line per phase, and for news every quarter of a minute.

    A with-block leaves the line for what follows.
    """

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._last_phase = self._last_text = ""
        self._last_at = 0.0
        self._width = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def show(self, text: str, phase: str) -> None:
        """Show ``text``; ``phase`` tells when it is worth a line of its own."""
        if self._terminal:
            sys.stderr.write("\r" + text[:150].ljust(self._width))
            sys.stderr.flush()
            self._width = min(len(text), 150)
            return
        now = time.monotonic()
        if phase != self._last_phase or (text != self._last_text and now - self._last_at >= SPARSE_S):
            self._last_phase, self._last_text, self._last_at = phase, text, now
            note(text)

    def on_progress(self, progress: Progress) -> None:
        """As a callback of work in this very process."""
        self.show(_line(progress.phase, progress.step, progress.total, progress.values, None), progress.phase)

    def close(self) -> None:
        """Leave the line for what follows."""
        if self._terminal and self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            sys.stderr.flush()
            self._width = 0


def start(spec: Spec, arguments: argparse.Namespace, *, resume: bool, env: Mapping[str, str] | None = None) -> Run:
    """Submit a job, or go on with its stopped run when that was asked for.

    Args:
        arguments: of the command: on which engine, and whether it is followed.
        resume: whether a stopped run is gone on with.
        env: variables for its worker alone.

    Raises:
        RunError: the run was stopped or failed before, and ``resume`` is not set.
        LrcError: the pre-flight refused.
    """
    store = RunStore()
    manager.reconcile(store=store)
    require_lasting(arguments, store)
    run = manager.submit(spec, store=store, env=env, on=arguments.engine)
    for name in filter(is_file, named_texts(spec)):
        with suppress(LrcError):
            note(f"{text_label(name)}: {read_file(name).words}")
    status = run.status()
    if not status.resumable:
        return run
    if resume:
        return manager.resume(run.id, store=store, env=env, on=arguments.engine if arguments.on else None)
    why = f" ({status.error.rstrip('.')})" if status.error else ""
    how = "failed" if status.state == "failed" else f"was {status.state}"
    raise RunError(f"This job {how} before{why}.", f"Go on with it: `lrc runs resume {run.id}`, or add --resume.")


def require_lasting(arguments: argparse.Namespace, store: RunStore) -> None:
    """Refuse to leave jobs to a cluster that ends with this command.

    Raises:
        RunError: it would.
        ResourceError: the cluster does not answer.
    """
    if arguments.engine.engine == LOCAL:
        return
    engine = engine_of(arguments.engine, store.root)
    engine.reach()
    if not engine.lasting:
        if arguments.detach:
            raise RunError(
                "No Ray cluster is running, and one that is started for this command ends with it.",
                "Start one that stays (`ray start --head`), or leave --detach away.",
            )
        note("No Ray cluster is running: one is started on this machine for as long as this command runs.")


def result_of(run: Run) -> dict[str, Any]:
    """Watch a run to its end and return its result.

    Raises:
        CancelledError: it was cancelled, here by Ctrl-C or elsewhere.
        LrcError: it failed, in the worker's words.
    """
    try:
        with ProgressLine() as line:
            status = _watch(run, line)
    except KeyboardInterrupt:
        status = _cancel(run)
    manager.require_done(run, status, f"Go on with it: `lrc runs resume {run.id}`.")
    return manager.result_in(run)


def _watch(run: Run, line: ProgressLine) -> Status:
    for status in manager.statuses(run, every_s=POLL_S):
        if status.final:
            break
        if status.state == "queued":
            away = placed.is_away(run)
            ahead = 0 if away else manager.queue_position(run.id, store=RunStore(run.path.parent))
            words = f"queued, {ahead} before it" if ahead else f"queued, {away.words}" if away else "starting"
            line.show(f"{run.id}: {words}", words)
        else:
            eta = status.eta_s(time.time())
            text = _line(status.phase, status.step, status.total, status.values, eta)
            line.show(f"{run.id}: {text}", status.phase)
    return status


def _cancel(run: Run) -> Status:
    note(f"Cancelling {run.id} (press Ctrl-C again to leave it to stop on its own).")
    try:
        return manager.cancel(run.id, store=RunStore(run.path.parent), wait=True)
    except KeyboardInterrupt:
        raise CancelledError(
            f"Run {run.id} will stop at its next step.", f"Go on with it: `lrc runs resume {run.id}`."
        ) from None


def _line(phase: str, step: int, total: int, values: Mapping[str, Any] | None, eta: float | None) -> str:
    parts = [phase or "working"]
    if total > 0:
        parts.append(f"{step}/{total}")
    elif step > 0:
        parts.append(str(step))
    for name in _FIGURES:
        if isinstance(value := (values or {}).get(name), int | float):
            parts.append(f"{name} {value:.4g}")
    if eta is not None:
        parts.append(f"{duration(eta)} left")
    return " · ".join(parts)
