"""What the Plans page draws: the budget, the heatmap that is edited, the score list."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from lrc_core import words
from lrc_core.allocate.curves.loss_curves import predicted_loss
from lrc_core.budget import (
    is_dense,
    layer_ratio,
    plan_params,
    smallest_dense_rank,
    storage_law,
    whole_rank_of_share,
)
from lrc_core.decompose import TWO_SIDED
from lrc_core.decompose.measures import energy_kept
from lrc_core.errors import LrcError
from lrc_core.escape import escaped
from lrc_core.figures.common import Scale
from lrc_core.formats.sizes import layer_states
from lrc_core.names import decomposition_label, method_label
from lrc_core.report.drawing.heatmap import plan_sentence
from lrc_core.results import scores as plan_scores
from lrc_core.results.archive import archive
from lrc_core.results.drafts import Draft, keep_draft, kept_draft, newest_draft, summary
from lrc_core.results.plan_quality import loss_forecast
from lrc_core.results.spectra import known_losses, spectra_of
from lrc_core.runs.spec import EvaluationSpec, ModelRef, SpectraSpec
from lrc_core.texts.label import text_labels
from lrc_core.types import LinearShape, ModelCard
from pages.ui.shared.cellgrid import OUTLINE, Grid, Limits, cell_grid, picked_in
from pages.ui.shared.naming import when

DRAFT, HISTORY, LAYER, RANK, GRID, TABLE = "pl_draft", "pl_history", "pl_layer", "pl_rank", "pl_grid", "pl_table"
MOVES, TAB = "pl_moves", "pl_tab"
LOCK, MOST_UNDO = "●", 50


def tab(*, make: bool = False) -> str:
    """The name under which this tab's draft is remembered, in its link; "" where it has none yet."""
    named = str(st.query_params.get(TAB, ""))
    if not named and make:
        named = secrets.token_hex(4)
        st.query_params[TAB] = named
    return named


def current(card: ModelCard) -> Draft | None:
    """The draft of this tab."""
    found: dict[str, Draft] = st.session_state.get(DRAFT, {})
    return found.get(card.identity.fingerprint) or kept_draft(card, tab())


def offer_last(card: ModelCard) -> None:
    """Where this tab has no draft: the one that was changed last in another tab or on another day."""
    if current(card) is not None or (found := newest_draft(card)) is None:
        return
    draft, changed = found
    label = f"Take up the plan changed {words.ago(changed)}"
    st.button(label, icon=":material/history:", key="pl_take_up", on_click=put, args=(card, draft))


def put(card: ModelCard, draft: Draft) -> None:
    """Make a draft the current one, remembered on the disk; the one before it can be taken back."""
    key = card.identity.fingerprint
    before = current(card)
    history: list[Draft] = st.session_state.setdefault(HISTORY, {}).setdefault(key, [])
    if before is not None:
        history.append(before)
        del history[:-MOST_UNDO]
    _set(card, draft)


def change(card: ModelCard, shown: Draft, how: Callable[[Draft, ModelCard], Draft]) -> None:
    """Change the draft as it is when the change comes.

    A button may be pressed before the page is drawn anew after the last change: what it knows is then the draft before.

    Args:
        shown: the draft that was drawn, for a tab that has none yet: what Undo then comes back to.
        how: makes the new one of the draft and the card with layers as that stores them.
    """
    draft = current(card)
    if draft is None:
        _set(card, shown)
        draft = shown
    put(card, how(draft, draft.stored(card)))


def _set(card: ModelCard, draft: Draft) -> None:
    st.session_state[MOVES] = st.session_state.get(MOVES, 0) + 1
    st.session_state.setdefault(DRAFT, {})[card.identity.fingerprint] = draft
    try:
        keep_draft(draft, card, tab(make=True))
    except (LrcError, OSError):
        st.toast("The plan could not be kept on the disk; it holds for this tab only.", icon=":material/warning:")


