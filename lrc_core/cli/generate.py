"""``lrc generate``: one prompt, the dense model and plans answer; the text is shown while it is written."""

from __future__ import annotations

import argparse
import sys
import time

from lrc_core.cli.answers import answer_label, print_figures
from lrc_core.cli.follow import result_of, start
from lrc_core.cli.jobs import print_result, print_started
from lrc_core.cli.output import emit, note
from lrc_core.jobs import generator, manager
from lrc_core.kinds import KINDS
from lrc_core.runs.spec import GenerateSpec
from lrc_core.runs.store import Run, RunStore
from lrc_core.runs.transcript import read_answers

POLL_S = 0.1


def generate(arguments: argparse.Namespace) -> None:
    """``lrc generate``."""
    store = RunStore()
    if arguments.release:
        had = generator.release(store)
        note("The generation worker gives its model back." if had else "There is no generation worker.")
        return
    spec = KINDS[arguments.job].spec_from(arguments, store)
    run = start(spec, arguments, resume=arguments.resume)
    if arguments.detach:
        print_started(run, as_json=arguments.json)
        return
    note(f"Run {run.id}")
    if not arguments.json:
        _stream(run, spec)
    result = result_of(run)
    print_result(run, result, as_json=arguments.json, show=lambda run, _: print_figures(run, spec))


def _stream(run: Run, spec: GenerateSpec) -> None:
    """Write the answers to the terminal as they come."""
    shown = [""] * len(spec.answers)
    current, looked, phase = 0, 0.0, ""
    while current < len(shown):
        final = run.status().final
        answers = read_answers(run)
        while current in answers:
            answer = answers[current]
            if not shown[current]:
                emit(f"── {answer_label(spec.answers[current])}")
            sys.stdout.write(answer.text[len(shown[current]) :])
            sys.stdout.flush()
            shown[current] = answer.text or " "
            if not answer.done:
                break
            emit()
            current += 1
        if final:
            return
        if time.monotonic() - looked > 2:  # a worker that died must be noticed
            looked = time.monotonic()
            status = manager.poll(run.id, store=RunStore(run.path.parent))
            if status.phase != phase and not status.phase.startswith("writing"):
                phase = status.phase
                note(f"{run.id}: {phase or status.state}")
        time.sleep(POLL_S)
