"""Step 4: the weight's error is not the output's error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from lrc_core import words
from lrc_core.budget import break_even
from lrc_core.names import decomposition_color, decomposition_label
from lrc_core.runs.spec import LessonSpec, ModelRef
from lrc_core.types import LinearShape
from pages.ui.learn import lessons
from pages.ui.learn.weight import choose
from pages.ui.shared import charting
from pages.ui.shared.frame import sample_note

LAYER, PERCENT = "learn_output_layer", "learn_output_kept"
NAMES = ("svd", "whitened")
PANELS = {"weight_error": "Error of the weight", "output_error": "Error of the output"}


def draw(ref: ModelRef) -> None:
    """Both errors against the rank under both decompositions, and the bars of one rank."""
    found = lessons.lessons(ref, "layers")
    if not found:
        lessons.nothing_recorded("errors")
    else:
        lesson, entry = choose(found, LAYER)
        layer = lesson.layer(entry["name"])
        number = _rank(entry, layer)
        for column, (panel, title) in zip(st.columns(2), PANELS.items(), strict=True):
            with column:
                st.markdown(f"**{title}**")
                caption = charting.ChartText(
                    f"{title} against the rank, for plain and whitened truncation", errors_table(entry, panel)
                )
                charting.vega(chart(entry, panel, layer, number), caption, key=f"learn_{panel}")
        st.markdown(errors_sentence(entry, layer, number))
        st.caption(inputs(entry))
        sample_note(lesson.view.sample, lesson.view.id)
    with lessons.live_fold(ref, "Try it on the activations of your own model"):
        spec = LessonSpec(model=ref, parts=("layers",))
        if lessons.live(ref, spec, "Truncate three layers of this model", "learn_outputs_live"):
            st.rerun()


def _rank(entry: Mapping[str, Any], layer: LinearShape) -> int:
    """Index of the rank under the slider."""
    ranks = entry["ranks"]
    default = min(range(len(ranks)), key=lambda index: abs(ranks[index] - break_even(layer) / 2))
    chosen = st.select_slider(
        "Rank",
        [str(rank) for rank in ranks],
        value=str(ranks[default]),
        key=f"{PERCENT}_{entry['name']}",
    )
    return [str(rank) for rank in ranks].index(chosen)


def frame(entry: Mapping[str, Any], panel: str) -> pd.DataFrame:
    """One row per rank and decomposition."""
    return pd.DataFrame(
        [
            {"rank": rank, "truncation": decomposition_label(name), "error": error}
            for name in NAMES
            for rank, error in zip(entry["ranks"], entry[panel][name], strict=True)
        ]
    )


def chart(entry: Mapping[str, Any], panel: str, layer: LinearShape, number: int) -> alt.LayerChart | alt.FacetChart:
    """One error over the ranks, with the slider's rank marked."""
    rows = frame(entry, panel)
    labels = [decomposition_label(name) for name in NAMES]
    color = alt.Color(
        "truncation:N",
        scale=alt.Scale(domain=labels, range=[decomposition_color(name) for name in NAMES]),
        legend=alt.Legend(title=None, orient="bottom", symbolType="stroke", symbolStrokeWidth=3),
    )
    x = alt.X(
        "rank:Q",
        title="Rank (logarithmic)",
        scale=alt.Scale(type="log", domain=[1, layer.full_rank], nice=False),
        axis=alt.Axis(tickCount=5),
    )
    y = alt.Y("error:Q", title="Error, share of the whole", axis=alt.Axis(format=".0%"), scale=alt.Scale(domain=[0, 1]))
    dash = alt.StrokeDash("truncation:N", sort=labels, legend=None)
    lines = alt.Chart(rows).mark_line(strokeWidth=2.4).encode(x=x, y=y, color=color, strokeDash=dash)
    tips = ["rank:Q", "truncation:N", alt.Tooltip("error:Q", format=".1%")]
    points = (
        alt.Chart(rows[rows["rank"] == entry["ranks"][number]])
        .mark_point(filled=True, size=120, opacity=1)
        .encode(x=x, y=y, color=color, tooltip=tips)
    )
    even = pd.DataFrame({"rank": [break_even(layer)]})
    rule = alt.Chart(even).mark_rule(color="#8a9593", strokeDash=[3, 3]).encode(x=x)
    return alt.layer(lines, points, rule).properties(height=300)


def errors_sentence(entry: Mapping[str, Any], layer: LinearShape, number: int) -> str:
    """Both truncations at one rank, in words."""
    rank, weight, output = entry["ranks"][number], entry["weight_error"], entry["output_error"]
    plain, white = output["svd"][number], output["whitened"][number]
    start = (
        f"At rank **{rank}** of {layer.full_rank} plain truncation misses {words.percent(weight['svd'][number], 0)} of "
        f"the weight and **{words.percent(plain, 0)}** of the output; whitened truncation misses "
        f"{words.percent(weight['whitened'][number], 0)} of the weight, but **{words.percent(white, 0)}** "
        "of the output. "
    )
    if white >= plain:
        return start + "Here whitening does not help: so little is missing that both are good."
    same = rank_for(entry["ranks"], output["svd"], white)
    return start + (f"Plain truncation needs {same} for as good an output." if same else "")


def rank_for(ranks: Sequence[int], errors: Sequence[float], wanted: float) -> str:
    """The rank at which an error has fallen to what is wanted: ``rank 29``, or ``about rank 250 (…)``; "" if never.

    Between two measured ranks both logarithms are joined by a straight line.

    Args:
        ranks: measured ranks, ascending.
        errors: at each of them, descending.
        wanted: an error.
    """
    at = next((index for index, error in enumerate(errors) if error <= wanted), None)
    if at is None:
        return ""
    if at == 0 or errors[at] == wanted:
        return f"rank {ranks[at]}"
    (low, high), (above, below) = ranks[at - 1 : at + 1], errors[at - 1 : at + 1]
    share = math.log(above / wanted) / math.log(above / below) if below > 0 else (above - wanted) / above
    between = low * (high / low) ** share
    return f"about rank {words.significant(between, 2)} (measured were {low} and {high})"


def inputs(entry: Mapping[str, Any]) -> str:
    """Why: how unevenly this layer's inputs are spread."""
    energy = entry["input_energy"]
    pairs = list(zip(energy["directions"], energy["share"], strict=True))
    count, share = next(pair for pair in pairs if pair[1] >= 0.5)
    more = next(pair for pair in pairs if pair[1] >= min(1.0, share + 0.6 * (1 - share)))
    every = energy["directions"][-1]
    said = (
        f"Measured on {entry['tokens']:,} tokens that neither truncation has seen. Why it matters here: "
        f"{words.percent(share, 0)} of the energy of this layer's inputs lies in {count} of {every:,} directions"
    )
    if more[0] == every or share >= 1:
        return f"{said}."
    lighter = (share / count) / ((1 - share) / (every - count))
    return (
        f"{said}, {words.percent(more[1], 0)} in {more[0]}. An error in one of the others weighs "
        f"{words.significant(lighter, 2)} times less on average, but they still carry "
        f"{words.percent(1 - share, 0)}: it cannot be ignored."
    )


def errors_table(entry: Mapping[str, Any], panel: str) -> pd.DataFrame:
    """The errors of one panel in numbers, one row per rank."""
    columns: dict[str, list[Any]] = {"Rank": list(entry["ranks"])}
    for name in NAMES:
        columns[decomposition_label(name)] = [words.percent(error, 1) for error in entry[panel][name]]
    return pd.DataFrame(columns)
