"""``lrc generate``: one prompt, the dense model and plans answer; the text is shown while it is written."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import fields

from lrc_core.cli.answers import label_of, print_figures
from lrc_core.cli.follow import result_of, start
from lrc_core.cli.jobs import print_result, print_started
from lrc_core.cli.output import emit, note
from lrc_core.cli.specs import model_ref
from lrc_core.errors import SettingsError
from lrc_core.jobs import generator, manager
from lrc_core.results.plans import DENSE_WORD, find_plan
from lrc_core.runs.spec import AnswerSpec, CalibrationSpec, GenerateSpec, SamplingSpec
from lrc_core.runs.store import Run, RunStore
from lrc_core.runs.transcript import read_answers
from lrc_core.settings import build

POLL_S = 0.1


def generate(arguments: argparse.Namespace) -> int:
    """``lrc generate``."""
    store = RunStore()
    if arguments.release:
        had = generator.release(store)
        note("The generation worker gives its model back." if had else "There is no generation worker.")
        return 0
    spec = generate_spec(arguments, store)
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


def generate_spec(arguments: argparse.Namespace, store: RunStore) -> GenerateSpec:
    """Spec of ``lrc generate``. Without a word about the dense model it answers first.

    Raises:
        SettingsError: no prompt, or a setting out of range.
        PlanError: there is no such plan.
    """
    if arguments.prompt is None:
        raise SettingsError("There is no prompt.", "Add --prompt 'your question', or --prompt - to read it.")
    prompt = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    named = list(arguments.plan)
    answers = [] if arguments.no_dense or DENSE_WORD in named else [AnswerSpec()]
    answers += [AnswerSpec() if words == DENSE_WORD else _answer(words, store) for words in named]
    given = {f.name: getattr(arguments, f.name) for f in fields(SamplingSpec)}
    sampling = build(SamplingSpec, {name: value for name, value in given.items() if value is not None})
    return GenerateSpec(model_ref(arguments), prompt, tuple(answers), sampling)


def _answer(words: str, store: RunStore) -> AnswerSpec:
    found = find_plan(words, store)
    return AnswerSpec(found.plan, found.folder, found.calibration or CalibrationSpec())


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
