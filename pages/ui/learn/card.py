"""Step 8: what it costs and gives, on one card; and the quiz."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from lrc_core import words
from lrc_core.budget import USUAL_KEEP, whole_percent
from lrc_core.names import in_order, method_label
from lrc_core.quality.card import CardModel, quality_words, speed_of, speed_words
from lrc_core.quality.plain_words import ACCURACY
from lrc_core.quality.quantised import compresses, served_bytes
from lrc_core.quality.rows import Scores, dense_row, mean_loss
from lrc_core.quality.speeds import DECODE, PREFILL, pace_of
from lrc_core.results import comparisons
from lrc_core.runs.spec import ModelRef
from lrc_core.runs.store import RunStore
from lrc_core.texts.label import text_label
from pages.ui.learn.methods import usable
from pages.ui.learn.quiz import questions
from pages.ui.shared import cards, charting, forms
from pages.ui.shared.frame import empty, page_link, sample_note

RATE, METHOD = "learn_card_rate", "learn_card_method"
METRICS = {"acc_norm": "normalised", "acc": "plain"}


def draw(ref: ModelRef) -> None:
    """The card of one measured plan beside the dense model, then the questions."""
    trio = usable(ref)
    if trio is None:
        empty("Nothing measured yet", "Start a comparison on the Compare page.", ":material/balance:")
    else:
        card(trio.group)
    questions.draw_quiz()


def card(group: comparisons.Group) -> None:
    """Choose a plan and read its card."""
    dense = dense_row(group.rows)
    rows = [row for row in group.at(comparisons.EVERY, None) if compresses(row) and row.get("cost")]
    if dense is None or not dense.get("cost") or not rows:
        empty("No sizes and speeds in these rows", "Newer comparisons measure them.", ":material/speed:")
        return
    left, right = st.columns(2)
    names = in_order({str(row["method"]) for row in rows})
    best = str(min(rows, key=lambda row: (abs(row["keep_target"] - USUAL_KEEP), mean_loss(row)))["method"])
    labels = {name: method_label(name) for name in names}
    method = forms.pick(left, "Method", labels, best, METHOD, bind="query-params")
    rates = sorted({whole_percent(row["keep_target"]) for row in rows if row["method"] == method})
    rate = forms.rate_choice(right, "Removed from the block linears", rates, RATE)
    row = next(
        (row for row in rows if row["method"] == method and whole_percent(row["keep_target"]) == rate),
        rows[0],
    )
    with st.container(border=True):
        st.markdown(f"**{method_label(str(row['method']))}, {words.removed(row['keep_achieved'])} removed**")
        cards.facts(entries(row, dense))
    st.markdown(cost_sentence(row, dense))
    if row.get("zero_shot"):
        st.caption(f"{ACCURACY} Both are on the card.")
    sample_note(group.sample, str(row.get("run_id", "")), str(dense.get("run_id", "")))
    cost_table(row, dense)
    page_link("pages/compare.py", "All measurements, on Compare", ":material/balance:")


def entries(row: Mapping[str, Any], dense: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Name, value and note of every figure on the card."""
    found = [
        ("Size", words.data_size(served_bytes(row) or 0), f"of {words.data_size(served_bytes(dense) or 0)}, counted"),
    ]
    for what, title in ((PREFILL, "Reading a prompt"), (DECODE, "Writing")):
        speed, pace = row["cost"].get(f"{what}_tokens_per_s"), pace_of(row, dense, what)
        note = f"{pace.figure} times the dense pace" if pace else ""
        found.append((title, f"{words.significant(speed)} tokens/s" if speed else "not measured", note))
    for text, score in row["perplexity"].items():
        other = dense["perplexity"].get(text)
        note = f"dense {words.measured(other['value'], other.get('stderr'))}" if other else ""
        found.append((f"Perplexity, {text_label(text)}", words.measured(score["value"], score.get("stderr")), note))
    for task, score in (row.get("zero_shot") or {}).items():
        other = (dense.get("zero_shot") or {}).get(task) or {}
        for metric in ("acc_norm", "acc"):
            value, before_it = score.get(metric), other.get(metric)
            note = f"dense {100 * before_it:.0f} %, {score.get('n', 0)} questions" if before_it is not None else ""
            if value is not None:
                error = 100 * (score.get(f"{metric}_stderr") or 0)
                found.append((f"{task}, {METRICS[metric]}", f"{100 * value:.0f} ± {error:.0f} %", note))
    return found


def cost_sentence(row: Mapping[str, Any], dense: Mapping[str, Any]) -> str:
    """The card in a few sentences."""
    saved = 1 - (served_bytes(row) or 0) / (served_bytes(dense) or 1)
    entry, base = (CardModel("", "", None, speed_of(one), one, "") for one in (row, dense))
    quality, _ = quality_words(entry, base, Scores(RunStore().root))
    return f"The whole model becomes **{words.percent(saved, 0)}** smaller. {speed_words(entry, base)} {quality}"


def cost_table(row: Mapping[str, Any], dense: Mapping[str, Any]) -> None:
    """The same as a table."""
    charting.folded(
        [{"What": name, "This plan": value, "Beside it": note} for name, value, note in entries(row, dense)],
        "Every figure of the card",
    )
