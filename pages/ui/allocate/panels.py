"""What the slider of the Allocate page shows: its heatmaps, and under them where each plan comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd
import streamlit as st

from lrc_core.budget import layer_ratio, smallest_dense_rank, storage_law
from lrc_core.decompose import TWO_SIDED
from lrc_core.errors import LrcError
from lrc_core.names import decomposition_label, method_label
from lrc_core.registry import DECOMPOSITIONS
from lrc_core.results import series as rate_plans
from lrc_core.results.archive import RunView
from lrc_core.results.plan_quality import Quality, closed_form_quality, measured_at, quality_of
from lrc_core.results.series import PlanSeries
from lrc_core.runs.spec import AllocateSpec, ModelRef, SpectraSpec
from lrc_core.types import ModelCard
from pages.ui.allocate import estimate
from pages.ui.allocate.slider import SliderPanel
from pages.ui.shared.frame import sample_note
from pages.ui.shared.naming import download, file_name

TABLE = "al_table"


@dataclass(frozen=True)
class SliderContent:
    """Everything that the slider can show of a model.

    Attributes:
        card: of the model.
        run: whose recorded plans are shown, None where nothing was learned yet.
        learned: its plans, None where there are none that can be read.
        quality: what is known of them.
        problem: why there are none.
        uniform: the uniform rule.
        spectra: what the closed form is made from, None where there is nothing.
        estimated: the closed form.
        even_quality: what was measured of the uniform rule, by rate.
        estimate_quality: what is known of plans of the closed form.
    """

    card: ModelCard
    run: RunView[AllocateSpec] | None
    learned: PlanSeries | None
    quality: Quality
    problem: str
    uniform: PlanSeries
    spectra: RunView[SpectraSpec] | None
    estimated: PlanSeries | None
    even_quality: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    estimate_quality: Quality = field(default_factory=lambda: Quality({}, ""))

    def by_title(self) -> dict[str, PlanSeries]:
        """Series by the name of whose plans they are."""
        found = {method_label(self.run.spec.method): self.learned} if self.run and self.learned else {}
        found["Uniform"] = self.uniform
        return {**found, "Lagrangian, estimated": self.estimated} if self.estimated else found


def shown(ref: ModelRef, card: ModelCard, run: RunView[AllocateSpec] | None, decomposition: str) -> SliderContent:
    """Gather it, the card's layers being under the chosen storage law; everything is kept until the files change."""
    learned, quality, problem = None, Quality({}, ""), ""
    storage = card.layers[0].storage
    if run is None:
        problem = (
            f"No run of this model has learned ranks on {DECOMPOSITIONS.get(decomposition).label} yet, stored as "
            f"{storage_law(storage).label.lower()}. A run records a "
            "plan at every whole percent on its way, and this panel then answers at once."
        )
    else:
        try:
            learned, quality = rate_plans.learned(run, card), quality_of(run)
        except LrcError as error:
            problem = str(error)
    spectra = rate_plans.two_sided(ref, card)
    with st.spinner("Working out the closed-form plan of every rate …"):
        estimated = rate_plans.estimated(spectra, storage) if spectra else None
    even = measured_at(ref, "uniform", decomposition, storage)
    closed = closed_form_quality(spectra, storage) if spectra and estimated else Quality({}, "")
    even_ranks = rate_plans.uniform(card.layers)
    return SliderContent(card, run, learned, quality, problem, even_ranks, spectra, estimated, even, closed)


def panels(found: SliderContent) -> list[SliderPanel]:
    """The heatmaps under the slider; what is recorded, computed and estimated never look alike."""
    if found.run is None or found.learned is None:
        first = SliderPanel("learned", "Learned", "nothing recorded yet", found.problem)
    else:
        training = "" if found.run.final else "Its run is still training. "
        first = SliderPanel(
            "learned",
            method_label(found.run.spec.method),
            "learned, recorded",
            training + found.quality.basis,
            "recorded at",
            found.learned,
            found.quality.said,
        )
    even = SliderPanel(
        "uniform",
        "Uniform",
        "computed" if found.even_quality else "preview, quality not measured",
        "Every layer keeps nearly the same share.",
        "computed at",
        found.uniform if found.uniform.rates else None,
        found.even_quality,
    )
    if found.estimated is None:
        return [first, even]
    on = decomposition_label(TWO_SIDED)
    note = f"The plan of least predicted loss on {on} factors, worked out from their spectra. "
    note = f"{note}{found.estimate_quality.basis}".strip()
    known = found.estimate_quality.said
    badge = "estimate from spectra" if known else "estimate from spectra, nothing measured"
    closed = SliderPanel("estimate", "Lagrangian", badge, note, "estimated at", found.estimated, known)
    return [closed, even, first] if first.series is None else [first, even, closed]


def below(ref: ModelRef, found: SliderContent, rate: int) -> None:
    """Where the plans at a rate come from, to take along, and as a table."""
    if found.run is not None and found.learned is not None:
        at = found.learned.rates[found.learned.nearest(rate)]
        plan = rate_plans.recorded_at(found.run)[at]
        with st.container(horizontal=True, vertical_alignment="center"):
            sample_note(found.run.sample, found.run.id)
            download(
                f"Plan at {at} %",
                plan.path.read_bytes(),
                file_name(found.card.name, found.run.spec.method, f"{at} % removed", "plan", ending="json"),
                key="al_plan",
            )
    if found.spectra is None or found.estimated is None:
        estimate.missing(ref)
    else:
        ranks, known = found.estimated.plan_near(rate, found.card.layers), found.estimate_quality.said.get(rate)
        estimate.beneath(ref, found.card, found.spectra, ranks, rate, known)
    table = st.expander("The ranks as a table", icon=":material/table_chart:", key=TABLE, bind="query-params")
    if table.open:
        table.dataframe(rank_table(found, rate), hide_index=True, alt=f"Rank of every layer at {rate} %", height=380)


def rank_table(found: SliderContent, rate: int) -> pd.DataFrame:
    """Rank and share kept of every layer in each plan nearest to a rate."""
    layers = found.card.layers
    columns: dict[str, list[object]] = {
        "layer": [layer.name for layer in layers],
        "full rank": [layer.full_rank for layer in layers],
        "dense from rank": [smallest_dense_rank(layer) for layer in layers],
    }
    for title, series in found.by_title().items():
        if not series.rates:
            continue
        ranks, at = series.plan_near(rate, layers), series.rates[series.nearest(rate)]
        columns[f"{title} at {at} %"] = [ranks[layer.name] for layer in layers]
        columns[f"{title}, kept"] = [round(layer_ratio(layer, ranks[layer.name]), 4) for layer in layers]
    return pd.DataFrame(columns)
