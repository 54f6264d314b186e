"""The card: what a model takes and gives, for those who decide. Memory, speed, quality, money."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import replace

import streamlit as st

from lrc_core.budget import same_size
from lrc_core.escape import escaped
from lrc_core.figures import measured as charts
from lrc_core.names import method_color
from lrc_core.plan import Plan
from lrc_core.quality.card import (
    CardModel,
    Counted,
    Wishes,
    card_words,
    cards_sentence,
    speed_of,
)
from lrc_core.quality.decision import Choice
from lrc_core.quality.decision_words import decision_words
from lrc_core.quality.footprint import footprint, served
from lrc_core.quality.rows import Scores, dense_row
from lrc_core.results import answers as talk
from lrc_core.results import comparisons
from lrc_core.results.archive import RunView, archive
from lrc_core.runs.spec import GenerateSpec, ModelRef
from lrc_core.runs.store import RunStore
from lrc_core.runs.transcript import read_answers
from lrc_core.types import ModelCard
from pages.ui.shared import pictures, state
from pages.ui.shared.frame import empty, show_ids
from pages.ui.shared.prose import prose

_CONTEXTS = tuple(2**power for power in range(7, 21))


def under_rows(rows: Sequence[comparisons.Row], ref: ModelRef, decided: Sequence[Choice]) -> None:
    """The card of every row of a comparison, in a fold.

    Args:
        rows: at one budget.
        decided: what a decision is made from, at every budget.
    """
    fold = st.expander(
        "The card: memory, speed, quality and money", icon=":material/id_card:", key="co_card", bind="query-params"
    )
    if not fold.open:  # nothing is counted or drawn for those who do not look
        return
    with fold:
        known = archive().newest_card(ref)
        if known is None:
            empty("The model has no card yet", "Read its spectra on Home first.", ":material/id_card:")
            return
        entries, without = [], []
        for row in charts.ordered(rows):
            plan = None if row["method"] == "dense" else comparisons.plan_of(row)
            if plan is None and row["method"] != "dense":
                without.append(charts.bar_name(row))
                continue
            run_id = str(row.get("run_id", ""))
            name = "Dense model" if plan is None else charts.bar_name(row)
            entries.append(CardModel(name, method_color(str(row["method"])), plan, speed_of(row), row, run_id))
        _cards(served(known[0]), entries, "co")
        if said := decision_words([replace(one, name=escaped(one.name)) for one in decided]):
            st.markdown(f"**What to decide by.** {said}")
        if without:
            st.caption(f"The plans of {', '.join(without)} have been deleted, so that nothing can be counted for them.")


def under_answers(view: RunView[GenerateSpec], ref: ModelRef) -> None:
    """The card of every model that answered a prompt."""
    known = archive().newest_card(ref)
    if known is None or not view.done:
        return
    written = read_answers(view.run)
    rows = [row for group in comparisons.groups(ref) for row in group.rows]
    entries = []
    for number, answer in enumerate(view.spec.answers):
        name, plan, got = talk.name_of(answer), talk.plan_of(answer), written.get(number)
        speed = {
            "decode": got.tokens_per_s if got else None,
            "prefill": got.prompt_tokens / got.prefill_s if got and got.prefill_s else None,
        }
        row, source, timed = row_of(plan, rows), view.id, "answer"
        if speed["decode"] is None and row is not None and row.get("cost"):  # the answer was too short to be timed
            speed, source, timed = speed_of(row), str(row["run_id"]), "evaluation"
        entries.append(CardModel(talk.label_of(name), talk.color_of(name), plan, speed, row, source, timed))
    with st.expander("The card: memory, speed, quality and money", icon=":material/id_card:"):
        _cards(served(known[0]), entries, "ta")


def row_of(plan: Plan | None, rows: Sequence[comparisons.Row]) -> comparisons.Row | None:
    """A measurement of this very plan, from any comparison."""
    if plan is None:
        return dense_row(rows)
    run_id = plan.origin.get("run_id")
    for row in rows:
        made_by = row.get("update_run_id") if plan.update else row.get("allocate_run_id")
        if run_id and made_by == run_id and same_size(row["keep_target"], plan.keep_target):
            return row
    return None


def _cards(card: ModelCard, entries: Sequence[CardModel], prefix: str) -> None:
    wishes = _wishes(card, prefix)
    wishes = replace(wishes, currency=escaped(wishes.currency))
    found = [(entry, footprint(card, entry.plan, wishes.context, wishes.sequences)) for entry in entries]
    largest = max((size.total for _, size in found), default=1)
    dense = next((pair for pair in found if pair[0].plan is None), None)
    if len(found) > 1:
        named = [(replace(entry, name=escaped(entry.name)), size) for entry, size in found]
        st.markdown(cards_sentence(named, wishes))
    with st.grid(2, min_column_width=330):
        for counted in found:
            with st.container(border=True, height="stretch", gap="small"):
                _one(counted, largest, dense, wishes)
    st.caption(prose("card"))


def _wishes(card: ModelCard, prefix: str) -> Wishes:
    """Context, requests at once, price: the price is remembered on this computer."""
    known_price, known_currency = state.price()
    contexts = [size for size in _CONTEXTS if size <= card.max_positions] or [card.max_positions]
    first, second, third, fourth = st.columns([3, 2, 2, 1])
    context = first.select_slider(
        "Context, tokens",
        contexts,
        value=min(contexts, key=lambda size: abs(size - 2048)),
        format_func=lambda size: f"{size:,}",
        key=f"{prefix}_context",
        help=f"Positions that every request holds, prompt and answer together; the model takes {card.max_positions:,}.",
    )
    sequences = second.number_input("Requests at once", 1, 4096, 1, key=f"{prefix}_sequences")
    price = third.number_input(
        "Price per GB per month",
        0.0,
        1e6,
        known_price,
        step=0.5,
        key=f"{prefix}_price",
        help="Of the memory that the model occupies: your server's or GPU's monthly price divided by its GB.",
        on_change=_remember,
        args=(prefix,),
    )
    currency = fourth.text_input(
        "Currency",
        known_currency,
        max_chars=4,
        key=f"{prefix}_currency",
        on_change=_remember,
        args=(prefix,),
    )
    return Wishes(int(context), int(sequences), float(price), currency.strip())


def _remember(prefix: str) -> None:
    price, currency = st.session_state.get(f"{prefix}_price"), st.session_state.get(f"{prefix}_currency")
    state.write_settings(price_per_gb=price, currency=currency)


def _one(counted: Counted, largest: int, dense: Counted | None, wishes: Wishes) -> None:
    (entry, size), said = counted, card_words(counted, dense, wishes, Scores(RunStore().root))
    who(entry.name, entry.color)
    st.markdown(said.memory)
    st.html(pictures.memory_bar(size, largest))
    st.markdown(said.money)
    st.markdown(said.speed)
    st.markdown(said.quality + (f" :small[:gray[({said.behind})]]" if said.behind else ""))
    if entry.source:
        others = [_other_run(entry)] if _other_run(entry) else []
        show_ids([entry.source, *others], "Of the speed, and of the quality where that is another run.")


def who(name: str, color: str, tag: str = "") -> None:
    """Whose answer or card it is, with the colour of its method; none where that is a secret."""
    chip = f'<span class="lrc-chip" style="background:{color}"></span>' if color else ""
    mark = f' <span class="lrc-tag">{html.escape(tag)}</span>' if tag else ""
    st.html(f'<div class="lrc-who">{chip}{html.escape(name)}{mark}</div>')


def _other_run(entry: CardModel) -> str:
    """The run of the quality where it is not that of the speed; "" else."""
    run_id = str(entry.row.get("run_id", "")) if entry.row is not None else ""
    return "" if run_id == entry.source else run_id
