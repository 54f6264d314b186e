"""The expected perplexity of a training run, from measured plans of similar runs; or as measured."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from lrc_core import words
from lrc_core.budget import removed_share, same_size
from lrc_core.charts.film import Film, film_of
from lrc_core.errors import LrcError
from lrc_core.names import learns
from lrc_core.quality.forecast import FEWEST_PLANS, Forecast, MeasuredPlan, TrainingCurve, forecast
from lrc_core.results.archive import AnyRun, RunView, archive, asks_for, stamp_of
from lrc_core.results.identity import measured_contents
from lrc_core.runs.spec import AllocateSpec, EvaluateSpec, EvaluationSpec, ModelRef
from lrc_core.runs.store import Run

_KL = "logits"


def figures(made: Forecast, dense: float) -> str:
    """Expected value and range, to the digits that the range allows."""
    middle, low, high = made.perplexity(dense)
    digits = max(0, -math.floor(math.log10(max(high - low, 1e-9)) + 0.7))
    shown = [f"{value:,.{min(digits, 2)}f}" for value in (middle, low, high)]
    return f"{shown[0]} ({shown[1]} to {shown[2]})"


def forecasts(view: RunView[AllocateSpec], shown: Film) -> tuple[dict[str, tuple[Forecast, float]], str]:
    """Forecast and the dense model's perplexity by text; or none, and why."""
    spec = view.spec
    if not trains_on_divergence(spec):
        return {}, "It is made from the KL divergence of training, which this run does not use."
    if shown.removed is None:
        return {}, "It is made for shares of parameters, not for budgets in bytes or in time."
    removed, curve = shown.removed, curve_of(shown)
    by_text = measured_plans(view)
    enough = {text: plans for text, (plans, _) in by_text.items() if len(plans) >= FEWEST_PLANS}
    if not enough:
        most = max((len(plans) for plans, _ in by_text.values()), default=0)
        return {}, (
            f"It needs {FEWEST_PLANS} measured plans of earlier runs with this model, method, decomposition and text; "
            f"there {'is one' if most == 1 else f'are {most}' if most else 'are none'}. Compare measures them."
        )
    made = {text: forecast(curve, removed, plans) for text, plans in enough.items()}
    good = {text: (one, by_text[text][1]) for text, one in made.items() if one is not None and one.validated}
    if good:
        return good, ""
    tried = [one.error for one in made.values() if one is not None]
    if not tried:
        return {}, "Too few steps so far."
    return {}, (
        "Too early: at this point of their training it would have missed the measured plans by "
        f"{words.percent(math.expm1(min(tried)), 0)}."
    )


def curve_of(shown: Film) -> TrainingCurve:
    """Training as a curve; ticks without a loss are left out."""
    losses = shown.ticks.get("distill") or shown.ticks.get("task") or []
    rows = [row for row in zip(shown.ticks["step"], shown.ticks["removed"], losses, strict=False) if row[2] is not None]
    columns = np.array(rows, dtype=float).reshape(-1, 3).T
    return TrainingCurve(columns[0], columns[1], columns[2])


def measured_plans(view: RunView[AllocateSpec], own: bool = False) -> dict[str, tuple[list[MeasuredPlan], float]]:
    """By text: plans of other runs like this one that were measured, and the dense model's perplexity.

    Args:
        own: whether its own measured plans count too; not while a forecast of its end is to be tried.
    """
    like = {other.id: other for other in archive().runs(AllocateSpec, view.spec.model) if _alike(other, view)}
    if own:
        like[view.id] = view
    found: dict[str, tuple[list[MeasuredPlan], float]] = {}
    for plan, origin, scores in measured_as_allocated(view.spec.model):
        if (source := like.get(str(origin.get("run_id")))) is None:
            continue
        curve = training_of(source)
        step, removed = (
            int(origin.get("recorded_at_step") or curve.steps[-1]),
            removed_share(float(plan["keep_target"])),
        )
        for text, (value, dense) in scores.items():
            plans, _ = found.setdefault(text, ([], dense))
            plans.append(MeasuredPlan(source.id, curve, removed, step, math.log(value / dense)))
    return found


