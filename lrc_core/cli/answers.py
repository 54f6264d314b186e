"""Answers of ``lrc generate`` as they are printed."""

from __future__ import annotations

from lrc_core.cli.output import emit, emit_table
from lrc_core.kinds.words import titles
from lrc_core.plan import Plan, plan_variant
from lrc_core.runs.spec import AnswerSpec, GenerateSpec
from lrc_core.runs.store import Run
from lrc_core.runs.transcript import Answer, read_answers
from lrc_core.words import data_size


def answer_label(answer: AnswerSpec) -> str:
    """``llrc, keep 0.8``, ``dense model``."""
    if answer.plan is None:
        return "dense model"
    plan = Plan.from_dict(dict(answer.plan))
    return titles.listed(plan_variant(plan), plan.keep_target)


def print_figures(run: Run, spec: GenerateSpec) -> None:
    """What the answers cost."""
    answers = read_answers(run)
    rows = [
        [answer_label(wanted), *_figures(answers.get(number, Answer()))] for number, wanted in enumerate(spec.answers)
    ]
    emit()
    emit_table(["model", "tokens", "tokens/s", "size"], rows)


def _figures(answer: Answer) -> list[str]:
    speed = f"{answer.tokens_per_s:.3g}" if answer.tokens_per_s is not None else "–"
    return [str(answer.tokens), speed, data_size(answer.bytes)]


def print_answers(run: Run, _: object) -> None:
    """A finished run: its texts and figures, as ``lrc runs show`` prints them."""
    spec = run.spec_as(GenerateSpec)
    answers = read_answers(run)
    for number, wanted in enumerate(spec.answers):
        emit(f"── {answer_label(wanted)}")
        emit(answers.get(number, Answer()).text)
    print_figures(run, spec)
