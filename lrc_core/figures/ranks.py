"""The ranks of plans: as a table, and as heatmaps of blocks and kinds of layer."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from lrc_core.charts.theme import RAMP_LIGHT
from lrc_core.formats.sizes import LayerState
from lrc_core.plan import Plan
from lrc_core.types import ModelCard
from lrc_core.words import kind_labels


def rank_frame(card: ModelCard, plan: Plan) -> pd.DataFrame:
    """One row per layer: where it is, its rank and the share of its parameters that is kept.

    A pruned layer has no rank of its own: that of what is left of it is at most its smaller side.
    """
    labels, states = kind_labels(card.kinds), plan.states(card.layers)
    return pd.DataFrame(
        {
            "block": [state.layer.block for state in states],
            "kind": [labels[state.layer.kind] for state in states],
            "rank": [min(state.shape or (state.rank,)) for state in states],
            "full": [state.layer.full_rank for state in states],
            "kept": [state.kept for state in states],
            "state": [_words(state) for state in states],
        }
    )


def _words(state: LayerState) -> str:
    if state.shape:
        return f"pruned to {state.shape[0]:,} × {state.shape[1]:,}"
    return "dense" if state.dense else "low rank"


def rank_figure(card: ModelCard, plan: Plan, title: str = "") -> go.Figure:
    """Share of its parameters that every layer keeps: blocks from left to right, kinds of layer from top to bottom.

    Args:
        title: above the heatmap.
    """
    frame = rank_frame(card, plan)
    kept, rank, state = (
        frame.pivot_table(value, "kind", "block", aggfunc="first", sort=False) for value in ("kept", "rank", "state")
    )
    labels = list(kept.index)
    figure = go.Figure(
        go.Heatmap(
            z=kept.to_numpy(dtype=float).tolist(),
            x=list(kept.columns),
            y=labels,
            customdata=[list(zip(*rows, strict=True)) for rows in zip(rank.to_numpy(), state.to_numpy(), strict=True)],
            zmin=0.0,
            zmax=1.0,
            colorscale=list(RAMP_LIGHT),
            colorbar={"title": "kept", "tickformat": ".0%"},
            xgap=1,
            ygap=1,
            hovertemplate="%{y}, block %{x}: %{customdata[1]}, rank %{customdata[0]}, keeps %{z:.1%}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title="Block")
    figure.update_layout(title=title, height=120 + 34 * len(labels), margin={"l": 8, "r": 8, "t": 48, "b": 8})
    return figure