def undo_button(card: ModelCard) -> None:
    """Take the last move back."""
    history: list[Draft] = st.session_state.get(HISTORY, {}).get(card.identity.fingerprint, [])

    def undo() -> None:
        _set(card, history.pop())

    st.button("Undo", icon=":material/undo:", key="pl_undo", disabled=not history, on_click=undo)


def budget(card: ModelCard, draft: Draft, keep: float) -> None:
    """How much of the budget the draft uses, in words and as a bar."""
    used, allowed = plan_params(card.layers, draft.ranks), int(keep * card.params_linear + 1e-6)
    counts = summary(draft, card)
    share = used / allowed
    state = f"**{words.percent(used / card.params_linear, 2)}** of the block linears kept, the budget is "
    state += f"{words.percent(keep, 2)}: "
    if used > allowed:
        state += f":red[:material/error: {words.count(used - allowed)} parameters too many]"
    else:
        state += f":green[:material/check: {words.count(allowed - used)} parameters free]"
    st.progress(min(1.0, share), text=state)
    st.caption(
        f"Began as {escaped(draft.base)} · {decomposition_label(draft.decomposition)} · "
        f"{counts['dense']} dense, {counts['low']} of low rank, {counts['locked']} locked"
    )


def chosen(card: ModelCard) -> LinearShape:
    """The layer whose rank is set."""
    by_name = {layer.name: layer for layer in card.layers}
    return by_name.get(str(st.session_state.get(LAYER, "")), card.layers[0])


def editor(ref: ModelRef, card: ModelCard, draft: Draft, keep: float) -> None:
    """The heatmap of what every layer keeps, the panel of the chosen one, and the button that spends the rest."""
    losses, source = known_losses(ref, card, archive())
    left, right = st.columns([6, 5], gap="large")
    layer = chosen(card)
    with left:
        _grid(card, draft, layer)
    with right:
        _panel(ref, card, draft, layer)
        _locks(card, draft, layer)
        _spend(card, draft, keep, losses, source)
    _table(card, draft)


def _grid(card: ModelCard, draft: Draft, layer: LinearShape) -> None:
    states = {item.name: state for item, state in zip(card.layers, layer_states(card.layers, draft.ranks), strict=True)}
    sentences = {
        name: f"Block {one.layer.block} {one.layer.kind}\n"
        + ("dense" if one.dense else f"rank {one.rank} of {one.layer.full_rank}")
        + f", keeps {words.percent(one.kept)}"
        + ("\nlocked" if name in draft.locked else "")
        for name, one in states.items()
    }
    st.markdown(f"**Share of each layer that is kept** :small[:gray[{LOCK} locked]]")
    cell_grid(
        Grid(
            card=card,
            values={name: one.kept for name, one in states.items()},
            words=sentences,
            scale=Scale("kept", ".0%"),
            limits=Limits(0.0, 1.0),
            label=f"Share of each of {len(card.layers)} layers that the plan keeps",
            name=f"{card.name}-plan",
            chosen={layer.name: OUTLINE},
            pins=False,
            marks=dict.fromkeys(draft.locked, LOCK),
        ),
        GRID,
        _picked,
    )
    st.caption(plan_sentence(list(states.values())))


def _picked() -> None:
    name, _ = picked_in(GRID)
    if name:
        st.session_state[LAYER] = name


