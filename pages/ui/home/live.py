"""The first thing on Home: one slider under which a real model's text holds or falls apart, from what was measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import streamlit as st

from lrc_core import words
from lrc_core.budget import USUAL_KEEP, whole_percent
from lrc_core.names import method_color, method_label
from lrc_core.quality.quantised import compresses, served_bytes
from lrc_core.quality.rows import mean_loss
from lrc_core.results import comparisons
from lrc_core.runs.spec import ModelRef
from lrc_core.texts.label import text_labels
from pages.ui.shared.frame import PAGES, page_link, sample_note
from pages.ui.shared.prose import component

BASELINE = "uniform"
_LONGEST = 260


def draw_size(ref: ModelRef) -> None:
    """The slider, where a comparison with texts has been measured; nothing else."""
    group = next((group for model in (ref, ModelRef()) for group in comparisons.groups(model) if _tells(group)), None)
    if group is None:
        return
    drawn = component("lrc_live", "components/live", '<div class="live"></div>')
    drawn(data=payload(group), key="home_live")
    with st.container(horizontal=True, vertical_alignment="center", key="home_film"):
        sample_note(group.sample, *(view.id for view in group.views))
        page_link(PAGES["watch"].file, "Watch ranks being learned", PAGES["watch"].icon)


def _tells(group: comparisons.Group) -> bool:
    """Whether it has the dense model, the baseline and something better, with what they wrote."""
    return group.tells and bool(stops(group)[1:])


def _best(rows: Iterable[comparisons.Row]) -> comparisons.Row | None:
    """Of the compressed models at one size that have a text, the one that lost least."""
    written = [row for row in rows if compresses(row) and _text(row)]
    return min(written, key=mean_loss, default=None)


def _text(row: comparisons.Row) -> str:
    return str((row.get("sample") or {}).get("text") or "")


def payload(group: comparisons.Group) -> dict[str, Any]:
    """Everything that the slider can show, so that it asks nobody."""
    found = stops(group)
    rates = [stop["rate"] for stop in found]
    usual = whole_percent(USUAL_KEEP)
    dense = _rows(group, 1.0)["dense"]
    return {"prompt": str(dense["sample"].get("prompt", "")), "stops": found,
            "start": rates.index(usual) if usual in rates else len(rates) - 1}  # fmt: skip


def stops(group: comparisons.Group) -> list[dict[str, Any]]:
    """The dense model, then every size at which something better than the baseline was measured, both with a text."""
    dense = _rows(group, 1.0).get("dense")
    if dense is None or not _text(dense):
        return []
    made = [_stop(dense, [dense, dense], dense)]
    for keep in group.sizes:
        rows = _rows(group, keep)
        best, even = _best(rows.values()), rows.get(BASELINE)
        if best is not None and even is not None and _text(even) and best is not even:
            made.append(_stop(dense, [best, even], best))
    return made


def _rows(group: comparisons.Group, keep: float) -> dict[str, comparisons.Row]:
    return {str(row["method"]): row for row in group.best_at(keep)}


def _stop(dense: comparisons.Row, rows: list[comparisons.Row], sized: comparisons.Row) -> dict[str, Any]:
    """One place of the slider: size, and of both models text and perplexity."""
    text = next(text for text in dense["perplexity"])
    base, whole = float(dense["perplexity"][text]["value"]), float(sized.get("keep_whole_model") or 1.0)
    size = served_bytes(sized)
    models = []
    for row in rows:
        score = row["perplexity"][text]
        name = "Dense model" if row["method"] == "dense" else method_label(str(row["method"]))
        factor = float(score["value"]) / base
        models.append(
            {
                "name": name,
                "color": method_color(str(row["method"])),
                "text": " ".join(_text(row).split())[:_LONGEST],
                "factor": factor,
                "said": f"perplexity on {text_labels([text])[text]} "
                f"{words.measured(float(score['value']), score.get('stderr'))}, {words.times(factor)} times dense",
            }
        )
    return {
        "rate": 0 if sized is dense else whole_percent(float(sized["keep_target"])),
        "kept": whole,
        "size": (f"{words.data_size(size)}, " if size else "") + f"{words.removed(whole)} smaller",
        "models": models,
    }
