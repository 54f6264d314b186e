"""``lrc generate``: one prompt, the dense model and plans answer; the text is shown while it is written."""

from __future__ import annotations

import argparse
import sys
import time

from lrc_core.cli.follow import result_of, start
from lrc_core.cli.jobs import print_result, print_started
from lrc_core.cli.output import emit, emit_table, note
from lrc_core.jobs import generator, manager
from lrc_core.kinds import KINDS
from lrc_core.models.resources import human_bytes
from lrc_core.plan import Plan, variant_name
from lrc_core.runs.spec import AnswerSpec, GenerateSpec
from lrc_core.runs.store import Run, RunStore
from lrc_core.runs.transcript import Answer, read_answers

POLL_S = 0.1


def generate(arguments: argparse.Namespace) -> int:
    """``lrc generate``."""
    store = RunStore()
    if arguments.release:
        had = generator.release(store)
        note("The generation worker gives its model back." if had else "There is no generation worker.")
        return 0
    spec = KINDS[arguments.job].spec_from(arguments, store)
    run = start(spec, resume=arguments.resume)
    if arguments.detach:
        print_started(run, as_json=arguments.json)
        return 0
    note(f"Run {run.id}")
    if not arguments.json:
        _stream(run, spec)
    result = result_of(run)
    print_result(run, result, as_json=arguments.json, show=lambda run, _: print_figures(run, spec))
    return 0


def label_of(answer: AnswerSpec) -> str:
    """``llrc at 20 %``, ``dense model``."""
    if answer.plan is None:
        return "dense model"
    plan = Plan.from_dict(dict(answer.plan))
    return f"{variant_name(plan.method, plan.update)} at {100 * (1 - plan.keep_target):.3g} %"


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
                emit(f"── {label_of(spec.answers[current])}")
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


def print_figures(run: Run, spec: GenerateSpec) -> None:
    """What the answers cost."""
    answers = read_answers(run)
    rows = [[label_of(wanted), *_figures(answers.get(number, Answer()))] for number, wanted in enumerate(spec.answers)]
    emit()
    emit_table(["model", "tokens", "tokens/s", "size"], rows)


def _figures(answer: Answer) -> list[str]:
    speed = f"{answer.tokens_per_s:.3g}" if answer.tokens_per_s is not None else "–"
    return [str(answer.tokens), speed, human_bytes(answer.bytes)]


def print_answers(run: Run, _: object) -> None:
    """A finished run: its texts and figures, as ``lrc runs show`` prints them."""
    spec = run.spec
    assert isinstance(spec, GenerateSpec)
    answers = read_answers(run)
    for number, wanted in enumerate(spec.answers):
        emit(f"── {label_of(wanted)}")
        emit(answers.get(number, Answer()).text)
    print_figures(run, spec)