def _panel(ref: ModelRef, card: ModelCard, draft: Draft, layer: LinearShape) -> None:
    """Rank of the chosen layer."""
    rank, dense_from = draft.ranks[layer.name], smallest_dense_rank(layer)
    st.markdown(f"## Block {layer.block}, {escaped(layer.kind)}")
    st.session_state[RANK] = rank

    def set_rank(value: int) -> None:
        change(card, draft, lambda now, stored: now.with_rank(stored, layer.name, value))

    st.number_input(
        f"Rank, 1 to {layer.full_rank:,}",
        1,
        layer.full_rank,
        step=max(1, layer.full_rank // 48),
        key=RANK,
        on_change=lambda: set_rank(int(st.session_state[RANK])),
        help=f"At {dense_from:,} or more the layer is stored dense: "
        f"as {storage_law(layer.storage).label.lower()} it would cost as much.",
    )
    with st.container(horizontal=True):
        for label, value in (("Dense", layer.full_rank), ("Half its parameters", whole_rank_of_share(layer, 0.5))):
            st.button(label, key=f"pl_set_{label}", on_click=set_rank, args=(value,))
    stored = "stored dense" if is_dense(layer, rank) else f"rank {rank} of {layer.full_rank}"
    line = (
        f"{layer.out_features:,} × {layer.in_features:,}, {stored}: keeps "
        f"{words.percent(layer_ratio(layer, rank))}; dense from rank {dense_from:,}."
    )
    view = archive().best_spectra(ref)
    if view is not None:
        spectra = spectra_of(view)
        name = draft.decomposition if draft.decomposition in spectra.values else spectra.decompositions[0]
        if layer.name in spectra.values[name]:
            kept = energy_kept(spectra.values[name][layer.name], rank)
            line += f" {words.percent(kept, 2)} of its energy remains ({decomposition_label(name)}, {when(view)})."
    st.caption(line)


def _locks(card: ModelCard, draft: Draft, layer: LinearShape) -> None:
    """Lock or free the layer, its kind, its block."""
    groups = {
        "this layer": [layer.name],
        f"every {words.short_kind(layer.kind)}": [item.name for item in card.layers if item.kind == layer.kind],
        f"block {layer.block}": [item.name for item in card.layers if item.block == layer.block],
    }
    with st.container(horizontal=True):
        for number, (label, names) in enumerate(groups.items()):
            locked = set(names) <= set(draft.locked)
            st.button(
                f"{'Free' if locked else 'Lock'} {label}",
                icon=":material/lock_open:" if locked else ":material/lock:",
                key=f"pl_lock_{number}",
                on_click=change,
                args=(card, draft, partial(_with_locks, names, not locked)),
            )
        st.button(
            "Free all",
            key="pl_free",
            disabled=not draft.locked,
            on_click=change,
            args=(card, draft, lambda now, _: now.with_locks(now.locked, False)),
        )


def _spend(
    card: ModelCard, draft: Draft, keep: float, losses: Mapping[str, np.ndarray] | None, source: str
) -> None:  # fmt: skip
    """The button that lets the allocator spend what is not locked."""

    def spend() -> None:
        try:
            change(card, draft, lambda now, stored: now.spent(stored, keep, losses))
        except LrcError as error:
            st.session_state["pl_spend_error"] = error

    st.button(
        "Let the allocator spend the rest",
        icon=":material/auto_fix_high:",
        type="primary",
        key="pl_spend",
        on_click=spend,
        width="stretch",
    )
    if error := st.session_state.pop("pl_spend_error", None):
        st.error(escaped(error.remedy), title=escaped(error.message), icon=":material/error:")
    if losses is None:
        st.caption(
            "The layers that are not locked keep their proportions: no loss curve of this model is known. "
            "Spectra under the two-sided decomposition (K-FAC) give one; the Spectra page computes them."
        )
        return
    loss, spectra = predicted_loss(card.layers, draft.ranks, losses), archive().open(source)
    made = when(spectra) if spectra is not None else source
    factors = decomposition_label(draft.decomposition)
    st.caption(
        f"The layers that are not locked get the ranks of least predicted loss (K-FAC, {made}). "
        f":blue-badge[:material/calculate: estimate] this plan: **{loss:.3f}** nats per token"
        + (
            f". {_expectation(loss, source)}"
            if draft.decomposition == TWO_SIDED
            else f", from the two-sided spectra, for {factors} factors: to compare drafts, without a range."
        )
    )


def _expectation(loss: float, source: str) -> str:
    """What the loss comes to, by measured plans on the same factors, or why nothing says so."""
    said, basis = loss_forecast(archive().require(source, SpectraSpec), loss)
    return f"Forecast, not measured: {escaped(said)}. {escaped(basis)}" if said else escaped(basis)


def _with_locks(names: Sequence[str], locked: bool, draft: Draft, _: ModelCard) -> Draft:
    return draft.with_locks(names, locked)


def _with_rows(rows: Mapping[Any, Mapping[str, Any]], draft: Draft, card: ModelCard) -> Draft:
    """A draft with what was edited in rows of the table."""
    for row, cells in rows.items():
        layer = card.layers[int(row)]
        if "rank" in cells:
            draft = draft.with_rank(card, layer.name, min(max(int(cells["rank"] or 1), 1), layer.full_rank))
        if "locked" in cells:
            draft = draft.with_locks([layer.name], bool(cells["locked"]))
    return draft


def _table(card: ModelCard, draft: Draft) -> None:
    """All ranks as a table that can be edited."""
    frame = pd.DataFrame(
        {
            "layer": [f"{layer.block} {layer.kind}" for layer in card.layers],
            "rank": [draft.ranks[layer.name] for layer in card.layers],
            "locked": [layer.name in draft.locked for layer in card.layers],
            "full rank": [layer.full_rank for layer in card.layers],
            "dense from rank": [smallest_dense_rank(layer) for layer in card.layers],
            "kept": [100 * layer_ratio(layer, draft.ranks[layer.name]) for layer in card.layers],
        }
    )

    # A table with edits keeps them: after each of them it is a new one, with the ranks as they are.
    key = f"{TABLE}_{st.session_state.get(MOVES, 0)}"

    def edited() -> None:
        change(card, draft, partial(_with_rows, st.session_state[key]["edited_rows"]))

    with st.expander("All ranks as a table", icon=":material/table_chart:"):
        st.data_editor(
            frame,
            key=key,
            hide_index=True,
            on_change=edited,
            disabled=["layer", "full rank", "dense from rank", "kept"],
            column_config={
                "rank": st.column_config.NumberColumn(min_value=1, step=1),
                "kept": st.column_config.NumberColumn(format="%.1f %%"),
            },
            height=380,
        )


def why_not(card: ModelCard, over: bool) -> str:
    """Why this plan cannot be measured; "" when it can."""
    if card.identity.header_only:
        return "Only the headers of this model have been read. Load it once (read its spectra) to measure plans of it."
    return "It keeps more than the budget: lower some ranks, or let the allocator spend the rest." if over else ""


def score_list(ref: ModelRef, keep: float, evaluation: EvaluationSpec) -> None:
    """Measured plans at this target, the best first."""
    st.header(f"Score list at {words.removed(keep)}")
    scores = plan_scores.comparable(plan_scores.update(ref), keep, evaluation, ref)
    if not scores:
        st.caption(
            f"Nothing measured at this compression on {escaped(plan_scores.measured_on(evaluation))} yet. Plans of the "
            "machine come from the Compare page, yours from the button above."
        )
        return
    if sentence := plan_scores.verdict(scores):
        st.markdown(sentence)
    rows = [
        {
            "place": place,
            "who": f"You · {score.name}" if score.hand else method_label(score.method),
            "decomposition": decomposition_label(score.decomposition),
            "kept": words.percent(score.keep_achieved, 2),
            **{
                f"perplexity, {label}": words.measured(one["value"], one.get("stderr"))
                for one, label in zip(score.perplexity.values(), text_labels(score.perplexity).values(), strict=True)
            },
            "run": score.run_id,
        }
        for place, score in enumerate(scores, 1)
    ]
    st.dataframe(pd.DataFrame(rows), hide_index=True, alt=f"Measured plans at {words.removed(keep)}, best first")
    st.caption(
        f"Measured on {escaped(plan_scores.measured_on(evaluation))}; kept on this computer only, traceable to its run."
    )
