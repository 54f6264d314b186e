"""The starter's bench and ablations as they ship: real cells with their errors, and on what they were computed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from lrc_core.escape import csv_cell, escaped
from lrc_core.names import decomposition_label, method_label, model_label
from lrc_core.results import benches as bench_data
from lrc_core.results.starter_tables import (
    ABLATIONS,
    BENCH,
    COMMANDS,
    COMPUTED,
    MACHINE,
    ShippedTable,
    shipped_table,
)
from lrc_core.runs.spec import GENERATED, ModelRef
from lrc_core.words import removed
from pages.ui.bench import figures, readings
from pages.ui.shared import charting, forms
from pages.ui.shared.charting import ChartText
from pages.ui.shared.naming import download, file_name

_WORDS = {"losses": "loss terms", "texts": "calibration text"}


def bench(ref: ModelRef) -> bool:
    """The bench of the starter: chart, every cell, origin. False where the model has none."""
    table = shipped_table(BENCH) if ref == ModelRef() else None
    if table is None:
        return False
    cells = bench_data.BenchRows(table.rows)
    _origin(table)
    names = bench_data.measures(cells)
    left, right = st.columns([3, 2])
    labels = {name: escaped(label) for name, label in names.items()}
    measure = forms.pick(left, "Quality", labels, next(iter(names)), "co_shipped_measure")
    sizes = {axis: bench_data.AXES[axis] for axis in ("linear", "model")}
    axis = forms.pick(right, "Size", sizes, "linear", "co_shipped_axis")
    under = {name: decomposition_label(name) for name in bench_data.decompositions_of(cells)}
    drawn = forms.pick(st, "Decomposition", under, next(iter(under)), "co_shipped_under")
    chosen = bench_data.BenchRows(tuple(row for row in table.rows if row["decomposition"] in ("", drawn)))
    caption = ChartText(
        "Quality over size, one line per method, the dense model dashed",
        pd.DataFrame([row for row in table.cells if row["decomposition"] in ("", drawn)]).fillna(""),
        readings.leaders(chosen, measure, names[measure]) + " Signs in the table say what is more than chance.",
    )
    figure = figures.pareto(chosen, measure, axis, log=True)
    charting.plotly(figure, caption, key="co_shipped_pareto", name="starter-bench")
    _beneath(ref, table)
    return True


def ablations(ref: ModelRef) -> bool:
    """The ablations of the starter, as :func:`bench`."""
    found = [shipped_table(name) for name in ABLATIONS] if ref == ModelRef() else []
    tables = [table for table in found if table is not None]
    for table in tables:
        _origin(table)
        for method in dict.fromkeys(str(row["method"]) for row in table.rows if "variant" in row):
            for part, said in _WORDS.items():
                _variants(table, method, part, said)
        _beneath(ref, table)
    return bool(tables)


def _variants(table: ShippedTable, method: str, part: str, said: str) -> None:
    """Bars of what was left out of a method, or of what it was calibrated on."""
    places = _places(table, method, part)
    rows = [table.rows[place] for place in places]
    if not rows:
        return
    title = f"{method_label(method)}: {said}, {_removed(rows)} removed"
    st.markdown(f"**{escaped(title)}**")
    caption = ChartText(
        f"{title}: " + ", ".join(str(row["variant"]) for row in rows),
        pd.DataFrame([table.cells[place] for place in places]),
        readings.worst_variant(bench_data.BenchRows(table.rows), rows),
    )
    name = f"starter-ablation-{method}-{part}"
    charting.plotly(_bars(table, method, part), caption, key=f"co_shipped_{method}_{part}", name=name)


def _places(table: ShippedTable, method: str, part: str) -> list[int]:
    """Of the rows that vary one part of a method."""
    return [place for place, row in enumerate(table.rows) if row["method"] == method and row.get("part") == part]


@lru_cache(maxsize=16)
def _bars(table: ShippedTable, method: str, part: str) -> go.Figure:
    """Drawn once for all visitors: there are several on the page, and one takes as long as the rest of it."""
    cells = bench_data.BenchRows(table.rows)
    rows = [table.rows[place] for place in _places(table, method, part)]
    return figures.variants_side_by_side(cells, rows, bench_data.measures(cells), log=True)


def _removed(rows: Sequence[bench_data.Row]) -> str:
    return ", ".join(dict.fromkeys(removed(row["keep_target"]) for row in rows))


def _origin(table: ShippedTable) -> None:
    """Where the cells come from."""
    generated = any(str(row.get("variant", "")).endswith(GENERATED) for row in table.rows)
    st.markdown(
        f":orange-badge[:material/inventory_2: Shipped table] {len(table.rows)} rows of the starter model, as of "
        f"{COMPUTED}. Its cells were computed on {MACHINE}"
        + (", those on text that the model writes on one CPU core" if generated else "")
        + ": times compare only roughly, perplexities hold."
    )


def _beneath(ref: ModelRef, table: ShippedTable) -> None:
    """What the signs mean, remarks, the table as files, and the command that measures it anew."""
    st.caption(escaped(table.legend))
    if table.notes:
        with st.expander("Remarks on single cells", icon=":material/notes:"):
            for note in table.notes:
                st.caption(escaped(note))
    frame = pd.DataFrame(table.figures).map(csv_cell)
    files = (("CSV", frame.to_csv(index=False), "csv"), ("Markdown", table.markdown, "md"))
    with st.container(horizontal=True):
        for label, content, ending in files:
            download(
                f"Table ({label})",
                content,
                file_name(model_label(ref), table.name, ending=ending),
                key=f"co_shipped_{table.name}_{ending}",
            )
    st.code(COMMANDS[table.name], language="bash", wrap_lines=True)
