"""``lrc runs``: list, show, cancel, resume, delete."""

from __future__ import annotations

import argparse
import time
from typing import Any

from lrc_core.cli.follow import result_of
from lrc_core.cli.jobs import print_result, print_started
from lrc_core.cli.output import answer, emit, emit_json, emit_table, moment, note
from lrc_core.errors import CancelledError, LrcError, RunError
from lrc_core.jobs import manager
from lrc_core.jobs.engines.placement import whereabouts
from lrc_core.kinds import KINDS, command_for
from lrc_core.results.identity import changed, in_words
from lrc_core.runs.records import Status
from lrc_core.runs.spec import Spec
from lrc_core.runs.store import Run, RunStore, RunSummary
from lrc_core.words import duration


def list_runs(arguments: argparse.Namespace) -> None:
    """``lrc runs list``: ``{"runs": [{"id", "kind", "state", "model", "what", "created_at", ...}]}``."""
    store = RunStore()
    manager.reconcile(store=store)
    summaries = store.list()
    if arguments.json:
        emit_json({"runs": [_summary(summary) for summary in summaries]})
        return
    if not summaries:
        note(f"There are no runs in {store.root}.")
        return
    places = [whereabouts(summary.path) for summary in summaries]
    sent = any(places)
    emit_table(
        ["id", "state", "model", "what", "created", "progress", *(["where"] if sent else [])],
        [
            [
                summary.id,
                summary.state,
                summary.model[-40:],
                _what(summary.spec),
                moment(summary.created_at),
                _progress(summary.status),
                *([place] if sent else []),
            ]
            for summary, place in zip(summaries, places, strict=True)
        ],
    )


def show(arguments: argparse.Namespace) -> None:
    """``lrc runs show``: the summary with path, spec, status, contents, command, result and the end of the log."""
    store = RunStore()
    manager.reconcile(store=store)
    run = store.open(arguments.run)
    summary = next(summary for summary in store.list() if summary.id == run.id)
    if summary.spec is None or summary.status is None:
        raise RunError(f"Run {run.id} is damaged: {summary.damaged}", f"`lrc runs delete {run.id}` removes it.")
    if arguments.json:
        emit_json(
            {
                **_summary(summary),
                "path": str(run.path),
                "spec": summary.spec.to_dict(),
                "status": summary.status.to_dict(),
                "contents": dict(summary.spec.contents),
                "changed": list(changed(summary.spec)),
                "command": command_for(summary.spec),
                "result": run.result(),
                "log": run.log_tail(arguments.log),
            }
        )
        return
    _show_for_people(run, summary.spec, summary.status, arguments.log)


def cancel(arguments: argparse.Namespace) -> None:
    """``lrc runs cancel``: waits until the run has stopped."""
    before = manager.poll(arguments.run)
    status = manager.cancel(arguments.run, wait=True)
    if arguments.json:
        emit_json({"run_id": arguments.run, "state": status.state})
    elif before.final:
        emit(f"Run {arguments.run} had already ended: {status.state}.")
    else:
        emit(f"Run {arguments.run} is {status.state}.")
        note(f"Go on with it: `lrc runs resume {arguments.run}`.")


def resume(arguments: argparse.Namespace) -> None:
    """``lrc runs resume``: goes on and follows the run to its result."""
    run = manager.resume(arguments.run)
    if arguments.detach:
        print_started(run, as_json=arguments.json)
    else:
        print_result(run, result_of(run), as_json=arguments.json)


def delete(arguments: argparse.Namespace) -> None:
    """``lrc runs delete``."""
    for run_id in arguments.run:
        manager.delete(run_id)
    answer(arguments, {"deleted": arguments.run}, lambda _: emit(f"Deleted {', '.join(arguments.run)}."))


def _show_for_people(run: Run, spec: Spec, status: Status, lines: int) -> None:
    emit(f"{run.id}  {status.state}  {_progress(status)}".rstrip())
    emit(f"  model    {spec.model.source}")
    emit(f"  what     {_what(spec)}")
    emit(f"  created  {moment(status.created_at)}")
    for thing, digest in in_words(spec):
        emit(f"  of       {thing} ({digest})")
    for words in changed(spec):
        emit(f"  changed  {words} since this run")
    if place := whereabouts(run.path):
        emit(f"  where    {place}")
    if status.ended_at and status.started_at:
        emit(f"  took     {duration(status.ended_at - status.started_at)}")
    if status.error:
        emit(f"  error    {status.error} {status.remedy}".rstrip())
    emit(f"  folder   {run.path}")
    emit(f"  command  {command_for(spec)}")
    if log := run.log_tail(lines):
        emit("  log")
        for line in log.splitlines():
            emit(f"    {line}")
    result = run.result()
    if status.state == "done" and result is not None:
        try:
            print_result(run, result, as_json=False)
        except (LrcError, CancelledError, KeyError, OSError) as error:
            note(f"The result cannot be shown: {error}")


def _summary(summary: RunSummary) -> dict[str, Any]:
    status = summary.status
    return {
        "id": summary.id,
        "kind": summary.kind,
        "state": summary.state,
        "model": summary.model,
        "what": _what(summary.spec),
        "created_at": summary.created_at,
        "ended_at": status.ended_at if status and status.ended_at else None,
        "phase": status.phase if status else "",
        "step": status.step if status else 0,
        "total": status.total if status else 0,
        "where": whereabouts(summary.path),
        "error": summary.damaged or (status.error if status else ""),
    }


def _what(spec: Spec | None) -> str:
    return "" if spec is None else KINDS[spec.kind].what(spec)


def _progress(status: Status | None) -> str:
    if status is None or status.final or status.state == "queued":
        return ""
    steps = f" {status.step}/{status.total}" if status.total else ""
    eta = status.eta_s(time.time())
    return f"{status.phase}{steps}" + (f", {duration(eta)} left" if eta is not None else "")
