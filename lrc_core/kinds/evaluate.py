"""``lrc evaluate``: a plan, or the dense model, is measured."""

from __future__ import annotations

from lrc_core.kinds.kind import Kind
from lrc_core.kinds.plans import PlanFlag
from lrc_core.kinds.words import titles
from lrc_core.kinds.words.flags import CALIBRATION_SEED, calibration, evaluation
from lrc_core.plan import update_of
from lrc_core.runs.spec import EvaluateSpec, EvaluationSpec
from lrc_core.runs.store import RunStore

_MEASURED = evaluation(EvaluateSpec, "--text", seed="--seed")


def evaluation_words(evaluation: EvaluationSpec) -> list[str]:
    """The flags of ``lrc evaluate`` that say what is measured."""
    spec, said, words = EvaluateSpec(evaluation=evaluation), EvaluateSpec(), []
    for part in _MEASURED:
        more, said = part.write(spec, said, RunStore())
        words += more
    return words


def _title(spec: EvaluateSpec) -> str:
    return f"Evaluate {titles.plan_title(spec.plan)}" if spec.plan else "Evaluate the dense model"


def _what(spec: EvaluateSpec) -> str:
    return "dense" if spec.plan is None else titles.listed_plan(spec.plan, update_of(spec.plan.get("origin")))


KIND = Kind(
    EvaluateSpec(),
    label="Evaluate",
    help="Measure a plan, or the dense model.",
    stage="lrc_core.pipeline.evaluation:evaluation_run",
    show="lrc_core.cli.jobs:print_row",
    page="compare?co_run={id}",
    parts=(PlanFlag(), *_MEASURED, *calibration(EvaluateSpec, seed=CALIBRATION_SEED)),
    title=_title,
    what=_what,
)
