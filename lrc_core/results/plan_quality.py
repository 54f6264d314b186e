"""What is known of the quality of each recorded plan of a run: measured, forecast, or nothing, and why."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from lrc_core import words
from lrc_core.allocate.curves.loss_curves import predicted_loss
from lrc_core.budget import stored, whole_percent
from lrc_core.decompose import TWO_SIDED
from lrc_core.errors import LrcError
from lrc_core.plan import Plan, split_variant
from lrc_core.quality.forecast import (
    FEWEST_PLANS,
    MARGIN,
    Forecast,
    MeasuredPlan,
    Prediction,
    TrainingCurve,
    calibrated,
    passed,
)
from lrc_core.results import comparisons, forecasts, series
from lrc_core.results.archive import AnyRun, RunView, archive, card_of, stamp_of
from lrc_core.results.outcomes import few_windows
from lrc_core.results.plans import load_plan
from lrc_core.results.series import PlanSeries
from lrc_core.results.spectra import losses_of
from lrc_core.runs.spec import AllocateSpec, EvaluateSpec, ModelRef, SpectraSpec
from lrc_core.texts.label import text_label
from lrc_core.types import Storage

_Known = dict[str, tuple[list[Prediction], float]]
"""By text: measured plans by their predicted losses, and the dense model's perplexity."""


@dataclass(frozen=True)
class Quality:
    """What is said of the plans of a run.

    Attributes:
        said: by rate in whole percent: ``measured`` or ``forecast``, and the sentence.
        basis: what the forecasts rest on and how far they miss, or why there are none.
    """

    said: dict[int, tuple[str, str]]
    basis: str


def quality_of(view: RunView[AllocateSpec]) -> Quality:
    """What is known of each recorded plan of a run; nothing of one that is still training."""
    try:
        return _kept(view.id, _stamps(view))
    except (LrcError, ValueError, KeyError, TypeError) as error:
        return Quality({}, f"No quality is shown: its records could not be read ({error}).")


def _stamps(view: RunView[AllocateSpec]) -> tuple[tuple[str, tuple[int, int]], ...]:
    """What changes when anything changes that the quality of a run's plans is known from."""
    model = view.spec.model
    others: list[AnyRun] = [*archive().runs(EvaluateSpec, model), *archive().runs(AllocateSpec, model)]
    files = [view.path / "events.jsonl", *(plan.path for plan in series.recorded_at(view).values())]
    files += [other.path / name for other in others for name in ("status.json", "result.json")]
    return tuple((str(path), stamp_of(path)) for path in files)


@lru_cache(maxsize=16)
def _kept(run_id: str, stamps: tuple[tuple[str, tuple[int, int]], ...]) -> Quality:
    return _quality(archive().require(run_id, AllocateSpec))


def _quality(view: RunView[AllocateSpec]) -> Quality:
    said = {rate: ("measured", text) for rate, text in _measured(view).items()}
    if not view.done:
        return Quality(said, "No quality forecast while the run is training; Watch has one of its end.")
    if not forecasts.trains_on_divergence(view.spec):
        return Quality(
            said, "No quality forecast: it needs the KL divergence from training, which this run does not use."
        )
    by_text = forecasts.measured_plans(view, own=True)
    enough = {text: found for text, found in by_text.items() if len(found[0]) >= FEWEST_PLANS}
    if not enough:
        most = max((len(plans) for plans, _ in by_text.values()), default=0)
        return Quality(
            said,
            f"No quality forecast: it needs {FEWEST_PLANS} measured plans of runs like this one, and there "
            f"{'is one' if most == 1 else f'are {most}' if most else 'are none'}. Compare measures them.",
        )
    made = _forecasts(view, enough)
    every = [one for by in made.values() for one, _ in by.values()]
    errors = [one.error for one in every]
    for rate, by in made.items():
        good = [(text, one, dense) for text, (one, dense) in by.items() if one.validated]
        if rate not in said and good:
            said[rate] = ("forecast", _expected(good))
    if not any(kind == "forecast" for kind, _ in said.values()):
        missed = (
            f": tried on the measured plans it misses by {words.percent(math.expm1(min(errors)), 0)}" if errors else ""
        )
        return Quality(said, f"No quality forecast{missed}.")
    plans = max(one.plans for one in every)
    return Quality(
        said,
        f"Forecasts scale the KL divergence of training at the plan by {plans} measured plans. Tried on each of those "
        f"with it left out, they miss the increase of log-perplexity by {words.percent(math.expm1(max(errors)), 0)}; "
        f"{_worst(one for one in every if one.validated).record}.",
    )


def _worst(made: Iterable[Forecast]) -> Forecast:
    """Of several forecasts the one with the worst record."""
    return min(made, key=lambda one: one.inside / one.plans)


def _forecasts(
    view: RunView[AllocateSpec], by_text: dict[str, tuple[list[MeasuredPlan], float]]
) -> dict[int, dict[str, tuple[Forecast, float]]]:
    """By rate and text: the forecast and the dense model's perplexity."""
    curve: TrainingCurve = forecasts.training_of(view)
    found: dict[int, dict[str, tuple[Forecast, float]]] = {}
    for rate, recorded in series.recorded_at(view).items():
        origin = load_plan(recorded.path).origin
        step = int(origin.get("recorded_at_step") or curve.steps[-1])
        made = {text: (passed(curve, step, plans), dense) for text, (plans, dense) in by_text.items()}
        found[rate] = {text: (one, dense) for text, (one, dense) in made.items() if one is not None}
    return found


def _measured(view: RunView[AllocateSpec]) -> dict[int, str]:
    """By rate: what was measured of this run's own plans."""
    found: dict[int, str] = {}
    for _, keep, scores in forecasts.measurements_of(view):
        found.setdefault(whole_percent(keep), _perplexities(scores))
    return found


