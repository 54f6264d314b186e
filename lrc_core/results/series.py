"""Plans at every whole percent, ready for the slider: learned ones as recorded, the uniform rule, the closed form."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from lrc_core.allocate.curves.loss_curves import cheapest_plans
from lrc_core.budget import (
    Ranks,
    check_target,
    fit_budget,
    is_dense,
    keep_at,
    keep_ratio,
    removed_share,
    stored,
    uniform_ranks,
    whole_percent,
)
from lrc_core.decompose import TWO_SIDED
from lrc_core.errors import BudgetError, LrcError
from lrc_core.plan import Plan
from lrc_core.results.archive import RunView, archive, card_of, stamp_of
from lrc_core.results.plans import RecordedPlan, passes_rates, recorded_plans
from lrc_core.results.spectra import losses_of
from lrc_core.runs.integrity import unaltered
from lrc_core.runs.spec import AllocateSpec, ModelRef, SpectraSpec
from lrc_core.types import LinearShape, ModelCard, Storage

Layers = tuple[LinearShape, ...]
LARGEST_RATE = 80
"""The largest rate that is offered, in whole percent."""


@dataclass(frozen=True)
class PlanSeries:
    """Plans of one origin over the slider.

    Attributes:
        rates: of the plans, in whole percent, ascending.
        removed: share of the block linears' parameters that each of them removes.
        dense: how many layers each of them stores dense.
        ranks: [plans, layers] of every layer of every plan.
        packed: the same, as :func:`packed` writes it.
    """

    rates: tuple[int, ...]
    removed: tuple[float, ...]
    dense: tuple[int, ...]
    ranks: np.ndarray
    packed: str

    def nearest(self, rate: int) -> int:
        """Index of the plan nearest to a rate, the one that removes less of two equally near."""
        return min(range(len(self.rates)), key=lambda index: abs(self.rates[index] - rate))

    def plan_near(self, rate: int, layers: Layers) -> dict[str, int]:
        """Rank of every layer in the plan nearest to a rate."""
        found = self.ranks[self.nearest(rate)].tolist()
        return {layer.name: rank for layer, rank in zip(layers, found, strict=True)}

    @property
    def none_dense_from(self) -> int | None:
        """The rate from which on no plan stores a layer dense; None where the last one still does."""
        free = [rate for rate, dense in zip(self.rates, self.dense, strict=True) if dense == 0]
        first = free[0] if free else None
        return first if first is not None and len(free) == sum(rate >= first for rate in self.rates) else None


def packed(ranks: np.ndarray) -> str:
    """Ranks of some plans as text: differences from one plan to the next, signs folded in, seven bits per byte, base64.

    Args:
        ranks: [plans, layers], not negative.
    """
    steps = np.diff(ranks.astype(np.int64), axis=0, prepend=0).ravel()
    rest = np.where(steps < 0, -2 * steps - 1, 2 * steps)
    written = bytearray()
    for number in rest.tolist():
        while number > 127:
            written.append(number & 127 | 128)
            number >>= 7
        written.append(number)
    return base64.b64encode(bytes(written)).decode()


def series_of(layers: Layers, rates: Sequence[int], plans: Sequence[Ranks]) -> PlanSeries:
    """The series of these plans."""
    table = np.array([[plan[layer.name] for layer in layers] for plan in plans], dtype=np.int64)
    table = table.reshape(len(plans), len(layers))
    return PlanSeries(
        tuple(rates),
        tuple(round(removed_share(keep_ratio(layers, plan)), 5) for plan in plans),
        tuple(sum(is_dense(layer, plan[layer.name]) for layer in layers) for plan in plans),
        table,
        packed(table),
    )


def largest_rate(layers: Layers) -> int:
    """The largest rate of the slider that a plan can have at all."""
    rates = range(LARGEST_RATE, 0, -1)
    return next((rate for rate in rates if _possible(layers, rate)), 0)


def _possible(layers: Layers, rate: int) -> bool:
    try:
        check_target(layers, keep_at(rate))
    except BudgetError:
        return False
    return True


@lru_cache(maxsize=8)
def uniform(layers: Layers) -> PlanSeries:
    """The uniform rule at every rate that is possible."""
    rates = range(1, largest_rate(layers) + 1)
    keeps = [keep_at(rate) for rate in rates]
    return series_of(layers, rates, [fit_budget(layers, uniform_ranks(layers, keep), keep) for keep in keeps])


def estimated(view: RunView[SpectraSpec], storage: Storage = "pair") -> PlanSeries:
    """The Lagrangian plan at every rate that is possible, from spectra of the two-sided decomposition.

    Where a run has computed the plan of a rate from the same text, that is the plan: it is what was measured. Its
    factors may come from another computer or precision than these spectra, and its ranks then differ by a few.
    """
    files = [(rate, run.path / "plan.json") for rate, run in closed_form_runs(view, storage).items()]
    stamped = tuple((rate, str(path), stamp_of(path)) for rate, path in files)
    return _with_recorded(view.id, stamp_of(view.path / "spectra.npz"), storage, stamped)


def from_spectra(view: RunView[SpectraSpec], storage: Storage = "pair") -> PlanSeries:
    """:func:`estimated`, whatever has been computed by runs."""
    return _estimated(view.id, stamp_of(view.path / "spectra.npz"), storage)


def closed_form_runs(view: RunView[SpectraSpec], storage: Storage) -> dict[int, RunView[AllocateSpec]]:
    """Finished runs of the closed form on the text of some spectra, by rate in whole percent; the newest of each."""
    found: dict[int, RunView[AllocateSpec]] = {}
    for run in archive().runs(AllocateSpec, view.spec.model):
        asked = replace(
            run.spec,
            method="lagrangian",
            decomposition=TWO_SIDED,
            calibration=view.spec.calibration,
            storage=storage,
            rank_multiple=1,
            budget="",
        )
        if run.done and run.spec == asked and run.spec.settings.get("curve", "auto") in ("auto", "sigma"):
            found.setdefault(whole_percent(run.spec.keep), run)
    return found


@lru_cache(maxsize=8)
def _with_recorded(
    run_id: str, stamp: tuple[int, int], storage: Storage, files: tuple[tuple[int, str, tuple[int, int]], ...]
) -> PlanSeries:
    series = _estimated(run_id, stamp, storage)
    if not files:
        return series
    layers = stored(card_of(archive().require(run_id, SpectraSpec)).layers, storage)
    plans = {rate: series.plan_near(rate, layers) for rate in series.rates}
    for rate, path, _ in files:
        with suppress(LrcError):  # a damaged one is passed over: the estimate stands
            if rate in plans:
                plans[rate] = Plan.load(unaltered(Path(path))).full_ranks(layers)
    return series_of(layers, series.rates, [plans[rate] for rate in series.rates])


@lru_cache(maxsize=8)
def _estimated(run_id: str, stamp: tuple[int, int], storage: Storage) -> PlanSeries:
    view = archive().require(run_id, SpectraSpec)
    layers = stored(card_of(view).layers, storage)
    rates = range(1, largest_rate(layers) + 1)
    return series_of(layers, rates, cheapest_plans(layers, losses_of(view), [keep_at(rate) for rate in rates]))


def two_sided(ref: ModelRef, card: ModelCard) -> RunView[SpectraSpec] | None:
    """The newest spectra of these layers that the closed form can be made from; damaged ones are passed over."""
    for view in archive().runs(SpectraSpec, ref):
        if view.done and TWO_SIDED in view.spec.decompositions:
            with suppress(LrcError):
                losses_of(view)
                if _shapes(card_of(view)) == _shapes(card):
                    return view
    return None


def _shapes(card: ModelCard) -> list[tuple[str, int, int]]:
    return [(layer.name, layer.out_features, layer.in_features) for layer in card.layers]


def learned_runs(ref: ModelRef, decomposition: str, storage: Storage = "pair") -> dict[str, RunView[AllocateSpec]]:
    """Runs that recorded learned plans on a decomposition under a storage law: own ones with most plans first."""
    views = [
        view
        for view in archive().runs(AllocateSpec, ref)
        if passes_rates(view.spec) and (view.spec.decomposition, view.spec.storage) == (decomposition, storage)
    ]
    counted = [(view, len(recorded_plans([view]))) for view in views]
    ordered = sorted(((view, plans) for view, plans in counted if plans), key=lambda one: (one[0].sample, -one[1]))
    found: dict[str, RunView[AllocateSpec]] = {}
    for view, _ in ordered:
        found.setdefault(view.id, view)
    return found


def recorded_at(view: RunView[AllocateSpec]) -> dict[int, RecordedPlan]:
    """The recorded plans of a run by whole percent; the final one where there are two."""
    found = {whole_percent(plan.keep): plan for plan in recorded_plans([view])}
    return {rate: found[rate] for rate in sorted(found)}


def learned(view: RunView[AllocateSpec], card: ModelCard) -> PlanSeries:
    """The plans that a run recorded.

    Raises:
        PlanError: a plan is damaged or not of this model.
    """
    found = recorded_at(view)
    files = tuple((str(plan.path), stamp_of(plan.path)) for plan in found.values())
    return _learned(stored(card.layers, view.spec.storage), tuple(found), files)


@lru_cache(maxsize=16)
def _learned(layers: Layers, rates: tuple[int, ...], files: tuple[tuple[str, tuple[int, int]], ...]) -> PlanSeries:
    plans = [Plan.load(unaltered(Path(path))).full_ranks(layers) for path, _ in files]
    return series_of(layers, rates, plans)
