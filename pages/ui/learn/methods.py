"""Step 6: uniform, STRS, learned. The same budget spent three ways."""

from __future__ import annotations

import altair as alt
import numpy as np
import pandas as pd
import streamlit as st

from lrc_core.budget import layer_ratio
from lrc_core.plan import Plan
from lrc_core.runs.spec import ModelRef
from lrc_core.types import ModelCard
from pages.ui import compare_data as measured
from pages.ui import compare_figures as charts
from pages.ui import data, rank_charts, words
from pages.ui.frame import empty, page_link, sample_note
from pages.ui.methods import method_color, method_label

RATE, PAIR = "learn_rate", "learn_pair"
METHODS = ("uniform", "strs", "llrc")


def draw(ref: ModelRef) -> None:
    """Perplexity of the three at one budget, their plans, and where two of them differ."""
    group = usable(ref)
    if group is None:
        empty(
            "No comparison of the three yet",
            "Compare uniform, STRS and LLRC on the Compare page; the shipped one is missing as well.",
            ":material/balance:",
        )
        return
    rates = sorted({round(100 * (1 - keep)) for keep in measured.keeps_of(group, "whitened")})
    rate = st.segmented_control(
        "Budget: share removed from the block linears",
        rates,
        default=20 if 20 in rates else rates[0],
        format_func=lambda value: f"{value} %",
        required=True,
        key=RATE,
        bind="query-params",
    )
    keep = 1 - (rate or rates[0]) / 100
    rows = [row for row in group.at("whitened", keep) if row["method"] in ("dense", *METHODS)]
    perplexity(rows)
    plans = {str(row["method"]): plan for row in rows if (plan := measured.plan_of(row)) is not None}
    known = data.newest_card(group.views[0].spec.model)
    if known is not None and len(plans) > 1:
        difference(known[0], plans)
    sample_note(group.sample, *(view.id for view in group.views))
    page_link("pages/compare.py", "Everything that was measured, on Compare", ":material/balance:")


def usable(ref: ModelRef) -> measured.Group | None:
    """The user's own comparison of at least two of the three, else the shipped one."""
    for candidate in (ref, ModelRef()):
        for group in measured.groups(candidate):
            if len({row["method"] for row in group.at("whitened", None)} & set(METHODS)) > 1:
                return group
    return None


def perplexity(rows: list[measured.Row]) -> None:
    """Bars with their standard errors."""
    texts = list(rows[0]["perplexity"])
    frame = pd.DataFrame(
        [
            {
                "method": method_label(str(row["method"])),
                "text": text,
                "perplexity": score["value"],
                "error": score.get("stderr") or 0.0,
                "low": max(score["value"] / 10, score["value"] - (score.get("stderr") or 0)),
                "high": score["value"] + (score.get("stderr") or 0),
            }
            for row in charts.ordered(rows)
            for text, score in row["perplexity"].items()
        ]
    )
    colors = {method_label(str(row["method"])): method_color(str(row["method"])) for row in charts.ordered(rows)}
    for column, text in zip(st.columns(len(texts)), texts, strict=True):
        shown = frame[frame["text"] == text]
        with column:
            st.markdown(f"Text: **{text}**")
            st.altair_chart(
                perplexity_chart(shown, colors),
                key=f"learn_perplexity_{text}",
                alt=f"Perplexity on {text}: "
                + "; ".join(f"{row.method} {words.figure(row.perplexity, 3)}" for row in shown.itertuples()),
            )
    st.markdown(reading(rows))
    with st.expander("The numbers as a table", icon=":material/table:"):
        table = frame[["method", "text", "perplexity", "error"]]
        st.dataframe(
            table.round(2).rename(columns=str.capitalize),
            hide_index=True,
            alt="Perplexity with standard errors",
        )


def perplexity_chart(frame: pd.DataFrame, colors: dict[str, str]) -> alt.LayerChart:
    """Points with whiskers on a logarithmic scale."""
    x = alt.X(
        "perplexity:Q",
        title="Perplexity, lower is better (logarithmic)",
        scale=alt.Scale(type="log"),
        axis=alt.Axis(tickCount=5),
    )
    y = alt.Y("method:N", title=None, scale=alt.Scale(domain=list(colors)), axis=alt.Axis(labelLimit=160))
    color = alt.Color("method:N", scale=alt.Scale(domain=list(colors), range=list(colors.values())), legend=None)
    tips = ["method:N", alt.Tooltip("perplexity:Q", format=",.1f"), alt.Tooltip("error:Q", format=",.1f")]
    points = alt.Chart(frame).mark_point(filled=True, size=130, opacity=1).encode(x=x, y=y, color=color, tooltip=tips)
    low = alt.X("low:Q", scale=alt.Scale(type="log"), title="Perplexity, lower is better (logarithmic)")
    whiskers = alt.Chart(frame).mark_rule(strokeWidth=2.4).encode(x=low, x2="high:Q", y=y, color=color)
    return alt.layer(points, whiskers).properties(height=200)


