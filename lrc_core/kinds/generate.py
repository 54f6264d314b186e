"""``lrc generate``: one prompt, answered by the dense model and by plans, side by side."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, replace

from lrc_core.errors import SettingsError
from lrc_core.kinds.kind import Kind
from lrc_core.kinds.words.flags import Flag, flag
from lrc_core.kinds.words.lists import add_list
from lrc_core.names import method_label
from lrc_core.plan import PAIR, variant_name
from lrc_core.results.plans import DENSE_WORD, find_plan, words_for_answer
from lrc_core.runs.spec import AnswerSpec, CalibrationSpec, GenerateSpec, SamplingSpec
from lrc_core.runs.store import RunStore
from lrc_core.settings import build, fields_of

MOST_ANSWERS = 6
"""Models that answer one prompt: the dense one and five plans."""


class _Answers:
    """Who answers, in this order; the dense model comes first where no word is said about it."""

    def add(self, parser: argparse.ArgumentParser, base: GenerateSpec) -> None:
        words = f"plan file, run id, RUN@20, or dense; {MOST_ANSWERS} at most, the dense model among them"
        add_list(parser, ("--plan",), "plan", words, metavar="FILE|RUN")
        parser.add_argument("--no-dense", action="store_true", help="the plans alone")

    def read(self, spec: GenerateSpec, arguments: argparse.Namespace, store: RunStore) -> GenerateSpec:
        named = list(arguments.plan or ())
        answers = [] if arguments.no_dense or DENSE_WORD in named else [AnswerSpec()]
        answers += [AnswerSpec() if words == DENSE_WORD else _answer(words, store) for words in named]
        return replace(spec, answers=tuple(answers))

    def write(self, spec: GenerateSpec, said: GenerateSpec, store: RunStore) -> tuple[list[str], GenerateSpec]:
        dense = [number for number, answer in enumerate(spec.answers) if answer.plan is None]
        named = [
            DENSE_WORD if answer.plan is None else words_for_answer(spec, number, store)
            for number, answer in enumerate(spec.answers)
        ]
        plans = named[1:] if dense == [0] else named
        words = [*(["--no-dense"] if not dense else []), *(["--plan", *plans] if plans else [])]
        return words, replace(said, answers=spec.answers)


def _answer(words: str, store: RunStore) -> AnswerSpec:
    found = find_plan(words, store)
    return AnswerSpec(found.plan, found.folder, found.calibration or CalibrationSpec())


def _prompt(word: str) -> str:
    return sys.stdin.read() if word == "-" else word


_SAMPLING = tuple(
    Flag(f"--{info.name.replace('_', '-')}", f"sampling.{info.name}", info.help, info.type, info.choices)
    for info in fields_of(SamplingSpec)
)
"""How tokens are chosen: a flag for every field."""


def _extras(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--release", action="store_true", help="let the generation worker give its model back")


def _check(spec: GenerateSpec) -> None:
    if not spec.prompt.strip():
        raise SettingsError(
            "The prompt is empty.", "Write a question: --prompt 'your question', or --prompt - to read one."
        )
    if not 1 <= len(spec.answers) <= MOST_ANSWERS:
        raise SettingsError(
            f"{len(spec.answers)} models are asked, but it must be 1 to {MOST_ANSWERS}.",
            f"The dense model and up to {MOST_ANSWERS - 1} compressed ones stand side by side.",
        )
    build(SamplingSpec, asdict(spec.sampling))


def _title(spec: GenerateSpec) -> str:
    prompt = " ".join(spec.prompt.split())
    asked = prompt[:40] + ("…" if prompt[40:] else "")
    whose = asked_of(spec)
    said = f"{len(spec.answers)} answer{'s' if len(spec.answers) > 1 else ''} to “{asked}”"
    return f"{said}, {whose}" if whose else said


def asked_of(spec: GenerateSpec) -> str:
    """The method, where all plans that answer are of one, else "": it tells the same question to others apart."""
    names = {
        variant_name(
            str(answer.plan.get("method")),
            str(((answer.plan.get("origin") or {}).get("update") or {}).get("kind") or ""),
            answer.plan.get("storage") or PAIR,
        )
        for answer in spec.answers
        if answer.plan
    }
    return method_label(names.pop()) if len(names) == 1 else ""


KIND = Kind(
    GenerateSpec(),
    label="Talk",
    help="One prompt, answered by the dense model and by plans, side by side.",
    stage="lrc_core.pipeline.generation:generation_run",
    show="lrc_core.cli.answers:print_answers",
    page="talk?ta_run={id}",
    handler="lrc_core.cli.generate:generate",
    parts=(flag(GenerateSpec, "prompt", made=_prompt), _Answers(), *_SAMPLING),
    extras=_extras,
    title=_title,
    check=_check,
)
