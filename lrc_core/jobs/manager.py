"""Submit, watch and stop jobs. No torch: pages and the command line call this.

The interface is narrow on purpose (submit, cancel, resume, reconcile, delete; polling is reading the run folder):
a cluster's scheduler stands behind it with the same run folders, see :mod:`lrc_core.jobs.engines`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from lrc_core.errors import CancelledError, LrcError, RunError
from lrc_core.files import disk_errors
from lrc_core.jobs import dispatcher, ending, generator, placed, sharing
from lrc_core.jobs.engines.placement import profile_of
from lrc_core.jobs.engines.profile import LOCAL, Profile
from lrc_core.jobs.launch import end_run, start_run
from lrc_core.jobs.queue import DeviceQueue
from lrc_core.kinds import KINDS, check, command_for
from lrc_core.paths import cache_home, require_writable
from lrc_core.results.identity import as_asked_before, identified
from lrc_core.runs.process import host_name, identity, is_alive
from lrc_core.runs.records import Status
from lrc_core.runs.spec import Spec
from lrc_core.runs.store import Run, RunStore
from lrc_core.runs.sweep import is_due, sweep

TOKEN = "HF_TOKEN"
LOOK_S = 2.0
"""How often a process that follows a run looks whether its worker lives."""


_AUTOMATIC = "automatic"
"""Flag in the folder of a run that no user explicitly asked for: a newer wish may take its place."""


def submit(
    spec: Spec,
    *,
    store: RunStore | None = None,
    env: Mapping[str, str] | None = None,
    automatic: bool = False,
    here: bool = False,
    on: Profile | None = None,
) -> Run:
    """Make sure that a spec's run is done, running or queued, and return it at once.

    The spec is first given the contents of what it names. A run of the same spec is joined, whoever asked for it first.
    One that was cancelled, failed or was interrupted is returned as it is, to be offered for :func:`resume`; it is
    never restarted silently.

    Args:
        env: environment variables for the worker alone, such as ``HF_TOKEN``; never written anywhere.
        automatic: nobody pressed a button for it, so :func:`replace_queued` may drop it while it waits. A run that was
            there before keeps what it is; one that is asked for afterwards is no longer automatic.
        here: this process will do the work itself, so that none is started for it.
        on: the engine that starts a worker, with what the job asks of it; this machine by default.

    Raises:
        LrcError: the pre-flight found that the job cannot succeed; nothing was queued.
    """
    require_writable("no job is started", f"On a copy of your own: `{command_for(spec)}`")
    store = store or RunStore()
    sharing.require_openable(spec)
    spec = as_asked_before(identified(spec), store)
    known = (store.root / spec.run_id / "spec.json").exists()
    if not known:
        if not _is_sent(on):
            _require_room(store, spec)
        # With a token of its own the model is for the worker's eyes only: this process must not hold the token.
        check(spec, model_too=TOKEN not in (env or {}), runs=store.root)
    run = store.create(spec)
    if not known:
        sharing.claim(run)
    with store.lock():
        _flag(run, automatic=automatic and (not known or (run.path / _AUTOMATIC).exists()))
        status = run.status()
        if status.state == "queued" and is_alive(status) is False and not here and not placed.is_away(run):
            _launch(store, run, status, env, on)
    return run


def poll(run_id: str, *, store: RunStore | None = None) -> Status:
    """Where a run stands, after a look whether its process lives.

    Raises:
        RunError: there is no such run, or it is damaged.
    """
    store = store or RunStore()
    run = store.open(run_id)
    ending.settled(store, run)
    keep_going(store=store)
    return run.status()


def statuses(run: Run, *, every_s: float) -> Iterator[Status]:
    """Where a run stands, again and again until it is final; now and then after a look whether its process lives."""
    looked = 0.0
    while True:
        if time.monotonic() - looked > LOOK_S:
            looked = time.monotonic()
            status = poll(run.id, store=RunStore(run.path.parent))
        else:
            status = run.status()
        yield status
        if status.final:
            return
        time.sleep(every_s)


def require_done(run: Run, status: Status, go_on: str) -> None:
    """Refuse a run that has ended in another way.

    Args:
        go_on: how a cancelled one is gone on with.

    Raises:
        CancelledError: it was cancelled.
        LrcError: it failed, in the worker's words.
    """
    if status.state == "cancelled":
        raise CancelledError(f"Run {run.id} was cancelled.", go_on)
    if status.state != "done":
        raise LrcError(status.error or f"Run {run.id} {status.state}.", f"{status.remedy} [run {run.id}]".strip())


def result_in(run: Run) -> dict[str, Any]:
    """The content of a finished run's ``result.json``.

    Raises:
        RunError: there is none.
        RecordError: it is damaged.
    """
    found = run.result()
    if found is None:
        raise RunError(f"Run {run.id} is done but has no result.", f"Delete it: `lrc runs delete {run.id}`.")
    return found


def resume(
    run_id: str,
    *,
    store: RunStore | None = None,
    env: Mapping[str, str] | None = None,
    here: bool = False,
    on: Profile | None = None,
) -> Run:
    """Queue a cancelled, failed or interrupted run again; it goes on from its checkpoint.

    Args:
        env: as for :func:`submit`.
        here: likewise.
        on: likewise; by default the engine that had it before.

    Raises:
        RunError: there is no such run, it is damaged, done, or has not stopped.
    """
    store = store or RunStore()
    run = store.open(run_id)
    ending.settled(store, run)
    before = placed.is_away(run)
    on = on or (profile_of(before) if before and not here else None)
    if not _is_sent(on):
        _require_room(store, run.spec)
    with store.lock():
        status = run.status()
        if status.state == "done":
            raise RunError(f"Run {run_id} is done; there is nothing to resume.", f"See `lrc runs show {run_id}`.")
        if not status.final:
            raise RunError(f"Run {run_id} is {status.state}.", f"See `lrc runs show {run_id}`.")
        with run.claim(wait_s=2) as free:
            if not free:
                raise RunError(f"The worker of run {run_id} is still ending.", "Try again in a few seconds.")
            run.clear_cancel()
            _flag(run, automatic=False)
            fresh = status.again()
            run.write_status(fresh)
        placed.forget(run)
        if not here:
            _launch(store, run, fresh, env, on)
    return run


def cancel(run_id: str, *, store: RunStore | None = None, wait: bool = False) -> Status:
    """Ask a run to stop. A queued one stops at once; a running one at its next step, and is made to after a grace.

    Args:
        run_id: the run; one that is final is left as it is.
        wait: return only when the run has stopped (at most about a minute).

    Returns:
        The run's status afterwards.

    Raises:
        RunError: there is no such run, or it is damaged.
        SharedServerError: a visitor asks, and somebody else started it.
    """
    store = store or RunStore()
    run = store.open(run_id)
    sharing.require_own(run, "cancel it")
    with store.lock():
        status = run.status()
        if status.final:
            return status
        run.request_cancel()
        away = placed.is_away(run)
        if status.state == "queued":
            with run.claim() as free:
                if free:
                    if away:
                        placed.recall(store, away)
                    return end_run(store, run, status, "cancelled", LrcError("Cancelled while it was queued."))
    if wait:
        ending.see_it_stop(store, run)
    else:
        threading.Thread(target=ending.see_it_stop, args=(store, run), name=f"cancel-{run_id}", daemon=True).start()
    return run.status()


def delete(run_id: str, *, store: RunStore | None = None) -> None:
    """Remove a run and its files; damaged ones as well.

    Raises:
        RunError: there is no such run, or it is queued or running (cancel it first).
        SharedServerError: a visitor asks, and somebody else started it.
    """
    store = store or RunStore()
    run = store.open(run_id)
    sharing.require_own(run, "delete it")
    ending.settled(store, run)
    store.delete(run_id)


def reconcile(*, store: RunStore | None = None) -> list[Run]:
    """Bring records into line with reality: runs whose process has died become interrupted.

    Cancels that a worker does not heed are pressed on. What killed processes left behind is removed.
    Returns the runs that changed.
    """
    store = store or RunStore()
    with suppress(LrcError):  # of a folder that is only to be read: nothing is lost
        if is_due(store.root, time.time()):
            with store.lock():
                sweep(store.root, cache_home())
    changed = []
    for summary in store.list():
        if summary.state in ("queued", "running", "cancelling"):
            run = Run(summary.path)
            if ending.settled(store, run):
                changed.append(run)
            elif summary.state == "cancelling":
                ending.press(run)
    keep_going(store=store)
    return changed


def keep_going(*, store: RunStore | None = None) -> None:
    """See to it that what waits will be started; cheap enough to be asked by whoever looks at jobs."""
    with suppress(LrcError):  # who looks need not be able to start anything
        dispatcher.ensure(store or RunStore())


def replace_queued(spec: Spec, *, store: RunStore | None = None) -> list[str]:
    """Drop what a new wish supersedes: queued automatic runs of the same kind and model.

    Running ones are never touched, nor what a user has asked for.

    A run that has never computed is removed; one that was waiting to be resumed is cancelled and keeps its checkpoint.

    Args:
        spec: what is wanted now; its own run is kept.

    Returns:
        Ids of the dropped runs.
    """
    store = store or RunStore()
    spec = as_asked_before(identified(spec), store)
    dropped = []
    for summary in store.list():
        other = summary.spec
        if summary.state != "queued" or other is None or summary.id == spec.run_id:
            continue
        alike = (other.kind, other.model) == (spec.kind, spec.model) and (summary.path / _AUTOMATIC).exists()
        alike = alike and sharing.is_own(summary.path)
        if alike and _drop(store, Run(summary.path)):
            dropped.append(summary.id)
    return dropped


def queue_position(run_id: str, *, store: RunStore | None = None) -> int:
    """How many jobs will have the device before this one."""
    return len(DeviceQueue(store or RunStore()).ahead(run_id))


def _require_room(store: RunStore, spec: Spec) -> None:
    sharing.require_room_for_visitor(store)
    if not KINDS[spec.kind].light:
        DeviceQueue(store).require_room()


def _is_sent(on: Profile | None) -> bool:
    """Whether a job goes to another engine than this machine."""
    return on is not None and on.engine != LOCAL


def _launch(
    store: RunStore, run: Run, status: Status, env: Mapping[str, str] | None, on: Profile | None = None
) -> None:
    """Start a queued run, send it, or leave it to the dispatcher. The caller holds the store's lock."""
    if on is not None and _is_sent(on):
        try:
            placed.send(store, run, on)
        except LrcError as error:
            end_run(store, run, status, "failed", error)
            raise
        return
    queue = DeviceQueue(store)
    queue.enter(run, status.queued_at)
    knows_a_secret = bool(env) or TOKEN in os.environ
    try:
        if run.spec.kind in generator.KINDS:
            pid = generator.ensure(store, env)
            run.write_status(replace(status, **identity(pid), updated_at=time.time()))
        elif KINDS[run.spec.kind].light or knows_a_secret or queue.is_next(run.id):
            start_run(store, run, status, env)
        else:
            run.write_status(replace(status, host=host_name(), updated_at=time.time()))
            dispatcher.ensure(store)
    except LrcError as error:
        end_run(store, run, status, "failed", error)
        raise


def _flag(run: Run, *, automatic: bool) -> None:
    with disk_errors(run.path):
        if automatic:
            (run.path / _AUTOMATIC).touch()
        else:
            (run.path / _AUTOMATIC).unlink(missing_ok=True)


def _drop(store: RunStore, run: Run) -> bool:
    with store.lock():
        try:
            with run.claim() as free:
                status = run.status()
                if not free or status.state != "queued":
                    return False
                run.request_cancel()
                if away := placed.is_away(run):
                    placed.recall(store, away)
                end_run(store, run, status, "cancelled", LrcError("A newer request took its place."))
                if status.attempt == 1:
                    store.discard(run)
                return True
        except RunError:  # another process was faster
            return False
