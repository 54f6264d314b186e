"""Step 3: when two factors pay, what pivots spare, and why a layer must be allowed to stay dense."""

from __future__ import annotations

from dataclasses import dataclass

import altair as alt
import numpy as np
import pandas as pd
import streamlit as st

from lrc_core import words
from lrc_core.budget import break_even, factor_params, kept_share, storage_law, stored, whole_rank_of_share
from lrc_core.decompose.measures import energy_kept
from lrc_core.results.spectra import Spectra
from lrc_core.runs.spec import STORAGES, ModelRef
from lrc_core.types import LinearShape
from pages.ui.learn.damage import damage_sentence
from pages.ui.learn.methods import usable
from pages.ui.shared import charting, forms
from pages.ui.shared.frame import empty, sample_note
from pages.ui.shared.summary import shown_spectra

SHAPE, REMOVED = "learn_shape", "learn_removed"
TEAL, ORANGE, GREY, PURPLE = "#1b8a86", "#d9762b", "#8a9593", "#7b5ea7"


@dataclass(frozen=True)
class Saving:
    """One way to remove the same parameters from two equal layers.

    Attributes:
        name: what is done.
        kept: share of the parameters left in each.
    """

    name: str
    kept: tuple[float, float]


def draw(ref: ModelRef) -> None:
    """Parameters against rank under both laws, and the choice between two layers a little and one layer a lot."""
    shown = shown_spectra(ref)
    if shown is None:
        empty("No spectra yet", "Fetch a model on Home and read its spectra.", ":material/show_chart:")
        return
    spectra, decomposition = shown.spectra, shown.decomposition
    layer = choose(spectra)
    removed = slider()
    sigma = spectra.values[decomposition][layer.name]
    what = "the layer's output" if decomposition == "whitened" else "the weight"
    caption = charting.ChartText(
        f"Parameters against rank for a layer of {layer.out_features} by {layer.in_features}: of two factors, a "
        f"straight line that crosses the dense layer's cost at rank {break_even(layer):.0f}; of pivots, a curve below "
        f"it that reaches the dense layer's cost at rank {layer.full_rank}",
        savings_table(layer, sigma),
        saving_sentence(layer, sigma, removed, what),
    )
    charting.vega(chart(layer, removed), caption, key="learn_pays")
    st.markdown(pivots_sentence(layer, sigma, removed, what))
    st.markdown(damage_sentence(spectra, decomposition, removed, usable(ref)))
    st.markdown("**The same saving by two factors, three ways**")
    two_ways(spectra, layer, decomposition, removed)
    sample_note(shown.view.sample, shown.view.id)


