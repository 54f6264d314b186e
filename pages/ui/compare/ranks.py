"""Altair charts of the ranks of a plan, and of the difference of two plans, with their tables."""

from __future__ import annotations

import altair as alt
import pandas as pd

from lrc_core.budget import Ranks, is_dense, layer_ratio
from lrc_core.plan import Plan
from lrc_core.types import LinearShape, ModelCard
from lrc_core.words import kind_labels
from pages.ui.shared import charting
from pages.ui.shared.figures import kinds_of


def rank_frame(card: ModelCard, found: Ranks | Plan) -> pd.DataFrame:
    """One row per layer: where it is, its rank and the share of its parameters that is kept.

    A pruned layer has no rank of its own: that of what is left of it is at most its smaller side.
    """
    labels = kind_labels(kinds_of(card))
    ranks, shapes = (found.full_ranks(card.layers), found.pruned or {}) if isinstance(found, Plan) else (found, {})

    def state(layer: LinearShape) -> str:
        if shape := shapes.get(layer.name):
            return f"pruned to {shape[0]:,} × {shape[1]:,}"
        return "dense" if is_dense(layer, ranks[layer.name]) else "low rank"

    return pd.DataFrame(
        {
            "block": [layer.block for layer in card.layers],
            "kind": [labels[layer.kind] for layer in card.layers],
            "rank": [min(shapes.get(layer.name, (ranks[layer.name],))) for layer in card.layers],
            "full": [layer.full_rank for layer in card.layers],
            "kept": [layer_ratio(layer, ranks[layer.name], shapes.get(layer.name)) for layer in card.layers],
            "state": [state(layer) for layer in card.layers],
        }
    )


def rank_table(card: ModelCard, found: Ranks | Plan) -> pd.DataFrame:
    """A plan in numbers, one row per layer."""
    frame = rank_frame(card, found)
    return pd.DataFrame(
        {
            "Block": frame["block"],
            "Layer": frame["kind"],
            "Rank": frame["rank"],
            "Of": frame["full"],
            "Parameters kept, %": (100 * frame["kept"]).round(1),
            "Stored": frame["state"],
        }
    )


def difference_table(
    card: ModelCard, one: Ranks | Plan, two: Ranks | Plan, names: tuple[str, str]
) -> pd.DataFrame:  # fmt: skip
    """Two plans in numbers, one row per layer."""
    first, second = rank_frame(card, one), rank_frame(card, two)
    return pd.DataFrame(
        {
            "Block": first["block"],
            "Layer": first["kind"],
            f"Rank, {names[0]}": first["rank"],
            f"Rank, {names[1]}": second["rank"],
            "Kept, difference in points": (100 * (first["kept"] - second["kept"])).round(1),
        }
    )


def draw(card: ModelCard, found: Ranks | Plan, what: str, *, key: str) -> None:
    """The heatmap of a plan on the page; ``what`` says what it shows."""
    charting.vega(rank_chart(card, found), charting.Told(what, lambda: rank_table(card, found)), key=key)


def _axes(card: ModelCard) -> tuple[alt.X, alt.Y]:
    labels = kind_labels(kinds_of(card))
    step = 1 if card.n_blocks <= 12 else 5 if card.n_blocks <= 60 else 10
    return (
        alt.X(
            "kind:N",
            sort=list(labels.values()),
            title=None,
            axis=alt.Axis(orient="top", labelAngle=-35, labelOverlap=False, ticks=False, domain=False),
        ),
        alt.Y(
            "block:O",
            title="Block",
            sort=list(range(card.n_blocks)),
            axis=alt.Axis(values=list(range(0, card.n_blocks, step)), ticks=False, domain=False),
        ),
    )


def chart_height(card: ModelCard) -> int:
    """Pixels: every block a visible row, never endless."""
    return int(min(640, max(200, 80 + 13 * card.n_blocks)))


def rank_chart(card: ModelCard, found: Ranks | Plan) -> alt.Chart:
    """Heatmap of the share of each layer that is kept; dense layers carry the full share."""
    x, y = _axes(card)
    chart: alt.Chart = (
        alt.Chart(rank_frame(card, found))
        .mark_rect(stroke="transparent", strokeWidth=1.5)
        .encode(
            x=x,
            y=y,
            color=alt.Color(
                "kept:Q",
                scale=alt.Scale(domain=[0, 1]),
                legend=alt.Legend(title="kept", format=".0%", gradientLength=140, orient="right"),
            ),
            tooltip=[
                alt.Tooltip("block:O", title="Block"),
                alt.Tooltip("kind:N", title="Layer"),
                alt.Tooltip("rank:Q", title="Rank", format=",d"),
                alt.Tooltip("full:Q", title="Full rank", format=",d"),
                alt.Tooltip("kept:Q", title="Parameters kept", format=".1%"),
                alt.Tooltip("state:N", title="Stored"),
            ],
        )
        .properties(height=chart_height(card))
    )
    return chart


def difference_chart(card: ModelCard, found: Ranks | Plan, other: Ranks | Plan) -> alt.Chart:
    """Heatmap of the share kept under one plan minus the share kept under the other."""
    frame = rank_frame(card, found).merge(rank_frame(card, other), on=["block", "kind"], suffixes=("", "_other"))
    frame["difference"] = frame["kept"] - frame["kept_other"]
    frame["points"] = 100 * frame["difference"]
    limit = max(0.05, float(frame["difference"].abs().max()))
    x, y = _axes(card)
    chart: alt.Chart = (
        alt.Chart(frame)
        .mark_rect(stroke="transparent", strokeWidth=1.5)
        .encode(
            x=x,
            y=y,
            color=alt.Color(
                "difference:Q",
                scale=alt.Scale(domain=[-limit, 0, limit], range="diverging"),
                legend=alt.Legend(
                    title="difference",
                    labelExpr="format(100 * datum.value, '+.0f') + ' points'",
                    gradientLength=140,
                    values=[-limit, 0, limit],
                ),
            ),
            tooltip=[
                alt.Tooltip("block:O", title="Block"),
                alt.Tooltip("kind:N", title="Layer"),
                alt.Tooltip("rank:Q", title="Rank, first", format=",d"),
                alt.Tooltip("rank_other:Q", title="Rank, second", format=",d"),
                alt.Tooltip("points:Q", title="Kept, first − second, in points", format="+.1f"),
            ],
        )
        .properties(height=chart_height(card))
    )
    return chart
