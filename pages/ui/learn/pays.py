"""Step 3: when two factors pay, and why a layer must be allowed to stay dense."""

from __future__ import annotations

from dataclasses import dataclass

import altair as alt
import numpy as np
import pandas as pd
import streamlit as st

from lrc_core import words
from lrc_core.budget import break_even, factor_params, kept_share
from lrc_core.decompose.measures import energy_kept
from lrc_core.results.spectra import Spectra
from lrc_core.runs.spec import ModelRef
from lrc_core.types import LinearShape
from pages.ui.learn.damage import damage_sentence
from pages.ui.learn.methods import usable
from pages.ui.shared import charting
from pages.ui.shared.frame import empty, sample_note
from pages.ui.shared.summary import shown_spectra

SHAPE, REMOVED = "learn_shape", "learn_removed"
TEAL, ORANGE, GREY = "#1b8a86", "#d9762b", "#8a9593"


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
    """Parameters against rank, and the choice between two layers a little and one layer a lot."""
    shown = shown_spectra(ref)
    if shown is None:
        empty("No spectra yet", "Fetch a model on Home and read its spectra.", ":material/show_chart:")
        return
    spectra, decomposition = shown.spectra, shown.decomposition
    layer = choose(spectra)
    removed = slider()
    sigma = spectra.values[decomposition][layer.name]
    rank = max(1, int(kept_share(removed) * break_even(layer)))
    what = "the layer's output" if decomposition == "whitened" else "the weight"
    caption = charting.ChartText(
        f"Parameters of two factors against their rank for a layer of {layer.out_features} by "
        f"{layer.in_features}: a straight line that crosses the dense layer's cost at rank {break_even(layer):.0f}",
        savings_table(layer, sigma),
        saving_sentence(layer, sigma, removed, what),
    )
    charting.vega(chart(layer, rank), caption, key="learn_pays")
    st.markdown(damage_sentence(spectra, decomposition, removed, usable(ref)))
    st.markdown("**The same saving, three ways**")
    two_ways(spectra, layer, decomposition, removed)
    sample_note(shown.view.sample, shown.view.id)


def choose(spectra: Spectra) -> LinearShape:
    """A layer of the middle block by its shape."""
    middle = [layer for layer in spectra.card.layers if layer.block == spectra.card.n_blocks // 2]
    by_name = {layer.kind: layer for layer in middle or spectra.card.layers}
    kind = st.selectbox(
        "Layer",
        list(by_name),
        format_func=lambda kind: f"{kind}: {by_name[kind].out_features} × {by_name[kind].in_features}",
        key=SHAPE,
        bind="query-params",
    )
    return by_name.get(kind) or next(iter(by_name.values()))


def slider() -> float:
    """Share of the layer's parameters to remove."""
    percent = st.slider(
        "Remove this share of the layer's parameters", 1, 90, 10, format="%d %%", key=REMOVED, bind="query-params"
    )
    return min(max(int(percent), 1), 90) / 100


def chart(layer: LinearShape, rank: int) -> alt.LayerChart | alt.FacetChart:
    """k(m+n) against k, the dense layer's cost, break-even, and where the slider stands."""
    even = break_even(layer)
    line = pd.DataFrame({"rank": [0, layer.full_rank], "millions": [0.0, _millions(layer, layer.full_rank)]})
    dense = pd.DataFrame({"rank": [0, layer.full_rank], "millions": [layer.params / 1e6] * 2})
    here = pd.DataFrame({"rank": [rank], "millions": [_millions(layer, rank)]})
    marks = pd.DataFrame(
        {
            "rank": [even, layer.full_rank],
            "millions": [layer.params / 1e6, layer.params / 1e6],
            "words": [f"break-even: rank {even:.0f}", f"dense: {words.count(layer.params)}"],
        }
    )
    loss = pd.DataFrame({"rank": [even, layer.full_rank], "low": [layer.params / 1e6] * 2})
    loss["high"] = [_millions(layer, even), _millions(layer, layer.full_rank)]
    x = alt.X(
        "rank:Q", title="Rank k", axis=alt.Axis(tickCount=8), scale=alt.Scale(domain=[0, layer.full_rank], nice=False)
    )
    y = alt.Y("millions:Q", title="Parameters in millions")
    return alt.layer(
        alt.Chart(loss).mark_area(color=ORANGE, opacity=0.18).encode(x=x, y=alt.Y("low:Q"), y2="high:Q"),
        alt.Chart(line).mark_line(color=ORANGE, strokeWidth=2.5).encode(x=x, y=y),
        alt.Chart(dense).mark_line(color=TEAL, strokeWidth=2.5, strokeDash=[6, 4]).encode(x=x, y=y),
        alt.Chart(marks[:1]).mark_rule(color=GREY, strokeDash=[3, 3]).encode(x=x),
        alt.Chart(marks[:1])
        .mark_text(align="left", dx=8, dy=26, fontSize=13, color=GREY)
        .encode(x=x, y=y, text="words"),
        alt.Chart(marks[1:]).mark_text(align="right", dy=14, fontSize=13, color=TEAL).encode(x=x, y=y, text="words"),
        alt.Chart(here)
        .mark_point(color=ORANGE, filled=True, size=150, opacity=1)
        .encode(x=x, y=y, tooltip=[alt.Tooltip("rank:Q"), alt.Tooltip("millions:Q", format=".3f")]),
    ).properties(height=300)


def _millions(layer: LinearShape, rank: float) -> float:
    return factor_params(layer, 1) * rank / 1e6


def saving_sentence(layer: LinearShape, sigma: np.ndarray, removed: float, what: str) -> str:
    """What the slider's saving takes away from ``what``."""
    even = break_even(layer)
    rank = max(1, int(kept_share(removed) * even))
    gone, lost = 1 - rank / layer.full_rank, 1 - energy_kept(sigma, rank)
    return (
        f"To remove **{words.percent(removed, 0)}** of the parameters the rank must fall to **{rank}** of "
        f"{layer.full_rank}: **{words.percent(gone, 0)}** of the directions go, and with them "
        f"**{words.percent(lost, 1)}** of the energy of {what}. The first "
        f"{words.percent(1 - even / layer.full_rank, 0)} of the directions that you give up save nothing at all: in "
        "the orange wedge the factors are larger than the layer."
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
        rank = max(1, int(kept * break_even(layer)))
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
    ranks = [max(1, int(kept_share(share) * break_even(layer))) for share in shares]
    return pd.DataFrame(
        {
            "Removed": [words.percent(share, 0) for share in shares],
            "Rank": ranks,
            "Parameters": [factor_params(layer, rank) for rank in ranks],
            "Directions given up": [words.percent(1 - rank / layer.full_rank, 0) for rank in ranks],
            "Output energy lost": [words.percent(1 - energy_kept(sigma, rank), 1) for rank in ranks],
        }
    )