def reading(rows: list[measured.Row]) -> str:
    """Which of the three is best, and whether that is beyond the error."""
    text = next(iter(rows[0]["perplexity"]))
    scores = {str(row["method"]): row["perplexity"][text] for row in rows if text in row["perplexity"]}
    dense = scores.pop("dense", None)
    ordered = sorted(scores, key=lambda name: scores[name]["value"])
    best, second = ordered[0], ordered[1] if len(ordered) > 1 else ordered[0]
    gap = scores[second]["value"] - scores[best]["value"]
    error = float(np.hypot(scores[best].get("stderr") or 0, scores[second].get("stderr") or 0))
    clear = "beyond their errors" if gap > 2 * error else "within about two standard errors"
    said = (
        f"On {text} **{method_label(best)}** is best at this budget "
        f"({words.with_error(scores[best]['value'], scores[best].get('stderr'), 1)}); {method_label(second)} follows "
        f"at {words.figure(scores[second]['value'], 3)}, {clear}."
    )
    if dense:
        said += f" The dense model has {words.figure(dense['value'], 3)}: nothing here is free."
    return said


def difference(card: ModelCard, plans: dict[str, Plan]) -> None:
    """Where two plans of the same size spend their parameters differently."""
    st.markdown("**Where the parameters go**")
    names = [name for name in ("llrc", "strs", "uniform") if name in plans]
    pairs = [f"{one} − {two}" for number, one in enumerate(names) for two in names[number + 1 :]]
    sides = {pair: tuple(pair.split(" − ")) for pair in pairs}
    chosen = st.segmented_control(
        "Difference",
        pairs,
        default=pairs[0],
        format_func=lambda pair: " − ".join(method_label(name) for name in sides[pair]),
        required=True,
        key=PAIR,
        bind="query-params",
    )
    first, second = sides[chosen or pairs[0]]
    st.altair_chart(
        rank_charts.difference_chart(card, plans[first], plans[second]),
        key="learn_difference",
        alt=f"Share of each layer kept by {method_label(first)} minus that kept by {method_label(second)}",
    )
    st.markdown(spending(card, plans[first], plans[second]))
    with st.expander("The numbers as a table", icon=":material/table:"):
        one, two = rank_charts.rank_frame(card, plans[first]), rank_charts.rank_frame(card, plans[second])
        st.dataframe(
            pd.DataFrame(
                {
                    "Block": one["block"],
                    "Layer": one["kind"],
                    f"Rank, {method_label(first)}": one["rank"],
                    f"Rank, {method_label(second)}": two["rank"],
                    "Kept, difference in %": (100 * (one["kept"] - two["kept"])).round(1),
                }
            ),
            hide_index=True,
            alt="Ranks of both plans",
        )


def spending(card: ModelCard, one: Plan, two: Plan) -> str:
    """Kinds of layer that one plan favours, and how many layers each leaves dense."""
    ranks, others = one.full_ranks(card.layers), two.full_ranks(card.layers)
    by_kind: dict[str, list[float]] = {}
    for layer in card.layers:
        gap = layer_ratio(layer, ranks[layer.name]) - layer_ratio(layer, others[layer.name])
        by_kind.setdefault(words.short_kind(layer.kind), []).append(gap)
    means = {kind: float(np.mean(gaps)) for kind, gaps in by_kind.items()}
    more, less = max(means, key=lambda kind: means[kind]), min(means, key=lambda kind: means[kind])
    return (
        f"{method_label(one.method)} gives most to `{more}` ({100 * means[more]:+.0f} points of its parameters) "
        f"and takes most from `{less}` ({100 * means[less]:+.0f} points). It leaves {len(one.dense)} of "
        f"{len(card.layers)} layers dense, {method_label(two.method)} {len(two.dense)}."
    )
