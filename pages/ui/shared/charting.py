"""Charts as every page draws them: with words for those who cannot see them, a reading, and their numbers as a table.

The only place that calls Streamlit's charts, so that none can be drawn without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from lrc_core.escape import in_plotly
from lrc_core.figures import common as figures

TABLE = "The numbers as a table"


@dataclass(frozen=True)
class ChartText:
    """The text and the numbers of a chart, for those who do not see it.

    Attributes:
        alt: what it shows, plain text or Markdown of which the words are taken.
        numbers: what is drawn, for reading; a function where making it would hold the page back: it is then called
            only while the fold is open.
        reading: what it says, one sentence computed from the data; "" where the page says it elsewhere.
        folded: whether the table stands in a fold.
    """

    alt: str
    numbers: pd.DataFrame | Callable[[], pd.DataFrame]
    reading: str = ""
    folded: bool = True


def plotly(figure: go.Figure, caption: ChartText, *, key: str, name: str) -> None:
    """A Plotly figure.

    Args:
        caption: its text and numbers.
        name: of the picture that the button in its corner saves.
    """
    spec = figure.to_dict()
    shown = in_plotly(spec)
    # Streamlit checks every part of a dictionary, which takes longer than making the figure; a figure it believes.
    drawn = figure if shown is spec else shown
    st.plotly_chart(drawn, key=key, config=figures.config(name), alt=without_marks(caption.alt))
    below(caption, key)


def vega(chart: alt.Chart | alt.LayerChart | alt.FacetChart, caption: ChartText, *, key: str) -> None:
    """An Altair chart."""
    st.altair_chart(chart, key=key, alt=without_marks(caption.alt))
    below(caption, key)


def without_marks(text: str) -> str:
    """Markdown without its signs."""
    return text.replace("**", "").replace("`", "").replace("\\", "")


def below(caption: ChartText, key: str) -> None:
    """The reading and the numbers, which also belong below a picture of our own."""
    if caption.reading:
        st.markdown(caption.reading)
    if callable(caption.numbers):
        fold = st.expander(TABLE, icon=":material/table:", key=f"{key}_table", on_change="rerun")
        if fold.open:
            with fold:
                _table(caption.numbers(), caption)
    elif caption.folded:
        with st.expander(TABLE, icon=":material/table:"):
            _table(caption.numbers, caption)
    else:
        _table(caption.numbers, caption)


def folded(columns: Mapping[str, Any] | Sequence[Mapping[str, Any]], said: str) -> None:
    """The numbers of a picture of our own, by column or by row, behind a fold."""
    with st.expander(TABLE, icon=":material/table:"):
        st.dataframe(pd.DataFrame(columns), hide_index=True, alt=said)


def _table(frame: pd.DataFrame, caption: ChartText) -> None:
    height: int | Literal["auto"] = 380 if len(frame) > 10 else "auto"
    alt = f"In numbers: {without_marks(caption.alt)}"
    st.dataframe(frame, hide_index=True, alt=alt, height=height, column_config=whole_names(frame))


def whole_names(frame: pd.DataFrame) -> dict[str, Any]:
    """The first column, where it says what a row is, is as wide as its longest name."""
    first = str(frame.columns[0]) if len(frame.columns) else ""
    if first not in ("Method", "Model"):
        return {}
    longest = max((len(str(name)) for name in frame[first]), default=0)
    return {first: st.column_config.TextColumn(width=min(260, 30 + 7 * longest))}
