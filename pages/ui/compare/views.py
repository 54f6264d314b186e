"""The views of the Compare page: each draws one side of the same rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from lrc_core import words
from lrc_core.escape import escaped
from lrc_core.figures import measured as charts
from lrc_core.figures.decision import decision_figure
from lrc_core.names import method_label
from lrc_core.quality.alternatives import why_not_quantise
from lrc_core.quality.decision import KINDS, Choice, frontier
from lrc_core.quality.decision_words import decision_words, texts_words
from lrc_core.quality.plain_words import ACCURACY
from lrc_core.quality.quantised import compresses, served_bytes, share_of
from lrc_core.quality.rows import Scores
from lrc_core.quality.tables import tasks_of, texts_of
from lrc_core.results import comparisons
from lrc_core.results.archive import archive
from lrc_core.results.decisions import decision_of
from lrc_core.runs.spec import ModelRef
from lrc_core.runs.store import RunStore
from lrc_core.texts.label import text_labels
from pages.ui.compare import ranks as rank_charts
from pages.ui.compare import readings
from pages.ui.shared import charting, forms
from pages.ui.shared.charting import ChartText
from pages.ui.shared.frame import empty, show_ids

Rows = list[comparisons.Row]


def overview(group: comparisons.Group, decomposition: str, rows: Rows, ref: ModelRef) -> None:
    """Perplexity bars and the table."""
    perplexity(rows, charts.perplexity_by_method(rows), "co_bars", folded=False)
    show_ids([f"{row['run_id']}  # {charts.bar_name(row)}" for row in charts.ordered(rows) if row.get("run_id")])
    if answer := why_not_quantise(rows, Scores(RunStore().root)):
        st.markdown(escaped(answer))


def perplexity(rows: Rows, figure: go.Figure, key: str, *, folded: bool = True) -> None:
    """Bars of perplexity, which is the best of them, and the table."""
    said = "Perplexity by method: " + "; ".join(_sentence(row) for row in charts.ordered(rows))
    reading = readings.best(rows, Scores(RunStore().root))
    caption = ChartText(said, _readable(charts.ordered(rows)), reading, folded=folded)
    charting.plotly(figure, caption, key=key, name="perplexity")


def decide(group: comparisons.Group, decomposition: str, rows: Rows, ref: ModelRef) -> None:
    """Bytes against loss: every measured way to a smaller model, at every size."""
    found = decision_of(ref, group, decomposition)
    said = decision_words([replace(one, name=escaped(one.name)) for one in found])
    if not said:
        empty(
            "Nothing to decide by yet",
            "The picture needs the dense model and one plan, measured alike, and the model's card.",
            ":material/balance:",
        )
        return
    st.markdown(said)
    caption = ChartText(f"Bytes of the whole model against loss. {said}", _choices_table(found))
    charting.plotly(decision_figure(found), caption, key="co_decision", name="bytes-and-loss")
    st.caption(
        f"Loss: perplexity over the dense model's, on {escaped(texts_words(found))} (geometric mean), ± standard "
        "error (paired where single outcomes are kept). "
        "Bytes: of the whole model; what is no block linear counts in 16 bits. Measured rows only."
    )


def _choices_table(found: Sequence[Choice]) -> pd.DataFrame:
    best = frontier(found)
    return pd.DataFrame(
        [
            {
                "Model": one.name,
                "Way": KINDS[one.kind],
                "Model's bytes of 16 bits": words.percent(one.share),
                "Size": words.data_size(one.size),
                "Perplexity over dense": words.measured(one.times, one.times_error),
                "On the frontier": "yes" if one in best else "",
            }
            for one in found
        ]
    )


def _sentence(row: comparisons.Row) -> str:
    labels = text_labels(row["perplexity"])
    scores = ", ".join(f"{labels[text]} {words.figure(score['value'])}" for text, score in row["perplexity"].items())
    return f"{charts.bar_name(row)}: {scores}"


def _readable(rows: Rows) -> pd.DataFrame:
    """Rows with values and errors in one cell, for reading."""
    records, labels = [], text_labels(texts_of(rows))
    for row in rows:
        record = {
            "Method": method_label(str(row["method"])),
            "Removed": words.removed(float(row.get("keep_achieved", row["keep_target"])), 2),
            "Of the whole model": words.removed(float(row["keep_whole_model"]), 2)
            if row.get("keep_whole_model") is not None
            else "–",
        }
        record["Layers' bytes of 16 bits"] = words.percent(share_of(row), 1)
        for text, score in row["perplexity"].items():
            record[f"Perplexity, {labels[text]}"] = words.measured(score["value"], score.get("stderr"))
        for task, score in (row.get("zero_shot") or {}).items():
            for metric, kind in (("acc_norm", "normalised"), ("acc", "plain")):
                if score.get(metric) is not None:
                    error = 100 * (score.get(f"{metric}_stderr") or 0)
                    record[f"{task}, {kind}"] = words.with_error(100 * score[metric], error, 1) + " %"
        size = served_bytes(row)
        record["Size"] = words.data_size(size) if size else "–"
        records.append(record)
    return pd.DataFrame(records)


def curves(group: comparisons.Group, decomposition: str, rows: Rows, ref: ModelRef) -> None:
    """Perplexity over all measured rates."""
    log = st.toggle("Logarithmic", key="co_log", bind="query-params")
    every = charts.ordered(group.at(decomposition, None))
    caption = ChartText("Perplexity over compression, one line per method", _readable(every), readings.growth(every))
    charting.plotly(
        charts.perplexity_curves(every, log=log), caption, key="co_curves", name="perplexity-over-compression"
    )


def zero_shot(group: comparisons.Group, decomposition: str, rows: Rows, ref: ModelRef) -> None:
    """Accuracy per task."""
    if not tasks_of(rows):
        empty("No tasks measured", "Start a comparison with zero-shot tasks below.", ":material/quiz:")
        return
    metric = forms.pick(
        st,
        "Accuracy",
        {"acc_norm": "Normalised by length", "acc": "Plain"},
        "acc_norm",
        "co_metric",
        help="Normalised by length: the log-probability of every answer is divided by its length, where the task is "
        "scored so (acc_norm); this is what means, cards and benches count.",
        bind="query-params",
    )
    items = {score.get("n") for row in rows for score in (row.get("zero_shot") or {}).values() if score.get("n")}
    caption = ChartText(
        "Zero-shot accuracy by task and method",
        charts.zero_shot_table(rows, metric or "acc_norm"),
        readings.accuracy(rows, metric or "acc_norm"),
    )
    charting.plotly(charts.zero_shot_bars(rows, metric or "acc_norm"), caption, key="co_tasks", name="zero-shot")
    if items:
        st.caption(
            f"{ACCURACY} {', '.join(f'{n:,}' for n in sorted(items))} items per task; whiskers are one standard error."
        )


def ranks(group: comparisons.Group, decomposition: str, rows: Rows, ref: ModelRef) -> None:
    """Where two methods spend their parameters differently."""
    known = archive().newest_card(ref)
    plans = {
        str(row["method"]): plan for row in rows if compresses(row) and (plan := comparisons.plan_of(row)) is not None
    }
    if known is None or len(plans) < 2:
        empty(
            "Not enough plans at this rate",
            "The plans of two methods at the same rate are needed.",
            ":material/grid_on:",
        )
        return
    card, names = known[0], [name for name in reversed(charts.methods_of(rows)) if name in plans]
    left, right = st.columns(2)
    first = left.selectbox("First", names, index=0, format_func=method_label, key="co_first", bind="query-params")
    second = right.selectbox("Second", names, index=1, format_func=method_label, key="co_second", bind="query-params")
    one, two = plans[first], plans[second]
    st.markdown(f"**Share of each layer kept: {method_label(first)} minus {method_label(second)}**")
    labels = method_label(first), method_label(second)
    rank_charts.draw_difference(card, (one, two), labels, readings.spending(card, one, two), key="co_difference")
    left, right = st.columns(2)
    for column, name, plan in ((left, first, one), (right, second, two)):
        with column:
            st.markdown(
                f"**{method_label(name)}** :small[:gray[{words.removed(plans[name].keep_achieved, 2)} removed]]"
            )
            rank_charts.draw_ranks(card, plan, f"Ranks of {method_label(name)}", key=f"co_ranks_{name}")


def samples(group: comparisons.Group, decomposition: str, rows: Rows, ref: ModelRef) -> None:
    """What each model writes, word for word."""
    shown = [row for row in charts.ordered(rows) if (row.get("sample") or {}).get("text")]
    if not shown:
        empty("No text samples in these rows", "Newer comparisons record one beside every score.", ":material/notes:")
        return
    st.caption(
        "The most likely continuation of one prompt, word for word. Good perplexity with garbage here is a warning."
    )
    st.markdown("**Prompt**")
    st.text(shown[0]["sample"].get("prompt", ""))
    with st.grid(2, min_column_width=320):
        for row in shown:
            with st.container(border=True, height="stretch"):
                st.markdown(f"**{escaped(charts.bar_name(row))}**")
                st.text(row["sample"]["text"])


def cost(group: comparisons.Group, decomposition: str, rows: Rows, ref: ModelRef) -> None:
    """Bytes and speed."""
    shown = [row for row in rows if row.get("cost")]
    if not shown:
        empty(
            "No size or speed in these rows", "Newer comparisons measure them beside every score.", ":material/speed:"
        )
        return
    caption = ChartText("Bytes, prefill and decode speed by method", charts.speed_table(shown), readings.cost(shown))
    charting.plotly(charts.speed_bars(shown), caption, key="co_speed", name="size-and-speed")
    st.caption(
        "Times dense with an error: timed right beside the dense model, in one process. Two small products are not "
        "automatically faster than one large: the number of bytes always falls, the speed only where memory or "
        "arithmetic was the limit."
    )


VIEWS: dict[str, tuple[str, Callable[[comparisons.Group, str, Rows, ModelRef], None]]] = {
    "overview": ("Overview", overview),
    "decide": ("Decide", decide),
    "curve": ("Curve", curves),
    "tasks": ("Zero-shot", zero_shot),
    "ranks": ("Ranks", ranks),
    "text": ("Text", samples),
    "cost": ("Size and speed", cost),
}