def measured_as_allocated(
    ref: ModelRef,
) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, tuple[float, float]]]]:
    """Measured plans whose factors are as allocated, each once: plan, origin, by text its and the dense perplexity."""
    evaluations = archive().finished(EvaluateSpec, ref)
    dense = {_measure(one.spec): _scores(one) for one in evaluations if one.spec.plan is None}
    seen = set()
    for one in evaluations:
        content, base = _plan_of(one), dense.get(_measure(one.spec))
        origin = (content or {}).get("origin") or {}
        key = (origin.get("run_id"), (content or {}).get("keep_target"))
        if content is None or base is None or key in seen or origin.get("update"):
            continue
        seen.add(key)
        scores = {
            text: (float(score["value"]), float(base[text]["value"]))
            for text, score in _scores(one).items()
            if text in base
        }
        yield content, origin, scores


def has_film(view: RunView[AllocateSpec]) -> bool:
    """Whether a run is one that learns ranks and has begun to."""
    return learns(view.spec.method) and view.status.state != "queued" and (view.path / "card.json").is_file()


def training_of(view: RunView[AllocateSpec]) -> TrainingCurve:
    """Training of a run as a curve, read again only when its events change."""
    return _curve(str(view.path), stamp_of(view.path / "events.jsonl"))


def plays(view: RunView[AllocateSpec]) -> bool:
    """Whether a run has steps to play; a damaged one has none, and must not hide the others."""
    try:
        return has_film(view) and len(training_of(view).steps) > 0
    except LrcError:
        return False


def can_be_watched(view: AnyRun | None) -> bool:
    """Whether there is something to watch of a run, or will be: not of one that ended before its first step."""
    if view is None or not asks_for(view, AllocateSpec) or not learns(view.spec.method):
        return False
    return not view.final or plays(view)


@lru_cache(maxsize=64)
def _curve(path: str, stamp: tuple[int, int]) -> TrainingCurve:
    """Training of the run in a folder, as its events were at that stamp."""
    return curve_of(film_of(Run(Path(path))))


def measurement_of(view: RunView[AllocateSpec]) -> tuple[str, dict[str, Any]] | None:
    """The evaluation of a run's own final plan, if there is one: its id and its scores by text."""
    spec = view.spec
    ends = (one for one in measurements_of(view) if spec.budget or same_size(one[1], spec.keep))
    found = ((run, scores) for run, _, scores in ends)
    return next(found, None) if view.done else None


def measurements_of(view: RunView[AllocateSpec]) -> list[tuple[str, float, dict[str, Any]]]:
    """Evaluations of a run's own plans as they were allocated: id, share kept and scores by text."""
    found = []
    for one in archive().runs(EvaluateSpec, view.spec.model):
        plan = _plan_of(one) or {}
        origin = plan.get("origin") or {}
        if one.done and origin.get("run_id") == view.id and not origin.get("update") and (scores := _scores(one)):
            found.append((one.id, float(plan.get("keep_target", 0)), scores))
    return found


def trains_on_divergence(spec: AllocateSpec) -> bool:
    """Whether a loss of its training is the KL divergence from the dense model's logits."""
    return _KL in (spec.settings.get("distillation"), spec.settings.get("task"))


def _alike(other: RunView[AllocateSpec], view: RunView[AllocateSpec]) -> bool:
    """Whether another run's loss means the same: method, kind of budget, decomposition, text and window, a KL loss."""
    if other.id == view.id or not other.done or not has_film(other):
        return False
    mine, its = view.spec, other.spec
    return trains_on_divergence(its) and all(
        one == two
        for one, two in (
            (mine.method, its.method),
            (mine.budget, its.budget),
            (mine.decomposition, its.decomposition),
            (mine.calibration.texts, its.calibration.texts),
            (mine.contents, its.contents),
            (mine.settings.get("window"), its.settings.get("window")),
        )
    )


def _plan_of(view: RunView[EvaluateSpec]) -> dict[str, Any] | None:
    return None if view.spec.plan is None else dict(view.spec.plan)


def _measure(spec: EvaluateSpec) -> tuple[EvaluationSpec, tuple[tuple[str, str], ...]]:
    """What perplexities of two evaluations must share to be compared: everything but the zero-shot part."""
    return replace(spec.evaluation, tasks=(), items=0, include_path=""), measured_contents(spec)


def _scores(view: RunView[EvaluateSpec]) -> dict[str, Any]:
    scores = (view.run.result() or {}).get("perplexity")
    return scores if isinstance(scores, dict) else {}
