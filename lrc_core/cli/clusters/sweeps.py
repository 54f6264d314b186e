"""``lrc sweep``: a graph of runs, sent to an engine all at once, followed to a table."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lrc_core.cli.follow import ProgressLine, require_lasting
from lrc_core.cli.jobs import print_rows
from lrc_core.cli.output import emit, emit_json, emit_table, note
from lrc_core.errors import RunError
from lrc_core.files import disk_errors
from lrc_core.jobs.sweeps.folder import SweepFolder
from lrc_core.jobs.sweeps.progress import DONE, FAILED, StepState, SweepProgress, ended_counts, progress_words
from lrc_core.jobs.sweeps.sending import cancel_sweep, plan_sweep, send_missing
from lrc_core.jobs.sweeps.steps import EVALUATE, Step
from lrc_core.quality.tables import rows_csv
from lrc_core.runs.store import Run, RunStore

LOOK_S = 1.0


def sweep_command(arguments: argparse.Namespace) -> int:
    """``lrc sweep``: 0 when every step is done, 1 when some are not."""
    store = RunStore()
    steps = plan_sweep(arguments.file, store).all
    if arguments.dry_run:
        _print_graph(steps, as_json=arguments.json)
        return 0
    folder = SweepFolder.make(steps, store)
    if arguments.cancel:
        emit(f"{cancel_sweep(folder)} steps were taken back or stopped.")
        return 0
    require_lasting(arguments, store)
    sent = send_missing(folder, arguments.engine)
    note(f"{len(steps)} steps, {sent} of them sent ({arguments.engine.engine}).")
    if arguments.detach:
        note("They work on; the same command without --detach follows them to the table.")
        return 0
    progress = SweepProgress(folder)
    states = _follow(progress)
    rows = list(rows_of(folder, states))
    if arguments.csv:
        with disk_errors(Path(arguments.csv)):
            Path(arguments.csv).write_text(rows_csv({"rows": rows}), encoding="utf-8")
    _print_end(folder, states, rows, as_json=arguments.json)
    return 0 if all(state.state == DONE for state in states.values()) else 1


def _follow(progress: SweepProgress) -> dict[str, StepState]:
    """Watch until nothing more happens; Ctrl-C leaves the jobs at work."""
    line, began, told = ProgressLine(), time.time(), set[str]()
    try:
        while True:
            states = progress.states()
            for key, state in states.items():
                if state.state == FAILED and key not in told:
                    told.add(key)
                    line.close()
                    note(f"Failed: {progress.folder.steps[key].label}: {state.error}")
            line.show(progress_words(states, began), str(ended_counts(states)))
            if all(state.ended for state in states.values()):
                return states
            time.sleep(LOOK_S)
    except KeyboardInterrupt:
        raise RunError(
            "The sweep is not followed any more; what was sent works on.",
            "The same command follows it again, and with --cancel it stops.",
        ) from None
    finally:
        line.close()


def rows_of(folder: SweepFolder, states: Mapping[str, StepState]) -> Sequence[dict[str, Any]]:
    """A row for everything that is measured: its figures, or why there are none."""
    found = []
    for key, step in folder.steps.items():
        if step.kind != EVALUATE:
            continue
        state = states[key]
        result = Run(folder.store.root / state.run_id).result() if state.state == DONE else None
        found.append({**(result or {"error": _why_not(folder, states, step)}), **step.row, "run_id": state.run_id})
    return found


def _why_not(folder: SweepFolder, states: Mapping[str, StepState], step: Step) -> str:
    """Of a row without figures: its own error, or that of what it comes after."""
    state = states[step.key]
    before = step.plan or ""
    while not state.error and before:
        step, state = folder.steps[before], states[before]
        before = step.plan or ""
    return state.error or state.state


def _print_end(
    folder: SweepFolder, states: Mapping[str, StepState], rows: Sequence[dict[str, Any]], *, as_json: bool
) -> None:
    if as_json:
        steps = [{"key": key, "label": folder.steps[key].label, **vars(state)} for key, state in states.items()]
        emit_json({"rows": rows, "steps": steps, "folder": str(folder.path)})
        return
    for model in dict.fromkeys(row["model"] for row in rows):
        measured = [row for row in rows if row["model"] == model and "error" not in row]
        if measured:
            emit(model)
            print_rows(measured)
    for row in rows:
        if "error" in row:
            size = f" at {row['keep_target']:g} kept"
            emit(f"No figures for {row['method']}{size}, {row['model']}: {row['error']}")
    left = sum(state.state != DONE for state in states.values())
    if left:
        note(f"{left} of {len(states)} steps are not done; the same command again does them. Logs: {folder.path}/log")


def _print_graph(steps: Sequence[Step], *, as_json: bool) -> None:
    if as_json:
        emit_json({"steps": [{"key": s.key, "kind": s.kind, "label": s.label, "after": list(s.after)} for s in steps]})
        return
    emit_table(["step", "what", "after"], [[f"#{s.key}", s.label, _short(s.after)] for s in steps])
    note(f"{len(steps)} runs; those that are done already are not done again.")


def _short(keys: Sequence[str]) -> str:
    return ", ".join(keys) if len(keys) <= 4 else f"{keys[0]} to {keys[-1]}"
