"""What the Spectra page compares: sides (a run under one decomposition), cuts, references and searches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import streamlit as st

from lrc_core.budget import USUAL_KEEP, break_even, uniform_ranks, whole_percent
from lrc_core.decompose.measures import cumulative_energy
from lrc_core.figures.common import Scale
from lrc_core.names import decomposition_label, method_label, model_label
from lrc_core.results.archive import RunView, archive, card_of, read_content, stamp_of
from lrc_core.results.plans import RecordedPlan, load_plan, nearest, recorded_plans
from lrc_core.results.series import LARGEST_RATE
from lrc_core.results.spectra import spectra_of
from lrc_core.runs.spec import AllocateSpec, ModelRef, SpectraSpec
from lrc_core.types import LinearShape, ModelCard
from lrc_core.words import kind_labels, removed
from pages.ui.shared.naming import told_apart, when
from pages.ui.shared.summary import ShownSpectra
from pages.ui.spectra import measures

UNIFORM = "uniform"


class Side(ShownSpectra):
    """Spectra that can be compared with others."""

    @property
    def card(self) -> ModelCard:
        return self.spectra.card

    @property
    def key(self) -> str:
        return f"{self.view.id}/{self.decomposition}"

    @property
    def label(self) -> str:
        return f"{model_label(self.view.spec.model)} · {decomposition_label(self.decomposition)}"


@dataclass(frozen=True)
class Reference:
    """What everything is compared with: one layer, or another run layer by layer.

    Attributes:
        label: in words.
        values: by layer of the run that is shown.
        sigmas: likewise.
        cell: the pinned layer, "" for a run.
    """

    label: str
    values: Mapping[str, float]
    sigmas: Mapping[str, np.ndarray]
    cell: str = ""


def layer_label(layer: LinearShape) -> str:
    """``3 mlp.up_proj``."""
    return f"{layer.block} {layer.kind}"


def other_sides(current: Side) -> dict[str, str]:
    """What can stand beside a side, with a label each: its run's other decompositions, then other runs of any model.

    Names only: nothing of theirs is read but small files.
    """
    views = [current.view, *(view for view in archive().done_spectra() if view.id != current.view.id)]
    found = {}
    for view in views:
        own = view.id == current.view.id
        source = "" if own else f" · {model_label(view.spec.model)} · {when(view)}"
        for name in view.spec.decompositions:
            if (key := f"{view.id}/{name}") != current.key:
                found[key] = f"{decomposition_label(name)}{source}"
    return told_apart(found)


def side_of(key: str) -> Side | None:
    """The side of that key; None where its run is gone.

    Raises:
        RunError: its files are damaged.
    """
    run_id, _, name = key.partition("/")
    view = archive().open(run_id, SpectraSpec)
    if view is None or not view.done:
        return None
    spectra = spectra_of(view)
    return Side(view, spectra, name) if name in spectra.values else None


def overlaps_of(view: RunView[SpectraSpec]) -> dict[str, Any]:
    """Stored overlaps with neighbouring blocks, by layer; empty where the run did not compute them."""
    path = view.path / "subspaces.json"
    return dict(read_content(path).get("layers", {})) if path.is_file() else {}


def cut_choices(ref: ModelRef, side: Side, keep: float) -> dict[str, str]:
    """What may cut the spectra: the uniform rule, or each method's recorded plan nearest to this size."""
    choices = {UNIFORM: "Uniform rule"}
    for method, found in sorted(_nearest_plans(ref, side, keep).items()):
        choices[method] = f"{method_label(method)}, recorded at {removed(found.keep)}"
    return choices


def cut_ranks(ref: ModelRef, side: Side, choice: str, keep: float) -> dict[str, int]:
    """Rank of every layer under a cut; the uniform rule's where the plan is of another model."""
    found = _nearest_plans(ref, side, keep).get(choice)
    if found is not None:
        ranks = load_plan(found.path).full_ranks(card_of(found.view).layers)
        if set(ranks) >= {layer.name for layer in side.card.layers}:
            return ranks
    return uniform_ranks(side.card.layers, keep)


def _nearest_plans(ref: ModelRef, side: Side, keep: float) -> dict[str, RecordedPlan]:
    views: dict[str, list[RunView[AllocateSpec]]] = {}
    for view in archive().runs(AllocateSpec, ref):
        if view.spec.decomposition == side.decomposition and view.spec.method != UNIFORM:
            views.setdefault(view.spec.method, []).append(view)
    found = {method: nearest(recorded_plans(runs), keep) for method, runs in views.items()}
    return {method: plan for method, plan in found.items() if plan is not None}


@st.cache_data(max_entries=64, show_spinner="Measuring …")
def measured_values(
    run_id: str, stamp: tuple[int, int], decomposition: str, measure: str, ranks: dict[str, int]
) -> tuple[dict[str, float], dict[str, str], dict[str, str]]:
    """One measure of every layer of a run: figures, words, doubts.

    Args:
        stamp: of its file of spectra, so that a changed file is read anew.
        ranks: of the cut; empty for measures that do not depend on it.
    """
    view = archive().require(run_id, SpectraSpec)
    spectra = spectra_of(view)
    facts = measures.facts_of(
        spectra.card,
        spectra.values[decomposition],
        ranks or uniform_ranks(spectra.card.layers, USUAL_KEEP),
        overlaps_of(view),
    )
    values, entry = measures.values_of(measure, facts), measures.MEASURES[measure]
    words = {name: entry.words(found, values[name]) for name, found in facts.items()}
    return values, words, measures.doubts_of(measure, facts)


