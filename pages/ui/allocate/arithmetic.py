"""Plans that need no job: of methods whose ranks follow from the shapes of the layers and the target alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

import streamlit as st

from lrc_core.budget import fit_budget, stored_card, uniform_ranks
from lrc_core.errors import BudgetError
from lrc_core.plan import Plan, make_plan
from lrc_core.registry import ALLOCATORS
from lrc_core.runs.spec import AllocateSpec
from lrc_core.types import LinearShape, ModelCard
from lrc_core.words import removed
from pages.ui.shared.naming import download, file_name

_RULES: Mapping[str, Callable[[Sequence[LinearShape], float], Mapping[str, int]]] = {"uniform": uniform_ranks}
"""How the ranks of such methods are counted, before they are fitted to the budget."""


def plan_of(card: ModelCard, spec: AllocateSpec) -> Plan | None:
    """The plan that the job of a spec would come to; None where it takes more than counting, or cannot be."""
    if not ALLOCATORS.get(spec.method).arithmetic or spec.method not in _RULES:
        return None
    card = stored_card(card, spec.storage, spec.rank_multiple)
    try:
        ranks = fit_budget(card.layers, _RULES[spec.method](card.layers, spec.keep), spec.keep)
    except BudgetError:
        return None
    origin = {"calibration": asdict(spec.calibration)}  # of the factors, which are made when the plan is measured
    return make_plan(
        card, ranks, decomposition=spec.decomposition, method=spec.method, keep_target=spec.keep, origin=origin
    )


def at_once(card: ModelCard, spec: AllocateSpec) -> None:
    """Where the ranks of a form are arithmetic: that they are there already, and the plan as a file."""
    plan = plan_of(card, spec)
    if plan is None:
        return
    label = ALLOCATORS.get(spec.method).label
    st.markdown(
        f"**{label} is arithmetic.** Its ranks at {removed(spec.keep)} stand above; they need no text and no job. "
        "A run of it can be measured, tuned and exported."
    )
    download(
        f"{label} plan at {removed(spec.keep)}",
        json.dumps(plan.to_dict(), indent=1),
        file_name(card.name, spec.method, f"{removed(spec.keep)} removed", "plan", ending="json"),
        key="al_arithmetic",
    )