def choose(spectra: Spectra) -> LinearShape:
    """A layer of the middle block by its shape."""
    middle = [layer for layer in spectra.card.layers if layer.block == spectra.card.n_blocks // 2]
    by_name = {layer.kind: layer for layer in middle or spectra.card.layers}
    labels = {kind: f"{kind}: {layer.out_features} × {layer.in_features}" for kind, layer in by_name.items()}
    kind = forms.one_of(st, "Layer", labels, SHAPE, bind="query-params")
    return by_name.get(kind) or next(iter(by_name.values()))


def slider() -> float:
    """Share of the layer's parameters to remove."""
    percent = st.slider(
        "Remove this share of the layer's parameters", 1, 90, 10, format="%d %%", key=REMOVED, bind="query-params"
    )
    return min(max(int(percent), 1), 90) / 100


def chart(layer: LinearShape, removed: float) -> alt.LayerChart | alt.FacetChart:
    """Both laws against k, the dense layer's cost, break-even, where the slider stands, and what the pointer is at."""
    even, full, dense = break_even(layer), layer.full_rank, layer.params / 1e6
    lines, here = _on_the_curves(layer, removed)
    level = pd.DataFrame({"rank": [0, full], "millions": [dense] * 2})
    marks = pd.DataFrame(
        {
            "rank": [even, full],
            "millions": [dense] * 2,
            "words": [f"break-even: rank {even:.0f}", f"dense: {words.count(layer.params)}"],
        }
    )
    loss = pd.DataFrame(
        {"rank": [even, full], "low": [dense] * 2, "high": [factor_params(layer, k) / 1e6 for k in (even, full)]}
    )
    x = alt.X("rank:Q", title="Rank k", axis=alt.Axis(tickCount=8), scale=alt.Scale(domain=[0, full], nice=False))
    y = alt.Y("millions:Q", title="Parameters in millions")
    color = alt.Color(
        "law:N",
        legend=alt.Legend(title=None, orient="top"),
        scale=alt.Scale(domain=list(laws_of(layer)), range=[ORANGE, PURPLE]),
    )
    at = alt.selection_point(
        fields=["rank"], nearest=True, on="pointerover", clear="pointerout", empty=False, name="at_rank"
    )
    said = [alt.Tooltip("rank:Q"), alt.Tooltip("law:N"), alt.Tooltip("millions:Q", format=".3f")]
    traced = alt.Chart(lines).encode(x=x, y=y, color=color)
    return alt.layer(
        alt.Chart(loss).mark_area(color=ORANGE, opacity=0.18).encode(x=x, y=alt.Y("low:Q"), y2="high:Q"),
        traced.mark_line(strokeWidth=2.5),
        alt.Chart(level).mark_line(color=TEAL, strokeWidth=2.5, strokeDash=[6, 4]).encode(x=x, y=y),
        alt.Chart(marks[:1]).mark_rule(color=GREY, strokeDash=[3, 3]).encode(x=x),
        alt.Chart(marks[:1])
        .mark_text(align="left", dx=8, dy=26, fontSize=13, color=GREY)
        .encode(x=x, y=y, text="words"),
        alt.Chart(marks[1:]).mark_text(align="right", dy=-10, fontSize=13, color=TEAL).encode(x=x, y=y, text="words"),
        traced.mark_point(opacity=0, size=80, aria=False).encode(tooltip=said).add_params(at),
        traced.mark_rule(color=GREY, aria=False).encode(y=alt.Y(), color=alt.value(GREY)).transform_filter(at),
        traced.mark_point(filled=True, size=60, aria=False).transform_filter(at),
        traced.mark_text(align="left", dx=8, dy=-8, fontSize=13, aria=False)
        .encode(text=alt.Text("millions:Q", format=".2f"))
        .transform_filter(at),
        alt.Chart(here)
        .mark_point(filled=True, size=150, opacity=1, aria=False)
        .encode(x=x, y=y, color=color, tooltip=said),
    ).properties(height=320)


def _on_the_curves(layer: LinearShape, removed: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What a rank costs under every law: at all ranks of a curve, and at the one that the slider asks for."""
    curve = [*range(0, layer.full_rank + 1, max(1, layer.full_rank // 96)), layer.full_rank]
    lines, here = (
        [
            {"rank": rank, "millions": factor_params(law, rank) / 1e6, "law": label}
            for label, law in laws_of(layer).items()
            for rank in ranks or (whole_rank_of_share(law, kept_share(removed)),)
        ]
        for ranks in (curve, None)
    )
    return pd.DataFrame(lines), pd.DataFrame(here)


def laws_of(layer: LinearShape) -> dict[str, LinearShape]:
    """The layer under every storage law, by the law's name on the chart."""
    return {storage_law(name).label: stored([layer], name)[0] for name in STORAGES}


def saving_sentence(layer: LinearShape, sigma: np.ndarray, removed: float, what: str) -> str:
    """What the slider's saving takes away from ``what``."""
    even = break_even(layer)
    rank = whole_rank_of_share(layer, kept_share(removed))
    gone, lost = 1 - rank / layer.full_rank, 1 - energy_kept(sigma, rank)
    return (
        f"To remove **{words.percent(removed, 0)}** of the parameters the rank of two factors must fall to **{rank}** "
        f"of {layer.full_rank}: **{words.percent(gone, 0)}** of the directions go, and with them "
        f"**{words.percent(lost, 1)}** of the energy of {what}. The first "
        f"{words.percent(1 - even / layer.full_rank, 0)} of the directions that you give up save nothing at all: in "
        "the orange wedge the factors are larger than the layer."
    )


def pivots_sentence(layer: LinearShape, sigma: np.ndarray, removed: float, what: str) -> str:
    """What the same saving leaves when the layer is stored by pivots."""
    pivots = laws_of(layer)[storage_law("pivoted").label]
    rank, other = (whole_rank_of_share(law, kept_share(removed)) for law in (layer, pivots))
    if other >= layer.full_rank:
        return "Stored by **pivots**, as rows and combinations of them, the layer keeps its full rank."
    spared = factor_params(layer, other) - factor_params(pivots, other)
    lost, less = 1 - energy_kept(sigma, rank), 1 - energy_kept(sigma, other)
    return (
        f"Stored by **pivots** the same saving leaves rank **{other}**, and **{words.percent(less, 2)}** of the energy "
        f"of {what} goes instead of {words.percent(lost, 2)}. Of a pair's factors at that rank {other} × {other} = "
        f"{words.count(spared)} numbers say nothing: one factor can be chosen so that {other} of its rows are those "
        "of the identity, and an identity need not be stored."
    )


def two_ways(spectra: Spectra, layer: LinearShape, decomposition: str, removed: float) -> None:
    """Two neighbours of one kind: both a little, or one dense and one twice as much."""
    pair = _pair(spectra, layer)
    if pair is None or removed > 0.45:
        st.caption("Set the slider to 45 % or less to see what a dense layer is worth.")
        return
    first, second = pair
    gain = {name.name: losses(spectra, pair, decomposition, name) for name in ways(removed)}
    frame = pd.DataFrame(
        [
            {"way": name, "layer": f"block {layer.block}", "lost": loss}
            for name, pair_losses in gain.items()
            for layer, loss in zip(pair, pair_losses, strict=True)
        ]
    )
    totals = {name: sum(both) for name, both in gain.items()}
    best = min(totals, key=lambda name: totals[name])
    worst = max(totals, key=lambda name: totals[name])
    caption = charting.ChartText(
        "; ".join(f"{name}: {words.percent(total, 1)} lost" for name, total in totals.items()),
        pd.DataFrame(
            {"Way": list(gain)}
            | {
                f"Lost in block {layer.block}": [words.percent(both[number], 2) for both in gain.values()]
                for number, layer in enumerate(pair)
            }
        ),
        f"Blocks {first.block} and {second.block}, `{first.kind}`, remove the same parameters each time: "
        f"“{best}” loses {words.percent(totals[best], 1)}, “{worst}” {words.percent(totals[worst], 1)}.",
    )
    charting.vega(_bars(frame), caption, key="learn_two_ways")


def _bars(frame: pd.DataFrame) -> alt.Chart:
    """What every way loses, the two layers' shares behind each other; names break into two lines."""
    broken = "split(datum.label, ', ')"
    chart: alt.Chart = (
        alt.Chart(frame)
        .mark_bar()
        .encode(
            x=alt.X(
                "sum(lost):Q",
                title="Output energy lost, both layers added (100 % = all of one layer's)",
                axis=alt.Axis(format=".1%", tickCount=6),
            ),
            y=alt.Y("way:N", title=None, sort=None, axis=alt.Axis(labelLimit=260, labelExpr=broken)),
            color=alt.Color("layer:N", legend=alt.Legend(title=None, orient="top")),
            tooltip=["way:N", "layer:N", alt.Tooltip("lost:Q", format=".2%")],
        )
        .properties(height=290)
    )
    return chart


def ways(removed: float) -> tuple[Saving, ...]:
    """Three ways to remove the same from two layers."""
    rest = kept_share(2 * removed)
    return (
        Saving("both a little", (kept_share(removed), kept_share(removed))),
        Saving("first dense, second twice as much", (1.0, rest)),
        Saving("second dense, first twice as much", (rest, 1.0)),
    )


def losses(
    spectra: Spectra, pair: tuple[LinearShape, LinearShape], decomposition: str, choice: Saving
) -> tuple[float, float]:
    """Share of the output energy that each layer of a pair loses; a dense one loses nothing."""
    lost = []
    for layer, kept in zip(pair, choice.kept, strict=True):
        rank = whole_rank_of_share(layer, kept)
        lost.append(0.0 if kept >= 1 else 1 - energy_kept(spectra.values[decomposition][layer.name], rank))
    return lost[0], lost[1]


def _pair(spectra: Spectra, layer: LinearShape) -> tuple[LinearShape, LinearShape] | None:
    """The layer and the one of its kind in the next block."""
    for other in spectra.card.layers:
        if other.kind == layer.kind and other.block == layer.block + 1:
            return layer, other
    return None


def savings_table(layer: LinearShape, sigma: np.ndarray) -> pd.DataFrame:
    """Savings and losses in numbers."""
    shares = [0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7]
    ranks = [whole_rank_of_share(layer, kept_share(share)) for share in shares]
    pivots = laws_of(layer)[storage_law("pivoted").label]
    pivot_ranks = [whole_rank_of_share(pivots, kept_share(share)) for share in shares]
    return pd.DataFrame(
        {
            "Removed": [words.percent(share, 0) for share in shares],
            "Rank": ranks,
            "Parameters": [factor_params(layer, rank) for rank in ranks],
            "Directions given up": [words.percent(1 - rank / layer.full_rank, 0) for rank in ranks],
            "Energy lost": [words.percent(1 - energy_kept(sigma, rank), 1) for rank in ranks],
            "Rank as pivots": pivot_ranks,
            "Energy lost as pivots": [words.percent(1 - energy_kept(sigma, rank), 1) for rank in pivot_ranks],
        }
    )