def _perplexities(scores: Mapping[str, Mapping[str, float]]) -> str:
    """``perplexity gensim 26.1 ± 1.2, c4 49.2 ± 4.7``."""
    parts = [f"{text_label(text)} {words.measured(one['value'], one.get('stderr'))}" for text, one in scores.items()]
    return f"perplexity {', '.join(parts)}"


def closed_form_quality(view: RunView[SpectraSpec], storage: Storage) -> Quality:
    """What is known of the closed form's plan at each rate: measured, or forecast from what its spectra predict.

    The predictions are calibrated on measured plans of this model on the same factors, of whatever method, as
    allocated (:func:`lrc_core.quality.forecast.calibrated`).
    """
    plans = [run.path / "plan.json" for run in series.closed_form_runs(view, storage).values()]
    return _closed(view.id, storage, (*_measurements(view), *((str(path), stamp_of(path)) for path in plans)))


def loss_forecast(view: RunView[SpectraSpec], loss: float) -> tuple[str, str]:
    """What a plan on the factors of these spectra is expected to have, by its predicted loss.

    Args:
        view: two-sided spectra of the model.
        loss: of the plan, in nats per token.

    Returns:
        Perplexities with their ranges, "" where there are none; and the record of such forecasts, or why there is none.
    """
    try:
        good = _calibrated(_known(view.id, _measurements(view)), loss)
    except (LrcError, ValueError, KeyError, TypeError) as error:
        return "", _unreadable(error)
    return (_expected(good), _record(good)) if good else ("", _TOO_FEW)


def _measurements(view: RunView[SpectraSpec]) -> tuple[tuple[str, tuple[int, int]], ...]:
    """What changes when more is measured of this model, or its spectra are others."""
    others = archive().runs(EvaluateSpec, view.spec.model)
    files = [view.path / "spectra.npz", *(other.path / "result.json" for other in others)]
    return tuple((str(path), stamp_of(path)) for path in files)


@lru_cache(maxsize=8)
def _known(run_id: str, stamps: tuple[tuple[str, tuple[int, int]], ...]) -> _Known:
    return _predictions(archive().require(run_id, SpectraSpec))


def _calibrated(known: _Known, loss: float) -> list[tuple[str, Forecast, float]]:
    """Text, forecast and the dense model's perplexity, of the texts where forecasts have proved right."""
    made = [(text, calibrated(loss, plans), dense) for text, (plans, dense) in known.items()]
    return [(text, one, dense) for text, one, dense in made if one is not None and one.validated]


def _expected(good: Sequence[tuple[str, Forecast, float]]) -> str:
    parts = [
        f"{text_label(text)} about {forecasts.figures(one, dense)}, dense {dense:.1f}" for text, one, dense in good
    ]
    return f"perplexity {'; '.join(parts)}"


_TOO_FEW = f"No quality forecast: it needs {FEWEST_PLANS} measured plans on K-FAC factors, one of which lost as much."


def _unreadable(error: Exception) -> str:
    return f"No quality forecast: its records could not be read ({error})."


def _record(good: Sequence[tuple[str, Forecast, float]]) -> str:
    worst = _worst(one for _, one, _ in good)
    return (
        f"Forecasts scale the predicted loss by {worst.plans} measured plans and go at most {words.percent(MARGIN)} "
        f"beyond the largest: {worst.record}."
    )


@lru_cache(maxsize=8)
def _closed(run_id: str, storage: Storage, stamps: tuple[tuple[str, tuple[int, int]], ...]) -> Quality:
    view = archive().require(run_id, SpectraSpec)
    plans: PlanSeries = series.estimated(view, storage)
    said = measured_at(view.spec.model, "lagrangian", TWO_SIDED, storage)
    try:
        known, losses = _known(run_id, stamps), losses_of(view)
        layers = stored(card_of(view).layers, storage)
    except (LrcError, ValueError, KeyError, TypeError) as error:
        return Quality(said, _unreadable(error))
    shown: list[tuple[str, Forecast, float]] = []
    for rate in plans.rates:
        ranks = plans.plan_near(rate, layers)
        good = [] if rate in said else _calibrated(known, predicted_loss(layers, ranks, losses))
        if good:
            said[rate] = ("forecast", _expected(good))
            shown += good
    if shown:
        return Quality(said, _record(shown))
    return Quality(said, _TOO_FEW)


def _predictions(view: RunView[SpectraSpec]) -> _Known:
    """By text: measured plans on the factors of these spectra, and the dense model's perplexity."""
    card, losses = card_of(view), losses_of(view)
    found: _Known = {}
    for content, origin, scores in forecasts.measured_as_allocated(view.spec.model):
        plan = Plan.from_dict(content)
        if plan.decomposition != TWO_SIDED or plan.pruned or plan.formats or not plan.ranks:
            continue
        layers = plan.stored(card).layers
        loss = predicted_loss(layers, plan.full_ranks(layers), losses)
        for text, (value, dense) in scores.items():
            known, _ = found.setdefault(text, ([], dense))
            known.append(Prediction(str(origin.get("run_id", "")), loss, math.log(value / dense)))
    return found


def measured_at(ref: ModelRef, method: str, decomposition: str, storage: str) -> dict[int, tuple[str, str]]:
    """What was measured of a method's plans, by rate: of a rule that needs no run of its own every plan is the same."""
    found: dict[int, tuple[str, str]] = {}
    for group in comparisons.groups(ref):
        for row in group.at(decomposition, None):
            if split_variant(str(row["method"])) == (method, "", storage) and row["perplexity"]:
                rate = whole_percent(float(row["keep_target"]))
                found.setdefault(rate, ("measured", _perplexities(row["perplexity"]) + few_windows(group.evaluation)))
    return found
