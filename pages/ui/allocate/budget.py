"""What the next job may spend: the share of parameters that the slider says, or bytes, or time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import streamlit as st

from lrc_core import words
from lrc_core.allocate.curves.mixtures import least_bytes
from lrc_core.budget import check_target, stored_card
from lrc_core.decompose import IN_NATS, TWO_SIDED
from lrc_core.errors import BudgetError
from lrc_core.formats.budgets import (
    BOTH,
    LATENCY,
    MEGABYTES,
    SHARE,
    VARY_WORDS,
    byte_budget,
    latency_share,
    require_reach,
)
from lrc_core.formats.sizes import rest_bytes, whole_bytes
from lrc_core.names import decomposition_label
from lrc_core.registry import ALLOCATORS, MethodEntry
from lrc_core.runs.spec import AllocateSpec
from lrc_core.types import ModelCard
from pages.ui.shared import forms

BUDGET, VALUE, MAY = "al_budget", "al_budget_value", "al_vary"
PARAMETERS = "parameters"
UNITS = {
    PARAMETERS: "Parameters, as the slider says",
    SHARE: "Share of the bytes",
    MEGABYTES: "Megabytes of the model",
    LATENCY: "Share of the time",
}
_USUAL = 0.45
"""What 8 bits take is 0.53 of 16: a little less, so that neither ranks nor 8 bits alone are the answer."""


def choose(
    spec: AllocateSpec,
    entry: MethodEntry,
    card: ModelCard,
    changed: Callable[[], None],
    decompose: Callable[[str], None],
) -> AllocateSpec:
    """The budget of a job, for methods that can spend bytes and time; the spec as it is for the others.

    Args:
        spec: of the next job, at the slider's share of parameters.
        decompose: called with the decomposition that the budget needs, where the user takes it.
    """
    if not entry.by_bytes:
        return spec
    unit = st.selectbox(
        "Budget", list(UNITS), format_func=UNITS.__getitem__, key=BUDGET, on_change=changed, bind="query-params",
        help="In bytes, every layer chooses its rank and a number format of llama.cpp (Q8_0, Q5_1, Q4_0) together. In "
        "time, every layer chooses its rank at what it was measured to take on this device.",
    )  # fmt: skip
    if unit not in UNITS or unit == PARAMETERS:
        return spec
    budget = f"{unit}:{_value(unit, card, changed):g}"
    if latency_share(budget) is not None:
        st.caption("Before it starts, the job measures on this device how long layers take at each rank.")
        return replace(spec, keep=1.0, budget=budget)
    found = replace(spec, keep=1.0, budget=budget, vary=_vary(changed))
    _say(found, card)
    if spec.decomposition not in IN_NATS:
        label = decomposition_label(TWO_SIDED)
        st.caption(f":material/info: A budget in bytes needs predicted losses, which only {label} gives.")
        st.button(f"Choose {label}", key="al_budget_decompose", on_click=decompose, args=(TWO_SIDED,))
    return found


def _value(unit: str, card: ModelCard, changed: Callable[[], None]) -> float:
    """The number of a budget, from a field of its own for each unit."""
    if unit == MEGABYTES:
        whole = _whole_model(card)
        return st.number_input(
            "MB (10⁶ bytes) of the whole model", 1, max(1, round(whole / 1e6)), max(1, round(whole * _USUAL / 1e6)),
            key=f"{VALUE}_{unit}", on_change=changed, bind="query-params",
        )  # fmt: skip
    of = "16-bit bytes" if unit == SHARE else "dense time"
    share = st.number_input(
        f"% of the block linears' {of}", 1, 100, round(100 * _USUAL) if unit == SHARE else 80,
        key=f"{VALUE}_{unit}", on_change=changed, bind="query-params",
    )  # fmt: skip
    return share / 100


def _vary(changed: Callable[[], None]) -> str:
    """What may be chosen within bytes."""
    names = {name: label.capitalize() for name, label in VARY_WORDS.items()}
    return forms.pick(st, "May choose", names, BOTH, MAY, on_change=changed, bind="query-params")


def _whole_model(card: ModelCard) -> int:
    """Bytes of the model in 16 bits."""
    return rest_bytes(card) + whole_bytes(card.layers)


def _say(spec: AllocateSpec, card: ModelCard) -> None:
    """What a budget in bytes comes to; nothing where it is out of reach, which stands at the button."""
    if out_of_reach(spec, card) is not None:
        return
    allowed = byte_budget(spec.budget).allowed(card)
    rest = rest_bytes(card)
    st.caption(
        f"{words.data_size(min(allowed, whole_bytes(card.layers)))} for the block linears and "
        f"{words.data_size(rest)} for the rest, instead of {words.data_size(_whole_model(card))} in 16 bits."
    )


def out_of_reach(spec: AllocateSpec, card: ModelCard) -> BudgetError | None:
    """Why no plan can be within a job's budget; None where there may be one.

    Args:
        card: of the model. A time's reach is known only when layers have been timed.
    """
    layers = stored_card(card, spec.storage, spec.rank_multiple).layers
    try:
        if not spec.budget:
            if not ALLOCATORS.get(spec.method).structured:
                check_target(layers, spec.keep)
        elif latency_share(spec.budget) is None:
            _require_bytes(spec, card, least_bytes(layers, spec.vary))
    except BudgetError as error:
        return error
    return None


def _require_bytes(spec: AllocateSpec, card: ModelCard, least: int) -> None:
    """Refuse a budget below the smallest choices of all layers, in the unit that it was asked for in.

    Raises:
        BudgetError: says the least that can be asked for.
    """
    budget = byte_budget(spec.budget)
    if budget.unit != MEGABYTES:
        require_reach(least, budget.allowed(card), card.layers)
        return
    smallest = rest_bytes(card) + least
    if budget.value * 1e6 < smallest:
        kept = words.data_size(rest_bytes(card))
        raise BudgetError(
            f"No plan is as small as {budget.words}: embeddings, head and norms, which are kept in 16 bits, take {kept}"
            f", the block linears at least {words.data_size(least)}.",
            f"Allow at least {math.ceil(smallest / 1e6)} MB.",
        )
