"""Step 6: uniform, STRS, learned. The same budget spent three ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from lrc_core import words
from lrc_core.budget import LAWS, keep_at, storage_law, whole_percent
from lrc_core.escape import escaped
from lrc_core.figures import measured as charts
from lrc_core.names import decomposition_label, method_label
from lrc_core.plan import Plan, split_variant
from lrc_core.quality.quantised import compresses
from lrc_core.quality.rows import allocated_by, dense_row, mean_loss
from lrc_core.results import comparisons
from lrc_core.results.archive import archive
from lrc_core.runs.spec import ModelRef
from lrc_core.texts.label import text_label
from lrc_core.types import ModelCard
from pages.ui.compare import ranks, readings, views
from pages.ui.shared import forms
from pages.ui.shared.frame import empty, page_link, sample_note

RATE, PAIR = "learn_rate", "learn_pair"
METHODS = ("uniform", "strs", "llrc")


@dataclass(frozen=True)
class Trio:
    """Where the three can be compared: rows of one group, on the same decomposition, stored under the same law."""

    group: comparisons.Group
    decomposition: str
    storage: str

    def rows(self, keep: float | None) -> list[comparisons.Row]:
        """The dense model and those of the three that were measured, at one budget or (None) at all."""
        rows = self.group.at(self.decomposition, keep)
        return [
            row
            for row in rows
            if row["method"] == "dense" or (allocated_by(row, METHODS) and _law(row) == self.storage)
        ]

    @property
    def keeps(self) -> list[float]:
        """Budgets at which one of the three was measured."""
        return sorted({float(row["keep_target"]) for row in self.rows(None) if compresses(row)})

    @property
    def methods(self) -> set[str]:
        """Those of the three that were measured."""
        return {split_variant(str(row["method"]))[0] for row in self.rows(None) if compresses(row)}

    @property
    def basis(self) -> str:
        """How all of their layers are factored and stored."""
        return f"{decomposition_label(self.decomposition)} factors, stored as {storage_law(self.storage).label.lower()}"


def _law(row: comparisons.Row) -> str:
    return split_variant(str(row["method"]))[2]


def draw(ref: ModelRef) -> None:
    """Perplexity of the three at one budget, their plans, and where two of them differ."""
    trio = usable(ref)
    if trio is None:
        empty(
            "No comparison of the three yet",
            "Compare uniform, STRS and LLRC on the Compare page; the shipped one is missing as well.",
            ":material/balance:",
        )
        return
    group = trio.group
    rates = sorted({whole_percent(keep) for keep in trio.keeps})
    keep = keep_at(forms.rate_choice(st, "Budget: share removed from the block linears", rates, RATE))
    rows = trio.rows(keep)
    views.perplexity(rows, charts.perplexity_by_method(rows, log=True), "learn_perplexity")
    st.caption(f"All three: {trio.basis}.")
    if said := beyond(group, keep, rows):
        st.markdown(said)
    plans = plans_of(rows)
    known = archive().newest_card(group.views[0].spec.model)
    if known is not None and len(plans) > 1:
        difference(known[0], plans)
    sample_note(group.sample, *(view.id for view in group.views))
    page_link("pages/compare.py", "Everything that was measured, on Compare", ":material/balance:")


def plans_of(rows: Sequence[comparisons.Row]) -> dict[str, Plan]:
    """The plans behind rows, by their allocator."""
    found = {split_variant(str(row["method"]))[0]: comparisons.plan_of(row) for row in rows}
    return {method: plan for method, plan in found.items() if plan is not None}


def usable(ref: ModelRef) -> Trio | None:
    """The user's own comparison of at least two of the three, else the shipped one: of most methods, at most sizes."""
    for candidate in (ref, ModelRef()):
        for group in comparisons.groups(candidate):
            found = (Trio(group, name, law) for name in comparisons.decompositions_of(group) for law in LAWS)
            trio = max(found, key=lambda trio: (len(trio.methods), len(trio.keeps)), default=None)
            if trio is not None and len(trio.methods) > 1:
                return trio
    return None


def beyond(group: comparisons.Group, keep: float, rows: Sequence[comparisons.Row]) -> str:
    """What lost less than the best of the three at the same budget, "" where nothing did."""
    three = [row for row in rows if allocated_by(row, METHODS)]
    best = lightest(group, keep)
    if best is None or not three or mean_loss(best) >= min(map(mean_loss, three)):
        return ""
    dense, text = dense_row(rows), next(iter(best["perplexity"]))
    score = best["perplexity"][text]
    name = method_label(str(best["method"]))
    said = (
        f"These are the three of this step. Of all that was measured at this budget **{name}** loses least: "
        f"{words.measured(score['value'], score.get('stderr'))} on {escaped(text_label(text))}"
    )
    if dense is not None and text in dense["perplexity"]:
        times = score["value"] / dense["perplexity"][text]["value"]
        said += f", {words.times(times)} times the dense model"
        if times < 1 and best.get("update"):
            said += "; its factors were fitted to text after the cut, the dense model was not"
    return f"{said}."


def lightest(group: comparisons.Group, keep: float) -> comparisons.Row | None:
    """The row of ranks that loses least at a budget, whatever its decomposition."""
    found = [row for row in group.at(comparisons.EVERY, keep) if compresses(row)]
    return min(found, key=mean_loss, default=None)


def difference(card: ModelCard, plans: dict[str, Plan]) -> None:
    """Where two plans of the same size spend their parameters differently."""
    st.markdown("**Where the parameters go**")
    names = [name for name in ("llrc", "strs", "uniform") if name in plans]
    sides = {f"{one} − {two}": (one, two) for number, one in enumerate(names) for two in names[number + 1 :]}
    pairs = {pair: " − ".join(map(method_label, both)) for pair, both in sides.items()}
    first, second = sides[forms.pick(st, "Difference", pairs, next(iter(pairs)), PAIR, bind="query-params")]
    labels = (method_label(first), method_label(second))
    pair = plans[first], plans[second]
    ranks.draw_difference(card, pair, labels, readings.spending(card, *pair), key="learn_difference")