def measure_side(
    side: Side, measure: str, ranks: Mapping[str, int]
) -> tuple[dict[str, float], dict[str, str], dict[str, str]]:
    """:func:`measured_values` of a side; ranks count only where the measure depends on them."""
    used = dict(ranks) if measures.MEASURES[measure].cuts else {}
    stamp = stamp_of(side.view.path / "spectra.npz")
    return measured_values(side.view.id, stamp, side.decomposition, measure, used)


def measures_for(side: Side) -> list[str]:
    """Measures that this side can show."""
    stored = bool(overlaps_of(side.view))
    return [
        key
        for key, entry in measures.MEASURES.items()
        if (not entry.decompositions or side.decomposition in entry.decompositions) and (stored or not entry.subspaces)
    ]


def matched(card: ModelCard, other: ModelCard) -> dict[str, str]:
    """Layers of a card and those of another that stand at the same place: the same block and kind."""
    labels, theirs = _short(card), {(layer.block, kind): name for name, (layer, kind) in _short(other).items()}
    return {name: theirs[place] for name, (layer, kind) in labels.items() if (place := (layer.block, kind)) in theirs}


def _short(card: ModelCard) -> dict[str, tuple[LinearShape, str]]:
    kinds = kind_labels(card.kinds)
    return {layer.name: (layer, kinds[layer.kind]) for layer in card.layers}


def cell_reference(side: Side, name: str, values: Mapping[str, float]) -> Reference | None:
    """One pinned layer as the reference of all."""
    layer = next((layer for layer in side.card.layers if layer.name == name), None)
    if layer is None:
        return None
    names = [layer.name for layer in side.card.layers]
    return Reference(
        layer_label(layer), dict.fromkeys(names, values[name]), dict.fromkeys(names, side.sigmas[name]), name
    )


def run_reference(side: Side, other: Side, values: Mapping[str, float]) -> Reference:
    """Another side as the reference, layer by layer; ``values`` are the other side's."""
    pairs = matched(side.card, other.card)
    return Reference(
        other.label,
        {name: values[mate] for name, mate in pairs.items()},
        {name: other.sigmas[mate] for name, mate in pairs.items()},
    )


def difference(measure: str, values: Mapping[str, float], reference: Reference) -> tuple[dict[str, float], Scale]:
    """Figures minus the reference's, and how they are written; ratios in powers of ten for measures of that kind."""
    entry = measures.MEASURES[measure]
    if entry.log:
        found = {
            name: math.log10(value / reference.values[name])
            if name in reference.values and value > 0 and reference.values[name] > 0
            else math.nan
            for name, value in values.items()
        }
        return found, Scale("powers of ten", ".2f")
    found = {name: value - reference.values.get(name, math.nan) for name, value in values.items()}
    return found, replace(entry.scale, title=f"{entry.scale.title}, difference", even=None)


def energy_difference(sigma: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Cumulative energy minus the reference's at the same number of directions, [r of the first]."""
    own, other = cumulative_energy(sigma), cumulative_energy(reference)
    padded = np.ones(len(own))
    padded[: len(other)] = other[: len(own)]
    return own - padded


def search(card: ModelCard, text: str) -> list[str] | None:
    """Layers whose name or ``block kind`` holds every word; a number alone is a block. None for an empty search."""
    words = text.lower().split()
    if not words:
        return None

    def fits(layer: LinearShape, word: str) -> bool:
        return int(word) == layer.block if word.isdigit() else word in layer.name.lower()

    return [layer.name for layer in card.layers if all(fits(layer, word) for word in words)]


def heat_reading(card: ModelCard, values: Mapping[str, float], write: Any, unit: str) -> str:
    """One sentence on what a heatmap shows: which kinds are low and high, and how the depth matters.

    Args:
        write: figure to text.
        unit: of the figures, behind them.
    """
    finite = {layer: values[layer.name] for layer in card.layers if math.isfinite(values.get(layer.name, math.nan))}
    if not finite:
        return "No layer has this figure."
    labels = kind_labels(card.kinds)
    by_kind: dict[str, list[float]] = {}
    for layer, value in finite.items():
        by_kind.setdefault(labels[layer.kind], []).append(value)
    medians = {kind: float(np.median(found)) for kind, found in by_kind.items()}
    low, high = min(medians, key=lambda kind: medians[kind]), max(medians, key=lambda kind: medians[kind])
    words = f"Lowest in `{low}` (median {write(medians[low])}), highest in `{high}` ({write(medians[high])}) {unit}"
    third = max(1, card.n_blocks // 3)
    first = [value for layer, value in finite.items() if layer.block < third]
    last = [value for layer, value in finite.items() if layer.block >= card.n_blocks - third]
    if card.n_blocks >= 3 and first and last:
        early, late = float(np.median(first)), float(np.median(last))
        many = f"{third} blocks have" if third > 1 else "block has"
        last_words = f"last {third}" if third > 1 else "last"
        words = words.strip() + f"; the first {many} a median of {write(early)}, the {last_words} of {write(late)}"
    return words.strip() + "."


def spread_words(values: Sequence[float], write: Any, label: str) -> str:
    """One sentence on a heatmap of differences."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return f"No layer can be compared with {label}."
    above = sum(value > 0 for value in finite)
    return (
        f"{above} of {len(finite)} layers lie above the reference ({label}); the median difference is "
        f"{write(float(np.median(finite)))}, from {write(min(finite))} to {write(max(finite))}."
    )


def cut_at(layer: LinearShape, rank: int) -> int:
    """The compression in whole percent at which the uniform rule leaves this rank, within the slider's range."""
    return min(max(whole_percent(rank / break_even(layer)), 1), LARGEST_RATE)
